"""Self-critical sequence training: the policy gradient of a sentence's reward.

Rennie et al. 2017, "Self-critical sequence training for image captioning". With r the reward of a sampled caption and b
a baseline that does not depend on it, the expectation of (r - b) grad log p is the gradient of the expected reward.
"""

from __future__ import annotations

from torch import Tensor


def self_critical_loss(log_probs: Tensor, rewards: Tensor, baseline: Tensor) -> Tensor:
    """A number whose gradient is an unbiased estimate of that of minus the expected reward; mean over all captions.

    Args:
        log_probs: of the sampled captions, the sum over the words of each, with gradients, (B, S).
        rewards: of these captions, (B, S).
        baseline: what each is compared with, (B, S) or (B, 1).
    """
    return -((rewards - baseline).detach() * log_probs).mean()


def mean_of_others(rewards: Tensor) -> Tensor:
    """The mean reward of a picture's other samples, for each of them, (B, S); S is at least 2."""
    return (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
