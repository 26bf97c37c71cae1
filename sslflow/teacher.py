"""A teacher: a copy of the student that follows it slowly."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Teacher(nn.Module):
    """A frozen copy of `student`, whose weights move as `t ← m·t + (1 − m)·s` (Mean Teacher, arXiv:1703.01780).

    BatchNorm normalises over the batch, as in BYOL; with `batch_statistics=False` by the student's running means and
    variances instead, so that an image's output depends on no other image of its batch (what MoCo needs: EMAN,
    arXiv:2101.08482).
    """

    def __init__(self, student: nn.Module, *, batch_statistics: bool = True) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        self.batch_statistics = batch_statistics
        self.train(self.training)

    def train(self, mode: bool = True) -> Teacher:
        """Training mode as for any module, but for the network where statistics of the batch must not count."""
        super().train(mode)
        self.network.train(mode and self.batch_statistics)
        return self

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Tensor:
        """The network's output, without gradients."""
        return self.network(*inputs)

    @torch.no_grad()
    def follow(self, student: nn.Module, momentum: float) -> None:
        """Move towards the student; buffers (BatchNorm's statistics and counters) are copied."""
        for mine, its in zip(self.network.parameters(), student.parameters(), strict=True):
            mine.lerp_(its.detach(), 1 - momentum)
        for mine, its in zip(self.network.buffers(), student.buffers(), strict=True):
            mine.copy_(its)
