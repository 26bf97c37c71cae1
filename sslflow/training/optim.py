"""Optimisers and the course of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn

OptimizerName = Literal["adamw", "sgd", "lars"]


def make_optimizer(
    module: nn.Module,
    name: OptimizerName,
    lr: float,
    weight_decay: float,
    momentum: float,
    betas: tuple[float, float] = (0.9, 0.999),
    layer_decay: float = 1.0,
    networks: Iterable[nn.Module] = (),
    apart: nn.Module | None = None,
) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters; biases and the parameters of norms (one dimension) are not decayed,
    nor does LARS scale their steps.

    `momentum` is that of SGD and LARS, `betas` are AdamW's. With a `layer_decay` below 1, each layer of the timm
    `networks` learns with so much of the rate of the layer above it (arXiv:2106.08254): a group's `lr_scale`, by which
    the caller multiplies the rate. Groups of the network `apart`, one of them, have the key `apart`.
    """
    groups: list[dict[str, Any]] = []
    networks = [net for net in networks if layer_decay < 1 or net is apart]
    if networks:
        # timm is imported where it is needed: it takes longer to load than torch.
        from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]

        for net in networks:
            layers = param_groups_layer_decay(net, weight_decay, layer_decay=layer_decay)
            groups += [{**group, "apart": net is apart} for group in layers]
    layered = {id(p) for net in networks for p in net.parameters()}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in layered]
    groups += [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # One pass over memory for all that a step does to a weight (docs/devices.md). On CPUs AdamW keeps the bits that
    # runs were published with: fused it differs in the last place, which in a short run moves a score as a seed does.
    devices = {p.device.type for group in groups for p in group["params"]}
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=devices == {"cuda"})
    if name == "sgd":
        return torch.optim.SGD(
            groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=devices <= {"cpu", "cuda"}
        )
    from timm.optim import Lars  # pyright: ignore[reportPrivateImportUsage]

    # Or timm would leave the weights as they are, too, where weight_decay is 0.
    groups = [{**group, "always_adapt": any(p.ndim > 1 for p in group["params"])} for group in groups]
    return Lars(groups, lr=lr, momentum=momentum)  # pyright: ignore[reportArgumentType]  (timm's default is an integer)


def layers_of(network: nn.Module, layer_decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """The trainable parameters of a timm network in groups, each with the factor on its rate: 1 for the topmost layer,
    `layer_decay` times as much for each below."""
    from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]

    groups = param_groups_layer_decay(network, layer_decay=layer_decay)
    return [(group["params"], group["lr_scale"]) for group in groups]


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate at `step` of `steps`: linear over the first `warmup` share, then half a cosine
    towards 0."""
    warm = round(warmup * steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
