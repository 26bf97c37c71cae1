"""A linear classifier on frozen features, its regularisation chosen on a part of the training images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor

from sslflow.runtime.distributed import all_reduce_sum, own_part, world_size
from sslflow.runtime.parts import at_a_time, fits, parts, taken
from sslflow.runtime.rng import permutation
from sslflow.settings.params import Count, Fraction, NonNegative, Positive

PATIENCE = 2
"""Weaker and weaker regularisation is tried until this many values in a row are no better: the weakest take longest."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted classifier and how it was chosen."""

    weight: Tensor
    """`(dim, classes)`, for standardised features."""
    bias: Tensor
    mean: Tensor
    scale: Tensor
    """The standardisation: mean and standard deviation of the training features."""
    regularisation: float
    """The weight of the squared norm that did best on the validation part."""
    validation_accuracy: float
    converged: bool
    """Whether the gradient fell below the tolerance within the iterations allowed, in the final fit."""

    def logits(self, features: Tensor) -> Tensor:
        """Of each class, for each row of features `(n, dim)`: `(n, classes)`."""
        return ((features.float() - self.mean) / self.scale) @ self.weight + self.bias

    def predict(self, features: Tensor) -> Tensor:
        """Class of each row of features `(n, dim)`, which may lie on the CPU, int64 `(n,)` on the device."""
        step = at_a_time(sum(self.weight.shape))
        return torch.cat([self.logits(part).argmax(dim=1) for part in parts(features, self.weight.device, step)])


def fit_linear(
    features: Tensor,
    labels: Tensor,
    classes: int,
    seed: int,
    groups: Tensor | None = None,
    together: bool = False,
    *,
    regularisation: Annotated[tuple[NonNegative, ...], MinLen(1)] = (0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4),
    validation: Fraction = 0.2,
    iterations: Count = 1000,
    tolerance: Positive = 1e-4,
) -> LinearProbe:
    """Multinomial logistic regression with a squared-norm penalty, solved by L-BFGS to convergence, on `(n, dim)`
    features.

    Of the `regularisation` values, the one with the best accuracy on a stratified `validation` share of these training
    rows is taken (the stronger of equals), and the classifier is fitted again on all of them. The share holds whole
    `groups`, int64 `(n,)`, where they are given: rows of one are too alike for the one to tell how well the other is
    known. Converged means that no entry of the gradient of the mean loss exceeds `tolerance`. Features lie on the
    labels' device, which computes, or on the CPU. With `together`, each process looks at a part of the rows, which all
    are given.
    """
    if not regularisation:
        raise ValueError("probe.linear.regularisation is empty: name at least one value to choose from")
    mean, scale = features.float().mean(dim=0), features.float().std(dim=0, correction=0)
    # A feature that never changes tells nothing: it is centred to 0 and must not be blown up.
    scale = torch.where(scale > 1e-6 * scale.max().clamp_min(1e-12), scale, torch.inf)
    mean, scale = mean.to(labels.device), scale.to(labels.device)
    held_out = stratified(labels, validation, seed, groups)
    # Those to fit on first, then those to judge by: both are parts of all, and need no copy.
    every = _Rows(features, labels, held_out.sort(stable=True).indices, mean, scale)
    count = int((~held_out).sum())
    fitted_to, judged_by = every[:count], every[count:]
    best, best_score, start, worse = max(regularisation), 0.0, None, 0
    for strength in sorted(regularisation, reverse=True):
        if not held_out.any() or worse == PATIENCE:
            break
        start = _solve(fitted_to, classes, strength, iterations, tolerance, start, together)
        correct = [_logits(part, start).argmax(dim=1) == known for part, known in judged_by.parts(classes)]
        score = float(torch.cat(correct).float().mean())
        best, best_score, worse = (strength, score, 0) if score > best_score else (best, best_score, worse + 1)
    solution = _solve(every, classes, best, iterations, tolerance, None, together)
    converged = _steepest(every, solution, best) <= tolerance
    return LinearProbe(solution[:-1], solution[-1], mean, scale, best, best_score, converged)


