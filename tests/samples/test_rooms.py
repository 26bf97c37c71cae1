"""Rooms: where rays meet solids, by equations that they are not worked out with, and the shipped depth maps."""

from __future__ import annotations

import io
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "data/samples"))
import bodies  # pyright: ignore[reportMissingImports]
import rooms  # pyright: ignore[reportMissingImports]
from bodies import RING, Solid  # pyright: ignore[reportMissingImports]

BEYOND = {
    "box": lambda p: np.abs(p).max(axis=1) - 1,
    "sphere": lambda p: np.linalg.norm(p, axis=1) - 1,
    "cylinder": lambda p: np.maximum(np.hypot(p[:, 0], p[:, 2]), np.abs(p[:, 1])) - 1,
    "cone": lambda p: np.maximum(np.hypot(p[:, 0], p[:, 2]) - (1 - p[:, 1]) / 2, -1 - p[:, 1]),
    "torus": lambda p: np.hypot(np.hypot(p[:, 0], p[:, 2]) - 1, p[:, 1]) - RING,
}
"""Above 0 outside of a solid that reaches from −1 to 1, below 0 in it."""


def upright(kind: str, *centre: float, size: float = 0.5) -> Solid:
    return Solid(kind, np.full(3, size), np.eye(3), np.array(centre))


@pytest.mark.parametrize("kind", bodies.KINDS)
def test_a_ray_is_outside_until_it_meets_the_surface(kind: str) -> None:
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(400, 3))
    origins *= 3 / np.linalg.norm(origins, axis=1, keepdims=True)
    directions = rng.uniform(-1.3, 1.3, (400, 3)) - origins
    way = bodies.KINDS[kind](origins, directions)
    met, missed = np.isfinite(way), ~np.isfinite(way)
    assert 60 < met.sum() < 390
    beyond = BEYOND[kind]
    at = origins + np.where(met, way, 0)[:, None] * directions
    assert np.abs(beyond(at[met])).max() < 1e-7
    for share in np.linspace(0, 1, 200, endpoint=False):
        assert (beyond(origins[met] + share * (way[met] - 1e-6)[:, None] * directions[met]) > -1e-9).all()
        assert (beyond(origins[missed] + 3 * share * directions[missed]) > 0).all()
    outward = bodies.NORMALS[kind](at[met])
    assert (beyond(at[met] + 1e-4 * outward / np.linalg.norm(outward, axis=1, keepdims=True)) > 0).all()


@pytest.mark.parametrize("kind", bodies.KINDS)
def test_a_turned_solid_reaches_as_far_below_its_centre_as_is_said(kind: str) -> None:
    rng = np.random.default_rng(1)
    size = np.array([0.4, 0.7, 0.4]) if kind in ("cone", "cylinder") else np.full(3, 0.5)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    solid = Solid(kind, size, turn, np.zeros(3))
    low = solid.below()
    # Rays from below: they meet it above its lowest point, and one of them hardly above.
    across = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, 241)] * 2), axis=-1).reshape(-1, 2)
    origins = np.stack([across[:, 0], np.full(len(across), -3.0), across[:, 1]], axis=1)
    way = solid.meets(origins, np.tile((0.0, 1.0, 0.0), (len(origins), 1)))
    assert 3 - low - 1e-9 <= way.min() < 3 - low + 0.02


def test_depth_is_measured_along_the_axis_of_the_camera() -> None:
    """A wall straight ahead is as far away in all of its pixels, and the floor nearer, the lower."""
    room = rooms.Room((upright("sphere", 0.0, 1.0, 4.0),), height=1.0, pitch=0.0, wall=(8.0, 0.0))
    depth, what = (one.reshape(8, 8) for one in room.meets(*room.rays(8)))
    assert np.allclose(depth[what == -1], 8.0)
    assert np.allclose(depth[-1], 1.0 / (7 / 16))
    middle, _ = room.meets(*room.rays(1))
    assert middle == pytest.approx([3.5])
    known = rooms.Room((upright("box", 0.0, 1.0, 4.0),), 1.0, 0.0, (8.0, 0.0))
    assert known.meets(*known.rays(1))[0] == pytest.approx([3.5])
    ring = rooms.Room((upright("torus", 0.0, 1.0, 4.0),), 1.0, 0.0, (8.0, 0.0))
    assert ring.meets(*ring.rays(1))[0] == pytest.approx([4 - 0.5 * (1 + RING)])


def test_shipped_rooms_are_those_that_the_script_draws() -> None:
    table = pq.read_table(rooms.FILE)
    assert float(table.schema.metadata[b"depth_scale"]) == rooms.STEP
    assert table.num_rows == sum(rooms.COUNTS.values())
    assert rooms.FILE.stat().st_size < 5e6
    for place in (0, 7, table.num_rows - 1):
        row = {name: table[name][place].as_py() for name in table.column_names}
        image, depth, kind = rooms.draw(row["split"], int(row["item"].rpartition("-")[2]))
        kept = np.asarray(Image.open(io.BytesIO(row["depth"]))).astype(int)
        assert row["label"] == kind
        assert np.abs(kept - depth).max() <= 1
        shown = np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")).astype(float)
        assert np.abs(shown - image).mean() < 12
