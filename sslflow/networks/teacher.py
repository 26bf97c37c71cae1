"""Teachers: a copy of the student that follows it slowly, and a network that never changes."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sslflow.runtime.distributed import all_reduce_sum, world_size


class Teacher(nn.Module):
    """A frozen copy of `student`, whose weights move as `t ← m·t + (1 − m)·s` (Mean Teacher, arXiv:1703.01780).

    BatchNorm normalises over the batch, as in BYOL; with `batch_statistics=False` over the batches that the teacher saw
    before, so that an image's output depends on no other image of its batch (what MoCo needs). The student's running
    statistics would not do instead: its weights are other ones, and in a short run too far from the teacher's.
    """

    def __init__(self, student: nn.Module, *, batch_statistics: bool = True) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.batch_statistics = batch_statistics
        if not batch_statistics:
            _wrap_norms(self.network)

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Tensor:
        """The network's output, without gradients."""
        return self.network(*inputs)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Move towards the student; buffers (BatchNorm's statistics and counters) are copied, unless the teacher keeps
        its own."""
        # All at once: on a GPU a few launches instead of one for each tensor.
        mine, its = _pairs(self.network.parameters(), student.parameters())
        if mine:
            torch._foreach_lerp_(mine, its, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
        if self.batch_statistics and any(True for _ in student.buffers()):
            mine, its = _pairs(self.network.buffers(), student.buffers())
            torch._foreach_copy_(mine, its)  # pyright: ignore[reportPrivateImportUsage]


class Frozen(nn.Module):
    """Holds a network that stays as it is, in evaluation mode, and whose weights are known from elsewhere: it goes
    where its holder goes, to a device or another precision, but is among nobody's parameters, nor in a state."""

    network: Any

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Past torch's list of modules.
        self.__dict__["network"] = network.eval().requires_grad_(False)

    def _apply(self, fn: Any, recurse: bool = True) -> Frozen:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)


class EarlierBatches(nn.Module):
    """A BatchNorm that normalises by its running statistics in training, too, and only then moves them by the batch, of
    all processes. The very first batch, which has none before it, is normalised by its own."""

    SHARE = 0.1
    """Of a batch in the running statistics."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm = norm.eval()
        norm.num_batches_tracked.zero_()

    def train(self, mode: bool = True) -> EarlierBatches:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return self.norm(inputs)
        mean, variance = _moments(inputs)
        first = (self.norm.num_batches_tracked == 0).to(mean.dtype)
        self._move(mean, variance, first)
        normalised = self.norm(inputs)
        self._move(mean, variance, torch.full_like(first, self.SHARE))
        self.norm.num_batches_tracked += 1
        return normalised

    def _move(self, mean: Tensor, variance: Tensor, share: Tensor) -> None:
        self.norm.running_mean.lerp_(mean, share)
        self.norm.running_var.lerp_(variance, share)


def _pairs(mine: Iterable[Tensor], its: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of both. Raises `ValueError` where one has more of them."""
    pairs = list(zip(mine, its, strict=True))
    return [one for one, _ in pairs], [other for _, other in pairs]


def _wrap_norms(network: nn.Module) -> None:
    for name, child in network.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(network, name, EarlierBatches(child))
        else:
            _wrap_norms(child)


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of `(n, c, …)`, over all processes."""
    dims = [dim for dim in range(inputs.ndim) if dim != 1]
    inputs = inputs.float() if inputs.dtype in (torch.bfloat16, torch.float16) else inputs

    def mean_over_all(rows: Tensor) -> Tensor:
        return all_reduce_sum(rows.mean(dims, keepdim=True)) / world_size()

    mean = mean_over_all(inputs)
    return mean.flatten(), mean_over_all((inputs - mean).square()).flatten()