class _Rows:
    """Standardised features and their labels: held where the device has room for them, else made again whenever they
    are looked at, a part at a time, so that features that are mapped from the disk may be larger than memory."""

    def __init__(self, features: Tensor, labels: Tensor, order: Tensor, mean: Tensor, scale: Tensor) -> None:
        """Rows in the `order` given, int64 `(n,)`; features `(n, dim)` on the labels' device or on the CPU."""
        self._features, self._mean, self._scale = features, mean, scale
        self._numbers, self.labels, self.dim = order.to(features.device), labels[order], features.shape[1]
        self._held: Tensor | None = None
        if fits(features, labels.device):
            held = torch.empty(features.shape, device=labels.device)
            for here in self._slices(self.dim):
                held[here] = self._at(here)
            self._held = held

    def __getitem__(self, here: slice) -> _Rows:
        found = copy.copy(self)
        found.labels, found._numbers = self.labels[here], self._numbers[here]
        found._held = None if self._held is None else self._held[here]
        return found

    def parts(self, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features `(m, dim)` and labels `(m,)`, one part after the other; as many as is right where something is made
        of each of so many `classes`."""
        for here in self._slices(self.dim + classes):
            yield self._at(here), self.labels[here]

    def _slices(self, width: int) -> Iterator[slice]:
        step = at_a_time(width)
        return (slice(start, start + step) for start in range(0, len(self.labels), step))

    def _at(self, here: slice) -> Tensor:
        if self._held is not None:
            return self._held[here]
        return taken(self._features, self._numbers[here], self._mean.device).float().sub_(self._mean).div_(self._scale)


def stratified(labels: Tensor, share: float, seed: int, groups: Tensor | None = None) -> Tensor:
    """A random mask, bool `(n,)`, of about `share` of the rows of every class; never the last row of a class.

    With `groups`, int64 `(n,)`, of about `share` of the groups in which a class is; of whole ones, and never the last
    one of a class.
    """
    if groups is not None:
        return _whole_groups(labels.cpu(), share, seed, groups.cpu()).to(labels.device)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for number in labels.unique().tolist():
        rows = (labels.cpu() == number).nonzero().flatten()
        chosen = permutation(len(rows), seed, "validation", number)[: min(round(share * len(rows)), len(rows) - 1)]
        mask[rows[chosen]] = True
    return mask.to(labels.device)


def _whole_groups(labels: Tensor, share: float, seed: int, groups: Tensor) -> Tensor:
    names, number = groups.unique(return_inverse=True)
    classes, kind = labels.unique(return_inverse=True)
    there = torch.zeros(len(classes), len(names), dtype=torch.bool)
    there[kind, number] = True
    held = torch.zeros(len(names), dtype=torch.bool)
    for label, own in zip(classes.tolist(), there, strict=True):
        wanted = round(share * int(own.sum())) - int(held[own].sum())
        for group in own.nonzero()[:, 0][permutation(int(own.sum()), seed, "validation", label)].tolist():
            left = (there & ~held).sum(dim=1)
            if wanted > 0 and not held[group] and (left[there[:, group]] > 1).all():
                held[group] = True
                wanted -= 1
    return held[number]


def _logits(features: Tensor, solution: Tensor) -> Tensor:
    return features @ solution[:-1] + solution[-1]


def _loss(features: Tensor, labels: Tensor, solution: Tensor, strength: float) -> Tensor:
    return F.cross_entropy(_logits(features, solution), labels) + 0.5 * strength * solution[:-1].square().sum()


def _solve(
    rows: _Rows, classes: int, strength: float, iterations: int, tolerance: float, start: Tensor | None, together: bool
) -> Tensor:
    """Weights `(dim, classes)` with the bias as a last row."""
    shape = (rows.dim + 1, classes)
    solution = torch.zeros(shape, device=rows.labels.device) if start is None else start.clone()
    solution.requires_grad_()
    solver = torch.optim.LBFGS(
        [solution],
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    count = len(rows.labels)
    shared = together and world_size() > 1 and count >= world_size()
    if shared:
        rows = rows[own_part(count)]

    def closure() -> Tensor:
        solver.zero_grad()
        loss = _backward(rows, count, solution, strength)
        if shared:
            all_reduce_sum(solution.grad)  # pyright: ignore[reportArgumentType]
            all_reduce_sum(loss)
        return loss

    solver.step(closure)
    return solution.detach()


def _backward(rows: _Rows, count: int, solution: Tensor, strength: float) -> Tensor:
    """These rows' share of the mean loss of `count` rows; its gradient is added to the solution's."""
    total = torch.zeros((), device=solution.device)
    for features, labels in rows.parts(solution.shape[1]):
        loss = len(labels) / count * _loss(features, labels, solution, strength)
        loss.backward()
        total += loss.detach()
    return total


def _steepest(rows: _Rows, solution: Tensor, strength: float) -> float:
    """Largest absolute entry of the gradient at the solution."""
    solution = solution.clone().requires_grad_()
    _backward(rows, len(rows.labels), solution, strength)
    assert solution.grad is not None
    return float(solution.grad.abs().max())
