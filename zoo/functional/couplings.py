"""Which noise belongs to which image, in the training of a flow."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


@torch.no_grad()
def nearest_noise(images: Tensor, noise: Tensor) -> Tensor:
    """The batch's noise in the order in which the squared distances to the images have the smallest sum.

    Minibatch optimal transport: Tong et al., "Improving and Generalizing Flow-Based Generative Models with Minibatch
    Optimal Transport", 2024, and Pooladian et al., "Multisample Flow Matching", 2023. The images, and so their labels,
    stay in their order. The assignment is found on the CPU, in time that grows with the cube of the batch.

    Args:
        images: (B, ...).
        noise: like the images.
    """
    costs = torch.cdist(images.flatten(1).double(), noise.flatten(1).double()).square()
    _, order = linear_sum_assignment(costs.cpu().numpy())
    return noise[torch.from_numpy(order).to(noise.device)]
