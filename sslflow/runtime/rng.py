"""Independent streams of random numbers, by name, from one seed."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *path: str | int) -> int:
    """A seed in [0, 2**63) for the stream named by `path`, such as `("step", 12)`; the same on every machine."""
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, *path: str | int) -> torch.Generator:
    """A CPU generator at the start of the stream named by `path`."""
    return torch.Generator().manual_seed(derive(seed, *path))


def permutation(count: int, seed: int, *path: str | int) -> torch.Tensor:
    """A random order of `range(count)`, int64 `(count,)`."""
    return torch.randperm(count, generator=generator(seed, *path))
