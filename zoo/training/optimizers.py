"""Optimisers that torch does not have in this form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from zoo.errors import UserError

QUINTIC = (3.4445, -4.7750, 2.0315)  # the authors' coefficients: steep at 0, and close to 1 at larger values


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Approximate ``U V^T`` of a matrix ``U S V^T``, by an odd polynomial of its singular values (Newton and Schulz).

    After 5 steps they are from 0.7 to 1.2, except those that were below about a hundredth of the largest; after 3 steps
    many are smaller. Computed in bfloat16, as by the authors.

    Args:
        matrix: (rows, columns).
        steps: number of applications of the polynomial.

    Returns:
        bfloat16, (rows, columns)
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)  # no singular value above 1
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def _evaluated(closure: Callable[[], Any] | None) -> Any:
    """Evaluate an optimiser's closure with gradients enabled; returns the loss."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


class Muon(Optimizer):
    """SGD with momentum whose update of each matrix is orthogonalised; a convolution is a matrix with one row per
    filter.

    Jordan et al. 2024 ("Muon: An optimizer for hidden layers in neural networks"), in the form that Jordan's CIFAR-10
    record uses, which also fixes the norm of every layer's weights. torch's Muon does not accept convolutional filters,
    and timm's does not fix their norm.

    Args:
        params: parameters with at least two dimensions.
        lr: learning rate: the spectral norm of an update.
        momentum: momentum factor.
        nesterov: use Nesterov momentum.
        steps: number of orthogonalisation steps.
        hold_norm: rescale each parameter to the norm ``sqrt(shape[0])`` before its update; the layers must be followed
            by a normalisation, which makes their scale irrelevant.

    Raises:
        UserError: a parameter has fewer than two dimensions.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        steps: int = 5,
        hold_norm: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "steps": steps, "hold_norm": hold_norm}
        super().__init__(params, defaults)
        if any(p.dim() < 2 for group in self.param_groups for p in group["params"]):
            raise UserError("Muon is for weights of two dimensions or more; give the others another optimizer")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients.
        """
        loss = _evaluated(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[p], group["momentum"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        gathered = state["momentum_buffer"].mul_(momentum).add_(grad)
        ahead = grad.add(gathered, alpha=momentum) if group["nesterov"] else gathered
        if group["hold_norm"]:
            p.mul_(len(p) ** 0.5 / p.norm())
        p.sub_(orthogonalised(ahead.flatten(1), group["steps"]).reshape(p.shape) * group["lr"])


class MultiOptimizer(Optimizer):
    """Several optimisers, each with its own parameters, combined into one.

    They share its state and parameter groups, so schedulers, clipping, mixed precision and accumulation apply to all of
    them, one step is one step of each, and a checkpoint holds a single optimiser state.

    Args:
        optimizers: no parameter may be in two of them.

    Raises:
        UserError: one of them evaluates the loss several times per step.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        if any(isinstance(one, LBFGS) for one in optimizers):
            raise UserError("LBFGS can't be the optimizer of a parameter group: it needs several losses per step")
        self.optimizers = list(optimizers)
        # Defaults that all of them have, so that a momentum schedule is refused if one of them has no momentum.
        common = set.intersection(*({*one.defaults} for one in self.optimizers))
        defaults = {name: value for name, value in self.optimizers[0].defaults.items() if name in common}
        super().__init__([group for one in self.optimizers for group in one.param_groups], defaults)
        self._share()

    def _share(self) -> None:
        ends = accumulate((len(one.param_groups) for one in self.optimizers), initial=0)
        for one, (start, stop) in zip(self.optimizers, pairwise(ends), strict=True):
            one.__setstate__({"state": self.state, "param_groups": self.param_groups[start:stop]})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the state, and pass it to the optimisers."""
        super().__setstate__(state)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Evaluate the loss once, and step each optimiser.

        Args:
            closure: computes the loss and its gradients.
        """
        loss = _evaluated(closure)
        for one in self.optimizers:
            one.step()
        return loss
