"""Losses of a generator and a discriminator, and penalties on the discriminator's gradient.

Non-saturating: Goodfellow et al., "Generative Adversarial Nets", 2014. Hinge: Lim and Ye, "Geometric GAN", 2017.
Relativistic: Jolicoeur-Martineau, "The relativistic discriminator", 2019, in pairs as in Huang et al., "The GAN is
dead; long live the GAN!", 2024. Wasserstein: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017; its gradient
penalty: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017. R1 and R2: Mescheder, Geiger and Nowozin,
"Which Training Methods for GANs do actually Converge?", 2018. Style ambiguity: Elgammal et al., "CAN: Creative
Adversarial Networks", 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Name = Literal["non_saturating", "hinge", "relativistic", "wasserstein"]
Scores = Callable[[Tensor], Tensor]


class AdversarialLoss(NamedTuple):
    """The two losses, each a mean over a batch of scores (B, 1) that are higher for what looks real.

    Args:
        discriminator: of the scores of real images and of samples.
        generator: of the scores of samples and of real images; those of real images are needed by ``paired`` alone.
        paired: whether each sample is compared with a real image.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor | None], Tensor]
    paired: bool = False


def _relativistic(made: Tensor, real: Tensor | None) -> Tensor:
    assert real is not None
    return F.softplus(real - made).mean()


LOSSES: dict[str, AdversarialLoss] = {
    "non_saturating": AdversarialLoss(
        lambda real, made: F.softplus(-real).mean() + F.softplus(made).mean(),
        lambda made, _: F.softplus(-made).mean(),
    ),
    "hinge": AdversarialLoss(
        lambda real, made: F.relu(1 - real).mean() + F.relu(1 + made).mean(), lambda made, _: -made.mean()
    ),
    "relativistic": AdversarialLoss(lambda real, made: F.softplus(made - real).mean(), _relativistic, paired=True),
    "wasserstein": AdversarialLoss(lambda real, made: made.mean() - real.mean(), lambda made, _: -made.mean()),
}
assert set(LOSSES) == set(get_args(Name))


def gradient_norms(scores: Tensor, images: Tensor) -> Tensor:
    """The squared norm of each score's gradient with respect to its image, (B,), itself differentiable.

    Args:
        scores: (B, 1), computed from the images, each from its own alone.
        images: (B, ...), which require a gradient.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def zero_centred_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Half the mean squared norm of the gradient: R1 at real images, R2 at samples."""
    return gradient_norms(scores, images).mean() / 2


def between(real: Tensor, made: Tensor, weights: Tensor) -> Tensor:
    """Images on the straight lines between real ones and samples.

    Args:
        real: (B, ...).
        made: like real, at weight 1.
        weights: (B,).
    """
    return torch.lerp(real, made, weights.view(-1, *(1 for _ in real.shape[1:])))


def one_centred_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """The mean squared distance of the gradient's norm from 1: Gulrajani et al.'s, at images ``between``."""
    # At a gradient of zero the root has none, which would be NaN.
    norms = gradient_norms(scores, images).clamp(min=torch.finfo(scores.dtype).tiny).sqrt()
    return (norms - 1).square().mean()


def style_ambiguity(logits: Tensor) -> Tensor:
    """How sure a classifier of K styles is of one; least where all are equally probable (Elgammal et al. 2017).

    Each style is a question of yes or no, whose answer is to have the probability 1/K: the sum of the K
    cross-entropies, averaged over the samples.

    Args:
        logits: (B, K).
    """
    yes = logits.log_softmax(1)
    # log(1 - p_k) is the log of the sum of the other probabilities.
    others = logits[:, None].expand(-1, logits.shape[1], -1).clone()
    others.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    no = others.logsumexp(2) - logits.logsumexp(1, keepdim=True)
    share = 1 / logits.shape[1]
    return -(share * yes + (1 - share) * no).sum(1).mean()
