"""Solids, and where rays meet them: box, sphere, cylinder, cone and torus in closed form, none of them approximated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

NEAR = 1e-6
"""A ray that starts on a surface doesn't meet it there."""
RING = 0.38
"""Radius of a torus's tube, as a share of that of its ring."""


@dataclass(frozen=True)
class Solid:
    """A solid of one of the `KINDS`, stretched by `size`, then turned, then moved."""

    kind: str
    size: np.ndarray
    """Half of its width, height and depth before it is turned, `(3,)`; all alike for a torus, whose ring has them."""
    turn: np.ndarray
    """Rotation `(3, 3)`: its own axes, as columns."""
    centre: np.ndarray

    def local(self, points: np.ndarray) -> np.ndarray:
        """Points of the room `(…, 3)` where the solid is neither moved nor turned; not shrunk."""
        return (points - self.centre) @ self.turn

    def meets(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """How far along each ray, in lengths of its direction, it is met first, `(n,)`; inf: nowhere. Rays `(n, 3)`."""
        return KINDS[self.kind](self.local(origins) / self.size, directions @ self.turn / self.size)

    def normals(self, points: np.ndarray) -> np.ndarray:
        """Outward, of length 1, at points `(n, 3)` of its surface."""
        own = NORMALS[self.kind](self.local(points) / self.size) / self.size @ self.turn.T
        return own / np.linalg.norm(own, axis=1, keepdims=True)

    def below(self) -> float:
        """How far it reaches below its centre, along the second axis of the room."""
        across, down, along = np.abs(self.turn[1]) * self.size
        side = float(np.hypot(across, along))
        if self.kind == "box":
            return float(across + down + along)
        if self.kind == "cylinder":
            return float(down + side)
        if self.kind == "cone":  # its tip, or the rim of its base
            tip = -self.turn[1, 1] * self.size[1]
            return float(max(tip, -tip + side))
        if self.kind == "torus":
            return float(side + RING * self.size[0])
        return float(np.sqrt(across**2 + down**2 + along**2))

    @property
    def reach(self) -> float:
        """No point of it is farther from its centre."""
        box = {"box": np.linalg.norm(self.size), "torus": (1 + RING) * self.size[0]}
        return float(box.get(self.kind, np.hypot(max(self.size[0], self.size[2]), self.size[1])))


def _first(*ways: np.ndarray) -> np.ndarray:
    """The nearest of those in front, `(n,)`."""
    every = np.stack(ways)
    return np.where(every > NEAR, every, np.inf).min(axis=0)


def _roots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a t² + 2 b t + c; NaN where there are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(b * b - a * c)
        return (-b - root) / a, (-b + root) / a


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1)


def _where(hit: np.ndarray, origins: np.ndarray, directions: np.ndarray, inside: Callable) -> np.ndarray:
    """The ways at which a point is `inside`, NaN elsewhere."""
    with np.errstate(invalid="ignore", over="ignore"):
        points = origins + np.where(np.isfinite(hit), hit, 0.0)[:, None] * directions
        return np.where(np.isfinite(hit) & inside(points), hit, np.nan)


def _box(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack([(side - origins) / directions for side in (-1.0, 1.0)])
    enter, leave = np.fmin(*ends).max(axis=1), np.fmax(*ends).min(axis=1)
    return np.where(enter <= leave, _first(enter, leave), np.inf)


def _sphere(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return _first(*_roots(_dot(directions, directions), _dot(origins, directions), _dot(origins, origins) - 1))


def _disc(origins: np.ndarray, directions: np.ndarray, height: float) -> np.ndarray:
    """The disc of radius 1 at that height."""
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = (height - origins[:, 1]) / directions[:, 1]
    return _where(hit, origins, directions, lambda p: p[:, 0] ** 2 + p[:, 2] ** 2 <= 1)


def _cylinder(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    o, d = origins[:, ::2], directions[:, ::2]
    sides = _roots(_dot(d, d), _dot(o, d), _dot(o, o) - 1)
    sides = (_where(hit, origins, directions, lambda p: np.abs(p[:, 1]) <= 1) for hit in sides)
    return _first(*sides, *(_disc(origins, directions, height) for height in (-1.0, 1.0)))


def _cone(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Base of radius 1 at −1, tip at 1."""
    o, d = origins[:, ::2], directions[:, ::2]
    left, slope = (1 - origins[:, 1]) / 2, -directions[:, 1] / 2
    sides = _roots(_dot(d, d) - slope**2, _dot(o, d) - left * slope, _dot(o, o) - left**2)
    sides = (_where(hit, origins, directions, lambda p: np.abs(p[:, 1]) <= 1) for hit in sides)
    return _first(*sides, _disc(origins, directions, -1.0))


def _torus(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """A ring of radius 1 about the second axis: the roots of a quartic, as eigenvalues, then polished."""
    found = np.full(len(origins), np.inf)
    long = np.linalg.norm(directions, axis=1)
    along = directions / long[:, None]
    middle = -_dot(origins, along)  # counted from the point next to the centre: there the numbers are small
    near = origins + middle[:, None] * along
    close = np.flatnonzero(_dot(near, near) < (1 + RING) ** 2)
    if not len(close):
        return found
    o, d = near[close], along[close]
    k = _dot(o, o) + 1 - RING**2
    oo, od, dd = (_dot(a[:, ::2], b[:, ::2]) for a, b in ((o, o), (o, d), (d, d)))
    terms = np.stack([k**2 - 4 * oo, -8 * od, 2 * k - 4 * dd, np.zeros_like(k)])  # and t⁴
    companion = np.zeros((len(close), 4, 4))
    companion[:, 1, 0] = companion[:, 2, 1] = companion[:, 3, 2] = 1
    companion[:, :, 3] = -terms.T
    roots = np.linalg.eigvals(companion)
    real = np.where(np.abs(roots.imag) < 1e-5, roots.real, np.nan)
    c0, c1, c2, _ = terms[..., None]
    for _ in range(3):
        slope = 4 * real**3 + 2 * c2 * real + c1
        with np.errstate(divide="ignore", invalid="ignore"):
            better = real - (real**4 + c2 * real**2 + c1 * real + c0) / slope
        real = np.where(np.isfinite(better) & (np.abs(better - real) < 1e-2), better, real)
    found[close] = _first(*((real + middle[close, None]) / long[close, None]).T)
    return found


def _of_box(points: np.ndarray) -> np.ndarray:
    largest = np.abs(points) == np.abs(points).max(axis=1, keepdims=True)
    return np.sign(points) * largest


def _of_cylinder(points: np.ndarray) -> np.ndarray:
    lid = np.abs(points[:, 1:2]) > 1 - 1e-9
    return np.where(lid, points * (0, 1, 0), points * (1, 0, 1))


def _of_cone(points: np.ndarray) -> np.ndarray:
    side = np.stack([points[:, 0], np.hypot(points[:, 0], points[:, 2]) / 2, points[:, 2]], axis=1)
    return np.where(points[:, 1:2] < -1 + 1e-9, np.array([0.0, -1.0, 0.0]), side)


def _of_torus(points: np.ndarray) -> np.ndarray:
    away = np.hypot(points[:, 0], points[:, 2])[:, None]
    return points - points * (1, 0, 1) / away


KINDS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "box": _box,
    "cone": _cone,
    "cylinder": _cylinder,
    "sphere": _sphere,
    "torus": _torus,
}
"""How far along rays `(n, 3)` a solid that reaches from −1 to 1 is met."""
NORMALS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "box": _of_box,
    "cone": _of_cone,
    "cylinder": _of_cylinder,
    "sphere": lambda points: points,
    "torus": _of_torus,
}
