"""Build the sample images that ship with the project from the public packages that hold them.

    python data/samples/build.py FOLDER

FOLDER holds four packages, each unpacked in a folder of its own (about 170 MB to download):

    apt-get download dataset-fashion-mnist          # on Debian or a relative of it
    npm pack emoji-datasource-google@16.0.0
    npm pack emoji-datasource-twitter@16.0.0
    npm pack openmoji@17.0.0

    dpkg -x dataset-fashion-mnist_*.deb FOLDER/dataset-fashion-mnist
    for name in emoji-datasource-google-16.0.0 emoji-datasource-twitter-16.0.0 openmoji-17.0.0; do
        mkdir -p FOLDER/${name%-*} && tar xzf $name.tgz -C FOLDER/${name%-*}
    done

It needs `resvg-py` (0.5.0 was used) beside the project's own requirements, to draw OpenMoji's SVG files. The licence
texts and SOURCE.md beside the images are kept by hand. The choice of images is a pure function of the packages, so a
second run writes the same images.
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
import resvg_py
from PIL import Image

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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the packages were unpacked (see the top of this file)")
    folder = parser.parse_args().folder
    build_fashion(folder / "dataset-fashion-mnist/usr/share/datasets/fashion-mnist", HERE / "fashion")
    build_emoji(folder, HERE / "emoji")


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
        keys = {(vendor, picture.tobytes()) for vendor, picture in found.items()}
        if keys & seen:  # flags of dependencies repeat another's: no picture may fall into both train and test
            continue
        seen |= keys
        kept.append(fact)
        for vendor, picture in found.items():
            pictures[vendor].append(webp(picture))
    splits = split_by_category(kept)
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
    png = bytes(resvg_py.svg_to_bytes(svg_path=str(drawing), width=4 * PIXELS, height=4 * PIXELS))
    large = np.asarray(Image.open(io.BytesIO(png)).convert("RGBa"), np.float32)
    small = large.reshape(PIXELS, 4, PIXELS, 4, 4).mean((1, 3)).round().astype(np.uint8)
    return Image.frombytes("RGBa", (PIXELS, PIXELS), small.tobytes()).convert("RGBA")


def webp(picture: Image.Image) -> bytes:
    if picture.size != (PIXELS, PIXELS):
        raise ValueError(f"expected {PIXELS} pixels a side, found {picture.size}")
    target = io.BytesIO()
    picture.save(target, "WEBP", lossless=True, quality=90, method=6)
    return target.getvalue()


def split_by_category(facts: list[dict[str, str]]) -> list[str]:
    """A fifth of each category is for testing, chosen by a hash of the code point: the same for every vendor."""
    members: dict[str, list[str]] = defaultdict(list)
    for fact in facts:
        members[fact["category"]].append(fact["unified"])
    test: set[str] = set()
    for codes in members.values():
        test.update(sorted(codes, key=lambda code: hashlib.sha256(code.encode()).digest())[: round(len(codes) / 5)])
    return ["test" if fact["unified"] in test else "train" for fact in facts]


if __name__ == "__main__":
    main()
