"""Render rooms with solids in them, and how far away everything is.

    python data/samples/rooms.py

writes data/samples/rooms/rooms.parquet. Each room is a pure function of its name.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bodies import KINDS, Solid
from PIL import Image
from textures import surface

FILE = Path(__file__).parent / "rooms" / "rooms.parquet"
SIDE = 64
FINE = 2
"""Rays along each side of a pixel of the image; of depth one ray through its middle."""
COUNTS = {"train": 2700, "test": 600}
STEP = 0.02
"""Metres from one value of a depth map to the next."""
FOCAL = 1.0
"""Of the camera, in widths of the image: it sees 53 degrees."""
MAIN, OTHER = (0.55, 0.85), (0.2, 0.45)
"""Metres: half the size of the largest thing, and of the others."""
LEAST = 24
"""Pixels of each thing, at least; the largest thing has `LARGER` times as many as any other, and `LARGE` at least."""
LARGE, LARGER = 220, 1.5
TILE = 1.6
"""Metres that a texture measures before it comes again, mirrored."""


@dataclass(frozen=True)
class Room:
    """A floor, at a height of 0, a wall behind, and solids on the floor; a camera that looks a little down."""

    things: tuple[Solid, ...]
    """The largest first."""
    height: float
    """Metres, of the camera, which stands at (0, height, 0)."""
    pitch: float
    """Radians by which it looks down."""
    wall: tuple[float, float]
    """How far the wall is away straight ahead, and by how much it is turned, in radians."""

    def rays(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Through the middles of the pixels of an image of `side` x `side`, row by row: `(n, 3)` each. A direction has
        length 1 along the camera's axis, so that ways along a ray are depths."""
        middles = (np.arange(side) + 0.5) / side - 0.5
        down, across = np.meshgrid(middles / FOCAL, middles / FOCAL, indexing="ij")
        sine, cosine = np.sin(self.pitch), np.cos(self.pitch)
        straight = np.ones_like(down)
        found = np.stack([across, -down * cosine - straight * sine, straight * cosine - down * sine], axis=-1)
        directions = found.reshape(-1, 3)
        return np.tile((0.0, self.height, 0.0), (len(directions), 1)), directions

    @property
    def facing(self) -> np.ndarray:
        """The wall's normal, towards the camera, `(3,)`."""
        return np.array([np.sin(self.wall[1]), 0.0, -np.cos(self.wall[1])])

    def meets(self, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far along each ray something is met, and what, `(n,)` each: −2 the floor, −1 the wall, or a thing."""
        with np.errstate(divide="ignore"):
            floor = -origins[:, 1] / directions[:, 1]
            wall = ((np.array([0.0, 0.0, self.wall[0]]) - origins) @ self.facing) / (directions @ self.facing)
        ways = np.stack([floor, wall, *(thing.meets(origins, directions) for thing in self.things)])
        ways = np.where(ways > 1e-6, ways, np.inf)
        return ways.min(axis=0), ways.argmin(axis=0) - 2


def main() -> None:
    rows = []
    for split, count in COUNTS.items():
        for number in range(count):
            image, depth, kind = draw(split, number)
            item = f"{split}-{number:05}"
            rows.append({"item": item, "split": split, "label": kind, "image": webp(image), "depth": png(depth)})
            if number % 200 == 199:
                print(f"{split}: {number + 1} rooms", file=sys.stderr)
    FILE.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), FILE, compression="zstd", compression_level=19)


SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("item", "split", "label")] + [(name, pa.binary()) for name in ("image", "depth")],
    {"depth_scale": str(STEP), "depth_unit": "m"},
)


def draw(split: str, number: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Image, uint8 `(SIDE, SIDE, 3)`, depth in steps, uint16 `(SIDE, SIDE)`, and the kind of the largest thing."""
    rng = np.random.default_rng([*split.encode(), number, 4])
    while not _clear(room := draw_room(rng)):
        pass
    depth, _ = room.meets(*room.rays(SIDE))
    steps = np.round(depth / STEP).astype(np.uint16).reshape(SIDE, SIDE)
    return photograph(room, rng), steps, room.things[0].kind


def draw_room(rng: np.random.Generator) -> Room:
    wall = float(rng.uniform(6.0, 9.0)), float(np.deg2rad(rng.uniform(-30, 30)))
    room = Room((), float(rng.uniform(1.2, 2.2)), float(np.deg2rad(rng.uniform(8, 22))), wall)
    wanted = 1 + int(rng.choice(4, p=(0.2, 0.3, 0.3, 0.2)))
    for _ in range(8 * wanted):
        if len(room.things) == wanted:
            break
        thing = _thing(OTHER if room.things else MAIN, rng)
        apart = [np.hypot(*(thing.centre - one.centre)[::2]) > thing.reach + one.reach for one in room.things]
        before_wall = (thing.centre - (0.0, 0.0, wall[0])) @ room.facing > thing.reach
        if all(apart) and before_wall:
            room = replace(room, things=(*room.things, thing))
    return room


def _thing(sizes: tuple[float, float], rng: np.random.Generator) -> Solid:
    kind = str(rng.choice(list(KINDS)))
    size = rng.uniform(*sizes) * (rng.uniform(0.7, 1.0, 3) if kind in ("box", "cone", "cylinder") else np.ones(3))
    if kind in ("cone", "cylinder"):
        size[2] = size[0]
    turn = _about(1, rng.uniform(0, 2 * np.pi))
    if rng.random() < 0.4:  # it leans, or lies
        turn = turn @ _about(0, rng.uniform(0, np.pi / 2))
    away, aside = rng.uniform(2.8, 5.5), rng.uniform(-0.4, 0.4)
    solid = Solid(kind, size, turn, np.zeros(3))
    return Solid(kind, size, turn, np.array([away * aside, solid.below(), away]))


def _about(axis: int, angle: float) -> np.ndarray:
    first, second = ((1, 2), (2, 0), (0, 1))[axis]
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[second, first], turn[first, second] = np.sin(angle), -np.sin(angle)
    return turn


def _clear(room: Room) -> bool:
    """Whether each thing can be seen, and the first one is the largest to the eye, too."""
    if not room.things:
        return False
    _, what = room.meets(*room.rays(SIDE // 2))
    seen = 4 * np.bincount(what[what >= 0], minlength=len(room.things))
    return bool(seen.min() >= LEAST and seen[0] >= LARGE and seen[0] >= LARGER * max(seen[1:], default=0))


def photograph(room: Room, rng: np.random.Generator) -> np.ndarray:
    """The room under one light, with shadows; every surface has a texture of its own."""
    origins, directions = room.rays(FINE * SIDE)
    way, what = room.meets(origins, directions)
    points = origins + way[:, None] * directions
    colours, normals = np.zeros_like(points), np.zeros_like(points)
    for number in range(-2, len(room.things)):
        here = np.flatnonzero(what == number)
        texture = surface(SIDE, rng)
        if number >= 0:
            thing = room.things[number]
            own, normals[here] = thing.local(points[here]), thing.normals(points[here])
            facing = np.abs(normals[here] @ thing.turn)
        else:
            own, normals[here] = points[here], (0.0, 1.0, 0.0) if number == -2 else room.facing
            facing = np.abs(normals[here])
        colours[here] = _looked_up(texture, own, facing.argmax(axis=1))
    sun = rng.uniform((-0.8, 0.5, -1.0), (0.8, 1.2, -0.2))
    sun /= np.linalg.norm(sun)
    lit = np.clip(normals @ sun, 0, 1)
    reached = np.flatnonzero(lit > 0)
    shade = np.stack(
        [one.meets(points[reached] + 1e-4 * normals[reached], np.tile(sun, (len(reached), 1))) for one in room.things]
    )
    lit[reached[np.isfinite(shade).any(axis=0)]] = 0
    ambient = rng.uniform(0.3, 0.5)
    colours *= (ambient + (1.1 - ambient) * lit)[:, None]
    image = colours.reshape(SIDE, FINE, SIDE, FINE, 3).mean(axis=(1, 3))
    image += rng.normal(0, rng.uniform(0, 0.01), image.shape)
    return np.uint8(np.clip(255 * image, 0, 255).round())


def _looked_up(texture: np.ndarray, points: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Colours `(n, 3)` of points, seen along one of their axes each; the texture is laid out again and again, every
    other time mirrored."""
    others = np.array([(2, 1), (0, 2), (0, 1)])[axis]
    flat = np.take_along_axis(points, others, axis=1) / TILE
    places = np.abs((flat + 1) % 2 - 1) * (len(texture) - 1)
    across, down = np.round(places).astype(int).T
    return texture[down, across]


def webp(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "WEBP", quality=60, method=6)
    return content.getvalue()


def png(depth: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(depth).save(content, "PNG", optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    main()
