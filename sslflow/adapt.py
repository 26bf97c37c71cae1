"""The adaptation loop, a generator like `fit`: batches of both domains, one optimiser, nothing decided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sslflow.adapter import Adapter, Judged, Losses, Pair
from sslflow.data.dataset import Dataset
from sslflow.encoder import Encoder
from sslflow.features import batch_norms, fresh_statistics
from sslflow.params import Count, Fraction, NonNegative, Positive
from sslflow.rng import derive, generator
from sslflow.views import Normalise, Views

CHUNK = 256


@dataclass(frozen=True)
class Domain:
    """The images of one domain, numbered from 0, as inputs of an adapter's body."""

    size: int
    augmented: Callable[[Tensor], Tensor]
    """Inputs of the images numbered so, another view in each call."""
    plain: Callable[[Tensor], Tensor]
    """The same without augmentation."""


class Residual(nn.Module):
    """A trainable layer on frozen features `(n, dim)`; it begins by changing nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(dim, dim)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layer(features)


class Centred(nn.Module):
    """An encoder whose features are centred and scaled, over the batch and then over what was seen, so that cosines
    tell them apart."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.norm = encoder, nn.BatchNorm1d(encoder.dim, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.encoder(images))


def standardised(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Frozen features `(m, dim)` and `(n, dim)` with mean 0 and standard deviation 1 over both domains together. Raises
    `ValueError` for features that are not finite."""
    both = torch.cat([source, target])
    wrong = int((~both.isfinite().all(dim=1)).sum())
    if wrong:
        raise ValueError(f"the features of {wrong} of {len(both)} images are not finite; is the encoder a good one?")
    mean, scale = both.mean(dim=0), both.std(dim=0).clamp_min(1e-6)
    return (source - mean) / scale, (target - mean) / scale


def of_features(features: Tensor) -> Domain:
    """A domain of frozen features `(n, dim)`."""
    return Domain(len(features), features.__getitem__, features.__getitem__)


def of_images(dataset: Dataset, rows: Tensor, views: Views, normalise: Normalise, device: torch.device) -> Domain:
    """A domain of prepared images: the first of the `views` of each is what training sees."""

    def read(numbers: Tensor) -> Tensor:
        return dataset.read(rows[numbers.cpu()]).to(device)

    return Domain(len(rows), lambda numbers: views(read(numbers))[0], lambda numbers: normalise(read(numbers)))


@dataclass(frozen=True)
class AdaptStep:
    """What one optimiser step did."""

    number: int
    """Steps done, from 1."""
    steps: int
    losses: Losses


def adapt(
    adapter: Adapter,
    source: Domain,
    labels: Tensor,
    target: Domain,
    device: torch.device,
    seed: int,
    *,
    steps: Count = 1000,
    batch_size: Count = 36,
    lr: Positive = 0.01,
    body_lr: NonNegative = 0.1,
    momentum: Fraction = 0.9,
    weight_decay: NonNegative = 5e-4,
) -> Iterator[AdaptStep]:
    """Train `adapter` on the source with its `labels` `(n,)` and on the target, yielding after each step.

    Each step takes `batch_size` images of either domain: of the source, of every class equally often; of the target,
    all once before one a second time. SGD with Nesterov's momentum; the rate, `lr` and `body_lr` times that for the
    body, falls as (1 + 10 p)^−0.75 with the progress p (as in DANCE, after arXiv:1409.7495). Raises `ValueError` for a
    loss that is not finite.
    """
    adapter.to(device)
    adapter.start(judged_features(adapter, target))
    own = {id(p) for p in adapter.body.parameters()}
    others = [p for p in adapter.parameters() if id(p) not in own]
    updates = torch.optim.SGD(
        [{"params": list(adapter.body.parameters()), "share": body_lr}, {"params": others, "share": 1.0}],
        lr=lr,
        momentum=momentum,
        nesterov=True,
        weight_decay=weight_decay,
    )
    labels = labels.to(device)
    by_class = [(labels == number).nonzero().flatten() for number in range(adapter.classes)]
    for step in range(steps):
        torch.manual_seed(derive(seed, "adapt", step))
        for group in updates.param_groups:
            group["lr"] = lr * group["share"] * (1 + 10 * step / steps) ** -0.75
        chosen = _balanced(by_class, batch_size, generator(seed, "source", step)).to(device)
        rows = _in_turn(target.size, batch_size, step, seed).to(device)
        adapter.train()
        losses = adapter.training_step(
            Pair(source.augmented(chosen), labels[chosen], target.augmented(rows), rows, step / steps)
        )
        updates.zero_grad()
        losses["loss"].backward()
        updates.step()
        adapter.after_step((step + 1) / steps)
        if not losses["loss"].isfinite():
            raise ValueError(
                f"the loss is {losses['loss'].item()} at step {step + 1} of {steps}; try a smaller adapt.train.lr"
            )
        yield AdaptStep(step + 1, steps, {name: value.detach() for name, value in losses.items()})


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
