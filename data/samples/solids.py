"""Render solids to volumes: eight in each, with the kind of solid of every voxel.

    python data/samples/solids.py

writes data/samples/solids/volumes.parquet. Each volume is a pure function of its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

HERE = Path(__file__).parent
FILE = HERE / "solids" / "volumes.parquet"
SIDE = 48
"""Voxels of a volume along each axis: the first runs from left to right, the last from below to above."""
CELLS = 2
"""Solids along each axis."""
COUNTS = {"train": 144, "test": 52}
SIZES = (6.5, 10.5)
"""Voxels: half of a solid's longest extent."""
MOVE = 3.0
"""Voxels that a solid lies off its cell's centre, at most, along each axis."""
TILT = 30.0
"""Degrees that a solid leans at most; about the upright axis it is turned by any angle."""
FRAGMENTS = (6, 14)
"""Bits of anything, of no class, in a volume."""
LEVELS = 13
"""Values that a voxel may have: a file of noise can't be made smaller otherwise."""
NOISE = (0.2, 0.5)
"""Deviation of the noise, in levels."""

Distance = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""How far voxels are outside of a solid of extent 1, below 0 inside, of their places in its own frame."""


def ball(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.sqrt(x**2 + y**2 + z**2) - 0.85


def box(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.maximum(np.maximum(abs(x) - 0.7, abs(y) - 0.6), abs(z) - 0.7)


def cylinder(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 0.55, abs(z) - 0.9)


def cone(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 0.48 * (0.95 - z), -0.85 - z)


def ring(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.hypot(np.hypot(x, y) - 0.68, z) - 0.3


def bowl(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.maximum(abs(np.sqrt(x**2 + y**2 + (z - 0.3) ** 2) - 0.8) - 0.17, z - 0.3)


KINDS: dict[str, Distance] = {one.__name__: one for one in (ball, box, cylinder, cone, ring, bowl)}
CLASSES = ("background", *KINDS)


def volume(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and classes of the voxels of a volume, uint8 `(SIDE, SIDE, SIDE)` each."""
    numbers = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    places = np.stack(np.meshgrid(*(np.arange(SIDE) + 0.5,) * 3, indexing="ij"))
    level = numbers.uniform(0.35, 0.65)
    values = level + numbers.uniform(0.02, 0.1) * clouds(numbers, 5.0)
    classes = np.zeros((SIDE,) * 3, np.uint8)
    for _ in range(numbers.integers(*FRAGMENTS)):
        _lay(values, _fragment(numbers, places), _value(numbers, level, values))
    cells = numbers.permutation(CELLS**3)
    for cell in cells:
        centre = (np.array(np.unravel_index(cell, (CELLS,) * 3)) + 0.5) * SIDE / CELLS
        centre = centre + numbers.uniform(-MOVE, MOVE, 3)
        number = int(numbers.integers(len(KINDS)))
        size = numbers.uniform(*SIZES)
        lean, axis = np.radians(numbers.uniform(0, TILT)), numbers.uniform(0, 2 * np.pi)
        leaning = Rotation.from_rotvec(lean * np.array([np.cos(axis), np.sin(axis), 0]))
        turn = leaning * Rotation.from_euler("z", numbers.uniform(0, 2 * np.pi))
        own = np.tensordot(turn.inv().as_matrix(), places - centre[:, None, None, None], 1) / size
        outside = size * list(KINDS.values())[number](*own)
        _lay(values, outside, _value(numbers, level, values))
        classes[outside < 0] = number + 1
    values = gaussian_filter(values, 0.4) * (LEVELS - 1) + numbers.uniform(*NOISE) * numbers.standard_normal(
        values.shape
    )
    steps = 255 // (LEVELS - 1)
    return (values.round().clip(0, LEVELS - 1) * steps).astype(np.uint8), classes


def clouds(numbers: np.random.Generator, size: float) -> np.ndarray:
    """Smooth noise of deviation 1, whose blobs are about so many voxels large."""
    found = gaussian_filter(numbers.standard_normal((SIDE,) * 3), size / 2, mode="wrap")
    return found / found.std()


def _value(numbers: np.random.Generator, level: float, values: np.ndarray) -> np.ndarray:
    """Values of a thing's voxels: lighter or darker than what it lies in, plain, cloudy or striped."""
    own = level + numbers.choice([-1, 1]) * numbers.uniform(0.15, 0.33)
    kind = numbers.integers(3)
    if kind == 0:
        return np.full_like(values, own)
    if kind == 1:
        return own + numbers.uniform(0.03, 0.08) * clouds(numbers, 3.0)
    way = numbers.standard_normal(3)
    along = np.tensordot(way / np.linalg.norm(way), np.indices(values.shape), 1)
    return own + numbers.uniform(0.03, 0.08) * np.sin(2 * np.pi * along / numbers.uniform(3, 7))


def _fragment(numbers: np.random.Generator, places: np.ndarray) -> np.ndarray:
    """How far voxels are outside of a small ellipsoid anywhere."""
    turn, sizes = Rotation.random(rng=numbers).as_matrix(), numbers.uniform(1.0, 3.2, 3)
    centre = numbers.uniform(0, SIDE, 3)
    own = np.tensordot(turn, places - centre[:, None, None, None], 1) / sizes[:, None, None, None]
    return sizes.min() * (np.sqrt((own**2).sum(axis=0)) - 1)


def _lay(values: np.ndarray, outside: np.ndarray, own: np.ndarray) -> None:
    """A thing over what is there already; at its surface voxels hold a part of both."""
    share = np.clip(0.5 - outside, 0, 1)
    values += share * (own - values)


def main() -> None:
    rows = []
    for split, count in COUNTS.items():
        for number in range(count):
            name = f"{split}-{number:03d}"
            values, classes = volume(name)
            rows.append({"item": name, "split": split, "volume": values.tobytes(), "classes": classes.tobytes()})
    schema = pa.schema(
        [("item", pa.string()), ("split", pa.string()), ("volume", pa.binary()), ("classes", pa.binary())],
        metadata={"classes": json.dumps(CLASSES), "shape": json.dumps([SIDE] * 3)},
    )
    FILE.parent.mkdir(exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=schema), FILE, compression="zstd", compression_level=19, use_dictionary=False
    )
    print(f"{FILE}: {len(rows)} volumes, {FILE.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
