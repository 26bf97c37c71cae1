r"""Drawings of the instruments by seven artists, from the icon sets that Iconify publishes on npm.

    for set in noto@1.2.9 noto-v1@1.2.5 twemoji@1.2.5 openmoji@1.2.29 emojione@1.2.3 emojione-v1@1.2.3 \
        fluent-emoji@1.2.7 fluent-emoji-flat@1.2.6 fxemoji@1.2.2 streamline-emojis@1.2.4; do
        mkdir -p ICONS/${set%@*}; tar xzf $(npm pack --silent @iconify-json/$set) -C ICONS/${set%@*}
    done
    pip install resvg-py==0.5.0
    python data/samples/drawings.py ICONS

writes data/samples/instruments/drawings.parquet, which instruments.py reads.
"""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from orchestra import INSTRUMENTS
from PIL import Image

FILE = Path(__file__).parent / "instruments" / "drawings.parquet"
PIXELS = 192


@dataclass(frozen=True)
class Set:
    """One icon set: its package without `@iconify-json/`, and who drew it. Sets of one artist never lie in different
    splits: a later edition keeps what an earlier one looked like."""

    package: str
    artist: str


SETS = (
    Set("noto", "Noto"),
    Set("noto-v1", "Noto"),
    Set("twemoji", "Twemoji"),
    Set("openmoji", "OpenMoji"),
    Set("emojione", "EmojiOne"),
    Set("emojione-v1", "EmojiOne"),
    Set("fluent-emoji", "Fluent"),
    Set("fluent-emoji-flat", "Fluent"),
    Set("fxemoji", "FxEmojis"),
    Set("streamline-emojis", "Streamline"),
)
OTHER_NAMES = {"keyboard": ("musical-keyboard", "musicalkeyboard")}
"""What the sets call it, where that isn't the instrument's own name; their `keyboard` is the computer's."""


Drawings = dict[str, dict[str, list[Image.Image]]]
"""All drawings of each instrument by artist, RGBA, `PIXELS` along either side."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("icons", type=Path, help="folder with a folder for each icon set")
    icons = parser.parse_args().icons
    rows = []
    for one in SETS:
        found = json.loads((icons / one.package / "package/icons.json").read_text(encoding="utf-8"))
        for label in INSTRUMENTS:
            for name in OTHER_NAMES.get(label, (label,)):
                if name in found["icons"]:
                    rows.append({"label": label, "artist": one.artist, "set": one.package, "image": draw(found, name)})
    pq.write_table(pa.Table.from_pylist(rows), FILE)
    print(f"{len(rows)} drawings of {len(INSTRUMENTS)} instruments")


def draw(icons: dict[str, Any], name: str) -> bytes:
    """One icon as a lossless WebP."""
    import resvg_py  # not among the project's own requirements

    icon = {key: value for key, value in icons.items() if key in ("left", "top", "width", "height")}
    icon |= icons["icons"][name]
    view = f"{icon.get('left', 0)} {icon.get('top', 0)} {icon.get('width', 16)} {icon.get('height', 16)}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{view}">'
    png = resvg_py.svg_to_bytes(svg_string=f"{head}{icon['body']}</svg>", width=PIXELS, height=PIXELS)
    content = io.BytesIO()
    Image.open(io.BytesIO(bytes(png))).convert("RGBA").save(content, "WEBP", lossless=True, method=6)
    return content.getvalue()


def read_drawings() -> Drawings:
    found: Drawings = {label: {} for label in INSTRUMENTS}
    for row in pq.read_table(FILE).to_pylist():
        image = Image.open(io.BytesIO(row["image"])).convert("RGBA")
        found[row["label"]].setdefault(row["artist"], []).append(image)
    return found


if __name__ == "__main__":
    main()
