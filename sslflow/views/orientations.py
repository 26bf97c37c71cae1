"""The ways in which a cube of voxels can be turned: exactly, voxels are moved and never interpolated."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

Orientation = tuple[tuple[int, int, int], tuple[int, ...]]
"""The old axis that each of the three new ones was, and those of the new axes that run backwards."""


def _quarters(axis: int, turns: int) -> Orientation:
    a, b = (other for other in range(3) if other != axis)
    order = [0, 1, 2]
    if turns % 2:
        order[a], order[b] = b, a
    back = {0: (), 1: (a,), 2: (a, b), 3: (b,)}[turns]
    return (order[0], order[1], order[2]), back


def _proper() -> list[Orientation]:
    every = []
    for order in itertools.permutations(range(3)):
        odd = sum(order[i] > order[j] for i in range(3) for j in range(i + 1, 3)) % 2
        for mirrored in range(4):
            back = tuple(axis for axis in itertools.compress(range(3), _bits(mirrored, odd)))
            every.append((order, back))
    return every


def _bits(number: int, odd: int) -> tuple[int, int, int]:
    """Two bits of a number, and a third so that as many as are set are even, or `odd`."""
    first, second = number & 1, number >> 1
    return first, second, (first + second + odd) % 2


_TURNS = [((0, 1, 2), ()), *(_quarters(axis, turns) for axis in range(3) for turns in (1, 2, 3))]
ORIENTATIONS: tuple[Orientation, ...] = (*_TURNS, *(one for one in _proper() if one not in _TURNS))
"""The 24 rotations of a cube: as it is, by one, two and three quarter turns about each of the three axes (the first 10
in all), and the other 14. None is a mirror image."""


def turned(volumes: Tensor, orientation: int) -> Tensor:
    """Cubes `(…, s, s, s)`, turned by that of the `ORIENTATIONS`: a view of them, or a copy."""
    order, back = ORIENTATIONS[orientation]
    first = volumes.ndim - 3
    found = volumes.permute(*range(first), *(first + axis for axis in order))
    return found.flip([first + axis for axis in back]) if back else found


def turned_by(volumes: Tensor, orientations: Tensor) -> Tensor:
    """Cubes `(n, …, s, s, s)`, each turned by its own of the `orientations`, int64 `(n,)`."""
    found = torch.empty_like(volumes)
    for number in orientations.unique().tolist():
        here = orientations == number
        found[here] = turned(volumes[here], number)
    return found


def turned_back(volumes: Tensor, orientations: Tensor) -> Tensor:
    """The cubes that `turned_by` turned."""
    inverse = torch.tensor(INVERSES, device=orientations.device)
    return turned_by(volumes, inverse[orientations])


def _inverse(number: int) -> int:
    cube = torch.arange(8).view(2, 2, 2)
    there = turned(cube, number)
    return next(back for back in range(len(ORIENTATIONS)) if torch.equal(turned(there, back), cube))


INVERSES: tuple[int, ...] = tuple(_inverse(number) for number in range(len(ORIENTATIONS)))
"""For each of the `ORIENTATIONS` the one that undoes it."""
