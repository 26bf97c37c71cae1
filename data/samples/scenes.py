"""Put scenes together from the shipped emoji: several things on a textured surface, with mask and boxes.

    python data/samples/scenes.py

writes data/samples/scenes/scenes.parquet. Each scene is a pure function of its name and the shipped emoji.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter
from textures import surface

HERE = Path(__file__).parent
FILE = HERE / "scenes" / "scenes.parquet"
VENDORS = ("noto", "openmoji", "twemoji")
SIDE = 64
FINE = 2
"""Pixels of the sheet on which a scene is drawn for each pixel of the scene; reduced at the end."""
COUNTS = {"pool": 4500, "train": 1000, "test": 500}
EMPTY = 0.03
"""Share of the scenes in which there is nothing."""
NUMBERS = (0.2, 0.25, 0.25, 0.17, 0.13)
"""How often there are to be one, two, three, four, five things."""
SIZES = (12.0, 44.0)
"""Pixels of a thing's longer side."""
VISIBLE = 0.4
"""Share of a thing that others and the edge leave to be seen, at least."""
SMALLEST = 24
"""Visible pixels of a thing, at least."""
CLASSES = {
    "animal": ("animal-amphibian", "animal-bird", "animal-bug", "animal-mammal", "animal-marine", "animal-reptile"),
    "building": ("place-building", "place-religious"),
    "face": (
        "face-affection",
        "face-concerned",
        "face-glasses",
        "face-hand",
        "face-hat",
        "face-neutral-skeptical",
        "face-sleepy",
        "face-smiling",
        "face-tongue",
        "face-unwell",
    ),
    "food": ("food-asian", "food-fruit", "food-prepared", "food-sweet", "food-vegetable"),
    "hand": (
        "hand-fingers-closed",
        "hand-fingers-open",
        "hand-fingers-partial",
        "hand-prop",
        "hand-single-finger",
        "hands",
    ),
    "person": ("person", "person-gesture", "person-role"),
    "plant": ("plant-flower", "plant-other"),
    "vehicle": ("transport-air", "transport-ground", "transport-water"),
}
"""Classes of things, and the sub-categories of emoji that they are made of."""
LEFT_OUT = {
    "animal": ("CORAL", "FEATHER", "MICROBE", "PAW PRINTS", "PIG NOSE", "SPIDER WEB", "SPIRAL SHELL", "WING"),
    "building": ("BRICK", "ROCK", "STATUE OF LIBERTY", "WEDDING", "WOOD"),
    "plant": ("EMPTY NEST", "NEST WITH EGGS", "ROSETTE"),
    "vehicle": (
        "ANCHOR",
        "BUS STOP",
        "CONSTRUCTION SIGN",
        "FUEL PUMP",
        "HORIZONTAL TRAFFIC LIGHT",
        "MOTORWAY",
        "OCTAGONAL SIGN",
        "OIL DRUM",
        "PARACHUTE",
        "POLICE CARS REVOLVING LIGHT",
        "RAILWAY TRACK",
        "RING BUOY",
        "ROLLER SKATE",
        "SATELLITE",
        "SEAT",
        "SKATEBOARD",
        "STATION",
        "VERTICAL TRAFFIC LIGHT",
        "WHEEL",
    ),
}
"""Of these sub-categories, what is not of the class that it would be in."""
COLOURS = (0x000000, 0xE69F00, 0x999999, 0xF0E442, 0xD55E00, 0xCC79A7, 0x0072B2, 0x009E73, 0x56B4E9)
"""In the palette of the masks: background, then the classes."""


@dataclass(frozen=True)
class Drawing:
    vendor: str
    code_point: str
    image: Image.Image
    """RGBA with the alpha premultiplied."""


@dataclass
class Scene:
    image: np.ndarray
    """uint8 `(SIDE, SIDE, 3)`."""
    mask: np.ndarray
    """uint8 `(SIDE, SIDE)`: 0 is background, then the classes."""
    boxes: list[tuple[int, int, int, int]]
    """Left, top, right, bottom of what is visible; right and bottom exclusive."""
    labels: list[str]
    shown: list[str]
    """Vendor and code point of each thing."""


Drawings = dict[str, dict[str, list[Drawing]]]
"""By class and code point those of all vendors, of one split."""


def main() -> None:
    drawings = {split: read_drawings(split) for split in ("train", "test")}
    rows = []
    for split, count in COUNTS.items():
        for i in range(count):
            scene = draw_scene(drawings["test" if split == "test" else "train"], split, i)
            known = split != "pool"
            rows.append(
                {
                    "item": f"{split}-{i:05}",
                    "split": split,
                    "image": webp(scene.image),
                    "mask": png(scene.mask) if known else None,
                    "boxes": [edge for box in scene.boxes for edge in box] if known else None,
                    "labels": scene.labels if known else None,
                    "shown": scene.shown,
                }
            )
        print(f"{split}: {count} scenes")
    classes = json.dumps(["background", *CLASSES])
    FILE.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA.with_metadata({"classes": classes})), FILE, compression="zstd")


SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("split", pa.string()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("boxes", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.string())),
        ("shown", pa.list_(pa.string())),
    ]
)


