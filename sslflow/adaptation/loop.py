"""The adaptation loop, a generator like `fit`: batches of both domains, one optimiser, nothing decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sslflow.adaptation.auxiliary import Companion
from sslflow.adaptation.inputs import Domain
from sslflow.adaptation.method import Adapter, Judged, Losses, Pair
from sslflow.networks.batch_norm import batch_norms, fresh_statistics
from sslflow.runtime.rng import derive, generator
from sslflow.settings.params import Count, Fraction, NonNegative, Rate

CHUNK = 256


@dataclass(frozen=True)
class AdaptStep:
    """What one optimiser step did."""

    number: int
    """Steps done, from 1."""
    steps: int
    losses: Losses
    state: Callable[[], dict[str, Any]]
    """Everything that `adapt` needs to go on from here."""


def adapt(
    adapter: Adapter,
    source: Domain,
    labels: Tensor,
    target: Domain,
    device: torch.device,
    seed: int,
    companion: Companion | None = None,
    resume: dict[str, Any] | None = None,
    *,
    steps: Count = 1000,
    batch_size: Count = 36,
    lr: Rate = 0.01,
    body_lr: NonNegative = 0.1,
    momentum: Fraction = 0.9,
    weight_decay: NonNegative = 5e-4,
) -> Iterator[AdaptStep]:
    """Train `adapter` on the source with its `labels` `(n,)` and on the target, yielding after each step.

    Each step takes `batch_size` images of either domain: of the source, of every class equally often; of the target,
    all once before one a second time. SGD with Nesterov's momentum; the rate, `lr` and `body_lr` times that for the
    body, falls as (1 + 10 p)^−0.75 with the progress p (as in DANCE, after arXiv:1409.7495). A `companion` adds its own
    loss of the same images. `resume` is a state that an earlier step gave; the run then ends with the same bits as one
    that was never stopped. Raises `ValueError` for a loss that is not finite.
    """
    trained = nn.ModuleDict({"adapter": adapter, **({} if companion is None else {"companion": companion})}).to(device)
    labels = labels.to(device)
    if resume is None:
        before = judged_features(adapter, source)
        adapter.start(before, labels, judged_features(adapter, target))
    own = {id(p) for p in adapter.body.parameters()}
    others = [p for p in trained.parameters() if id(p) not in own and p.requires_grad]
    updates = torch.optim.SGD(
        [{"params": list(adapter.body.parameters()), "share": body_lr}, {"params": others, "share": 1.0}],
        lr=lr,
        momentum=momentum,
        nesterov=momentum > 0,
        weight_decay=weight_decay,
    )
    done = 0
    if resume is not None:
        trained.load_state_dict(resume["trained"])
        updates.load_state_dict(resume["optimizer"])
        done = resume["step"]
    by_class = [(labels == number).nonzero().flatten() for number in range(adapter.classes)]
    for step in range(done, steps):
        torch.manual_seed(derive(seed, "adapt", step))
        for group in updates.param_groups:
            group["lr"] = lr * group["share"] * (1 + 10 * step / steps) ** -0.75
        chosen = _balanced(by_class, batch_size, generator(seed, "source", step)).to(device)
        rows = _in_turn(target.size, batch_size, step, seed).to(device)
        trained.train()
        losses = adapter.training_step(
            Pair(source.augmented(chosen), labels[chosen], target.augmented(rows), rows, step / steps)
        )
        if companion is not None:
            images = torch.cat([domain.images(these) for domain, these in ((source, chosen), (target, rows))])
            beside = companion(images, torch.cat([chosen, source.size + rows]), step / steps)
            losses = {**losses, "loss": losses["loss"] + beside, "self_supervised": beside}
        updates.zero_grad()
        losses["loss"].backward()
        updates.step()
        adapter.after_step((step + 1) / steps)
        if companion is not None:
            companion.after_step((step + 1) / steps)
        if not losses["loss"].isfinite():
            raise ValueError(
                f"the loss is {losses['loss'].item()} at step {step + 1} of {steps}; try a smaller adapt.train.lr"
            )

        def state(done: int = step + 1) -> dict[str, Any]:
            return {"step": done, "trained": trained.state_dict(), "optimizer": updates.state_dict()}

        yield AdaptStep(step + 1, steps, {name: value.detach() for name, value in losses.items()}, state)


@torch.no_grad()
def judged_features(adapter: Adapter, domain: Domain) -> Tensor:
    """Features `(size, dim)` of all images of a domain without augmentation; in evaluation mode afterwards.

    With `domain_norm`, BatchNorm's running statistics become those of this domain first.
    """
    chunks = torch.arange(domain.size).split(CHUNK)
    if adapter.domain_norm and batch_norms(adapter.body):
        with fresh_statistics(adapter.body):
            for chunk in chunks:
                if len(chunk) > 1:
                    adapter.body(domain.plain(chunk))
    adapter.eval()
    return torch.cat([adapter.body(domain.plain(chunk)) for chunk in chunks])


@torch.no_grad()
def judge(adapter: Adapter, domain: Domain) -> tuple[Judged, Tensor]:
    """What the adapter makes of all images of a domain, and their features `(size, dim)`."""
    features = judged_features(adapter, domain)
    return adapter.judge(features), features


def _balanced(by_class: list[Tensor], count: int, numbers: torch.Generator) -> Tensor:
    """`count` images, their classes by chance, all equally likely, and then one of each class by chance."""
    classes = torch.randint(len(by_class), (count,), generator=numbers).tolist()
    places = torch.rand(count, generator=numbers).tolist()
    return torch.stack([by_class[k][int(at * len(by_class[k]))] for k, at in zip(classes, places, strict=True)])


def _in_turn(size: int, count: int, step: int, seed: int) -> Tensor:
    """The images of a step, each at most once; all have their turn before one has its second."""
    count = min(count, size)
    per_epoch = size // count
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(size, generator=generator(seed, "target", epoch))
    return order[place * count : (place + 1) * count]
