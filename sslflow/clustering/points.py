"""Rows of features as points to cluster, over several processes that hold a part of them each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.runtime.distributed import all_reduce_sum, gather, rank
from sslflow.runtime.parts import fits, held, parts, taken

Metric = Literal["euclidean", "cosine"]

CHUNK = 4096
"""Rows at a time: the table of distances is this many rows high."""


class Points:
    """This process's rows as points to cluster, numbered over all processes."""

    held: Tensor | None = None
    """They themselves, float32 `(rows, dim)`, where `hold` has found room for them."""

    def __init__(
        self, features: Tensor, metric: Metric, centre: Tensor | None = None, device: torch.device | None = None
    ) -> None:
        """Features `(rows, dim)`, on the device that computes (theirs unless given) or on the CPU."""
        self.device = device or features.device
        self.features = held(features, self.device)
        self.metric: Metric = metric
        counts = gather(torch.tensor([len(features)], device=self.device)).tolist()
        self.total, self.offset = sum(counts), sum(counts[: rank()])
        if centre is None:
            if not self.total:
                raise ValueError("no rows to cluster")
            # Around the mean, squared lengths are as small as they get, and so are the errors of their differences.
            nowhere = no_centre(features).to(self.device)
            chunks = parts(self.features, self.device, CHUNK)
            own = sum((chunk.float().sum(dim=0).double() for chunk in chunks), nowhere.double())
            mean = all_reduce_sum(own) / self.total
            if not mean.isfinite().all():
                require_finite(all_reduce_sum(not_finite(self.features).to(self.device)))
            centre = nowhere if metric == "cosine" else mean.float()
        self.centre = centre
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    def hold(self) -> None:
        """Keep the points for the next passes over them, where the device has room for them."""
        if fits(self.features, self.device):
            self.held = prepared(self.features.to(self.device), self.metric, self.centre)

    def chunks(self, rows: int | None = None) -> Iterator[Tensor]:
        """This process's points, so many `rows`, else `CHUNK`, at a time."""
        if self.held is not None:
            yield from self.held.split(rows or CHUNK)
            return
        for chunk in parts(self.features, self.device, rows or CHUNK):
            yield prepared(chunk, self.metric, self.centre)

    @cached_property
    def squared_length(self) -> float:
        """Sum of the squared lengths of all processes' points."""
        own = (torch.linalg.vector_norm(chunk, dim=1).double().square().sum() for chunk in self.chunks())
        return float(all_reduce_sum(torch.stack(list(own)).sum()))

    def some(self, numbers: Tensor) -> Points:
        """Those with the numbers given that this process holds, numbered anew."""
        here = numbers[(numbers >= self.offset) & (numbers < self.offset + len(self.features))]
        own = taken(self.features, here - self.offset, self.device)
        return Points(own, self.metric, self.centre)

    def at(self, numbers: Tensor) -> Tensor:
        """Points by number, `(len(numbers), dim)`, in every process."""
        numbers = numbers.to(self.device)
        here = (numbers >= self.offset) & (numbers < self.offset + len(self.features))
        points = torch.zeros(len(numbers), self.features.shape[1], device=self.device)
        own = taken(self.features, numbers[here] - self.offset, self.device)
        points[here] = prepared(own, self.metric, self.centre)
        return all_reduce_sum(points)

    def squared_distances(self, candidates: Tensor) -> Tensor:
        """Squared distance of this process's points to each candidate, float64 `(rows, candidates)`.

        By products, one for all candidates; in float64, which tells apart what `SAME` does.
        """
        wide = candidates.double()
        lengths = wide.square().sum(dim=1)
        chunks = [own[:, None] - 2 * (points @ wide.T) + lengths for points, own in self._wide()]
        return torch.cat(chunks).clamp_(min=0)

    def _wide(self) -> Iterable[tuple[Tensor, Tensor]]:
        """This process's points in float64, with their squared lengths; kept where the device has room."""
        if self._kept is not None:
            return self._kept
        found = ((chunk, chunk.square().sum(dim=1)) for chunk in (part.double() for part in self.chunks()))
        if not fits(self.features, self.device, torch.float64):
            return found
        self._kept = list(found)
        return self._kept

    def sum(self, per_point: Tensor) -> Tensor:
        """Sum of a column of each process, or of each of several columns, over all processes, float64."""
        return all_reduce_sum(per_point.sum(dim=0, dtype=torch.float64))

    def draw(self, weights: Tensor, numbers: Tensor) -> Tensor:
        """Numbers of the points on which fractions of the total weight, float64 in [0, 1), fall."""
        reached = weights.double().cumsum(dim=0)
        own = reached[-1:] if len(reached) else reached.new_zeros(1)
        # The same borders in every process: no target is in two of them, or in none.
        borders = F.pad(gather(own), (1, 0)).cumsum(dim=0)
        before, target = borders[rank()], numbers.to(weights.device) * borders[-1]
        mine = (target >= before) & (target < borders[rank() + 1])
        found = torch.searchsorted(reached, target[mine] - before, right=True).clamp_(max=max(len(reached) - 1, 0))
        drawn = torch.zeros(len(target), dtype=torch.int64, device=weights.device)
        drawn[mine] = found + self.offset
        return all_reduce_sum(drawn)

    def furthest(self, distances: Tensor) -> Tensor:
        """Number of the point, of all processes', with the largest distance, int64 `(1,)`."""
        own = distances.new_full((1, 2), -1, dtype=torch.float64)
        if len(distances):
            distance, row = distances.max(dim=0)
            own = torch.stack([distance.double(), (row + self.offset).double()])[None]
        every = gather(own)
        return every[every[:, 0].argmax(), 1].long()[None]


def prepared(features: Tensor, metric: Metric, centre: Tensor) -> Tensor:
    """Features as points: of length 1 for the cosine metric, else around the `centre`."""
    return F.normalize(features.float(), dim=1) if metric == "cosine" else features.float() - centre


def no_centre(like: Tensor) -> Tensor:
    """The centre of points that are left where they are."""
    return torch.zeros(like.shape[1], device=like.device)


def not_finite(features: Tensor) -> Tensor:
    """Number of rows that hold something not finite, int64 scalar."""
    chunks = features.split(CHUNK) if len(features) else ()
    if not features.is_cuda and all(bool(torch.stack(chunk.aminmax()).isfinite().all()) for chunk in chunks):
        return torch.zeros((), dtype=torch.int64)  # as nearly always, and found out several times as fast
    return torch.stack([(~chunk.isfinite().all(dim=1)).sum() for chunk in features.split(CHUNK)]).sum()


def require_finite(wrong: Tensor) -> None:
    """Raises `ValueError` where the number of rows that are not finite is above 0."""
    count = int(wrong)
    if count:
        raise ValueError(f"features that are not finite (NaN or infinite) in {count} rows: nothing to cluster by")