def read_drawings(split: str) -> Drawings:
    """The emoji of one split."""
    kinds = {subcategory: name for name, subcategories in CLASSES.items() for subcategory in subcategories}
    found: Drawings = {name: defaultdict(list) for name in CLASSES}
    for vendor in VENDORS:
        for row in pq.read_table(HERE / "emoji" / f"{vendor}.parquet", filters=[("split", "==", split)]).to_pylist():
            kind = kinds.get(row["subcategory"])
            if kind is not None and row["name"] not in LEFT_OUT.get(kind, ()):
                image = Image.open(io.BytesIO(row["image"])).convert("RGBA").convert("RGBa")
                found[kind][row["code_point"]].append(Drawing(vendor, row["code_point"], image))
    return found


def draw_scene(drawings: Drawings, split: str, number: int) -> Scene:
    rng = np.random.default_rng([*split.encode(), number])
    sheet = surface(FINE * SIDE, rng)
    owner = np.full((FINE * SIDE, FINE * SIDE), -1)
    sizes: list[float] = []
    kinds: list[str] = []
    shown: list[str] = []
    wanted = 0 if rng.random() < EMPTY else 1 + int(rng.choice(len(NUMBERS), p=NUMBERS))
    for _ in range(12 * wanted):
        if len(kinds) == wanted:
            break
        kind = str(rng.choice(list(drawings)))
        of_kind = drawings[kind]
        vendors = of_kind[str(rng.choice(list(of_kind)))]
        drawing = vendors[rng.integers(len(vendors))]
        thing = _varied(drawing.image, rng)
        high, wide = thing.shape[:2]
        room = np.array([FINE * SIDE - wide, FINE * SIDE - high])
        slack = 0.2 * np.array([wide, high])
        left, top = np.round((room + 2 * slack) * rng.beta(0.7, 0.7, 2) - slack).astype(int)
        covered = owner.copy()
        here, part = _overlap(left, top, thing)
        covered[here][part[..., 3] > 0.5] = len(kinds)
        size = (thing[..., 3] > 0.5).sum() / FINE**2
        if not _all_visible(covered, [*sizes, size]):
            continue
        sheet[here] = sheet[here] * (1 - part[..., 3:]) + part[..., :3]
        owner = covered
        sizes.append(size)
        kinds.append(kind)
        shown.append(f"{drawing.vendor}/{drawing.code_point}")
    return _finished(sheet, owner, kinds, shown, rng)


def _varied(drawing: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """A thing of another size, turned, perhaps mirrored, lit otherwise: premultiplied floats `(h, w, 4)` in [0, 1]."""
    if rng.random() < 0.5:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    drawing = drawing.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC, expand=True)
    drawing = drawing.crop(drawing.getchannel("a").getbbox())
    longer = FINE * SIZES[0] * (SIZES[1] / SIZES[0]) ** rng.random()
    scale = longer / max(drawing.size)
    wide, high = (max(round(scale * length), 1) for length in drawing.size)
    found = np.asarray(drawing.resize((wide, high), Image.Resampling.BICUBIC), np.float32) / 255
    light = np.append(rng.uniform(0.75, 1.1) * rng.uniform(0.9, 1.05, 3), 1)
    return np.clip(np.minimum(found * light, found[..., 3:]), 0, 1)


def _overlap(left: int, top: int, thing: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """Rows and columns of the sheet that a thing lies on, and the part of it that is there."""
    high, wide = thing.shape[:2]
    rows, columns = slice(max(top, 0), min(top + high, FINE * SIDE)), slice(max(left, 0), min(left + wide, FINE * SIDE))
    part = thing[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return (rows, columns), part


def _all_visible(owner: np.ndarray, sizes: list[float]) -> bool:
    small = _reduced(owner, len(sizes))
    seen = np.bincount(small[small >= 0], minlength=len(sizes))
    return bool((seen >= np.maximum(VISIBLE * np.array(sizes), SMALLEST)).all())


def _finished(
    sheet: np.ndarray, owner: np.ndarray, kinds: list[str], shown: list[str], rng: np.random.Generator
) -> Scene:
    """The scene in its own size, out of focus and noisy as a camera makes it."""
    blurred = Image.fromarray(np.uint8(255 * sheet.clip(0, 1))).filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2)))
    image = np.asarray(blurred.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    image = np.clip(image + rng.normal(0, rng.uniform(1, 5), image.shape), 0, 255).round().astype(np.uint8)
    small = _reduced(owner, len(kinds))
    numbers = np.array([0, *(1 + list(CLASSES).index(kind) for kind in kinds)], np.uint8)
    boxes = []
    for i in range(len(kinds)):
        rows, columns = np.nonzero(small == i)
        boxes.append((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))
    return Scene(image, numbers[small + 1], boxes, kinds, shown)


def _reduced(owner: np.ndarray, count: int) -> np.ndarray:
    """What has most of each pixel of the scene: −1, the background, or one of `count` things."""
    fine = owner.reshape(SIDE, FINE, SIDE, FINE)
    return np.stack([(fine == i).sum((1, 3)) for i in range(-1, count)]).argmax(0) - 1


def webp(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "WEBP", quality=90, method=6)
    return content.getvalue()


def png(mask: np.ndarray) -> bytes:
    picture = Image.fromarray(mask).convert("P")
    picture.putpalette([colour >> shift & 255 for colour in COLOURS for shift in (16, 8, 0)])
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    main()
