"""Masks and boxes that lie beside images, by the looks of their files: which setting reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sslflow.ingest.images.voc import MASKS, XML

_START = 65_536
"""Bytes of a file that are looked at."""
_COCO = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_FOLDERS = ("masks", "mask")


def annotation_hints(root: Path) -> Iterator[str]:
    """A line where the folder, or what lies beside it, looks like Pascal VOC's, COCO's or a folder of masks."""
    found = ""
    for place in (root, root.parent):
        if not found and any(next(place.glob(files), None) for files in (f"{XML}/*.xml", f"{MASKS}/*.png")):
            found = f"voc:{place}"
        for file in sorted((*place.glob("*.json"), *place.glob("annotations/*.json"))):
            if not found and _is_coco(file):
                found = f"coco:{file}"
        for name in _FOLDERS:
            if not found and next((place / name).glob("**/*.png"), None):
                found = f"masks:{place / name}"
    if found:
        yield f"masks or boxes lie beside the images: to use them, set data.annotations to {found} (docs/dense.md)"


def _is_coco(file: Path) -> bool:
    try:
        with file.open("rb") as handle:
            return bool(_COCO.search(handle.read(_START)))
    except OSError:
        return False
