"""A GPU that only says what lies where: shapes and devices without numbers. Whatever mixes devices fails, and whatever
would wait for the GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

GPU = torch.device("cuda", 0)


@contextlib.contextmanager
def fake_gpu(free: int) -> Iterator[None]:
    """With so many bytes of memory that are free."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode():
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
        patch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
        patch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
        patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
        yield
