"""A network trained on a few images, an encoder of which may be frozen: what protocols with few annotations share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslflow.networks.saved import AnyEncoder
from sslflow.runtime.rng import derive, permutation
from sslflow.training.optim import layers_of, warmup_cosine


@dataclass(frozen=True)
class Learnt:
    """How training went."""

    steps: int
    loss: float
    """Mean over the last tenth of the steps."""


def encoder_groups(encoder: AnyEncoder, peak: float | None, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """The parameters of an encoder and the highest rate at which they learn, for `learn_few`; with a `layer_decay`
    below 1 each layer, as timm counts them, has so much of the rate of the layer above it (arXiv:2106.08254).

    Without a rate there are none: the encoder is frozen, and in evaluation mode.
    """
    if peak is None:
        encoder.requires_grad_(False).eval()
        return []
    if layer_decay == 1:
        return [{"params": encoder.parameters(), "peak": peak}]
    return [{"params": layer, "peak": peak * scale} for layer, scale in layers_of(encoder.network, layer_decay)]


def learn_few(
    loss_of: Callable[[Tensor, int], Tensor],
    groups: Sequence[dict[str, Any]],
    images: int,
    device: torch.device,
    seed: int,
    purpose: str,
    *,
    epochs: int,
    min_steps: int,
    batch_size: int,
    weight_decay: float,
    warmup: float,
    what: str,
    rates: str,
) -> Learnt:
    """Train the `groups` of parameters, each with the rate `peak`, by AdamW, warm-up and cosine, for `epochs` over the
    `images`, but `min_steps` at least.

    `loss_of` takes the numbers of a step's images, int64 `(batch,)`, and that of the step. Batches are full ones, of
    all images where these are fewer. The order of the images, and all that is random in a step, depend on the seed and
    the `purpose` alone.

    Raises `ValueError` where a loss is NaN or infinite: `what` was trained, and the settings of which `rates` to lower.
    """
    size = min(batch_size, images)
    per_epoch = max(1, images // batch_size)
    steps = max(epochs * per_epoch, min_steps)
    updates = torch.optim.AdamW(groups, weight_decay=weight_decay)
    losses = torch.zeros(steps, device=device)
    for step in range(steps):
        epoch, number = divmod(step, per_epoch)
        chosen = permutation(images, seed, purpose, "order", epoch)[number * size : (number + 1) * size]
        torch.manual_seed(derive(seed, purpose, "step", step))
        for group in updates.param_groups:
            group["lr"] = group["peak"] * warmup_cosine(step, steps, warmup)
        loss = loss_of(chosen, step)
        updates.zero_grad()
        loss.backward()
        updates.step()
        losses[step] = loss.detach()
    if not losses.isfinite().all():
        bad = int((~losses.isfinite()).nonzero()[0]) + 1
        raise ValueError(f"{what}: the loss is not finite from step {bad} of {steps} on; try a smaller {rates}")
    return Learnt(steps, float(losses[-max(1, steps // 10) :].mean()))
