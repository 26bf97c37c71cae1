"""What a device holds, and what is brought to it a part at a time."""

from __future__ import annotations

import pytest
import torch

from sslflow.runtime import parts

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_a_gpu_holds_a_share_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert parts.budget(GPU) == 600  # what torch has taken and doesn't use is free
    assert parts.budget(CPU) == 2**28
    table = torch.empty(10, 15)
    assert parts.fits(table, GPU)
    assert not parts.fits(torch.empty(10, 16), GPU)
    assert not parts.fits(table, GPU, torch.float64)
    assert parts.held(torch.empty(10, 16), GPU).device == CPU


@pytest.mark.parametrize("rows", [1, 3, 7, 20])
def test_parts_are_the_whole(rows: int) -> None:
    table = torch.randn(7, 2)
    found = list(parts.parts(table, CPU, rows))
    assert torch.equal(torch.cat(found), table)
    assert [len(part) for part in found[:-1]] == [rows] * (len(found) - 1)
    numbers = torch.tensor([5, 0, 5])
    assert torch.equal(parts.taken(table, numbers, CPU), table[numbers])
    assert [len(part) for part in parts.parts(table[:0], CPU, rows)] == [0]
