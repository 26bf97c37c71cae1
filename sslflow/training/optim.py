"""Optimisers and the course of the learning rate."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "sgd", "lars"]


def make_optimizer(
    module: nn.Module, name: OptimizerName, lr: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters; biases and the parameters of norms (one dimension) are not decayed.

    `momentum` is that of SGD and LARS; AdamW keeps its own usual pair.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    return LARS(groups, lr=lr, momentum=momentum)


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate at `step` of `steps`: linear over the first `warmup` share, then half a cosine
    towards 0."""
    warm = round(warmup * steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled, tensor by tensor, to the weights' norm (arXiv:1708.03888).

    Tensors of one dimension are neither decayed nor scaled, as SimCLR, BYOL and Barlow Twins have it.
    """

    def __init__(
        self, params, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure=None):
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: torch.Tensor, update: torch.Tensor, group: dict) -> None:
        if p.ndim > 1:
            update = update.add(p, alpha=group["weight_decay"])
            weights, gradient = p.norm(), update.norm()
            scale = torch.where((weights > 0) & (gradient > 0), group["trust"] * weights / gradient, 1.0)
            update = update * scale
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].mul_(group["momentum"]).add_(update)
        p.add_(state["momentum"], alpha=-group["lr"])
