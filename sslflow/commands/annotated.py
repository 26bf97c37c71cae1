"""Masks, boxes and depth maps that lie beside images, by the looks of their files: which setting reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sslflow.ingest.images.voc import MASKS, XML

_ENDS = 65_536
"""Bytes of a file's beginning, and of its end, that are looked at."""
_COCO = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_INSTANCES = re.compile(rb'"(bbox|segmentation|categories)"\s*:')
"""What COCO's files of captions, which may lie beside those of things, lack."""
_TESTED = re.compile("val|test", re.IGNORECASE)
_FOLDERS = ("masks", "mask")
_DEPTH = ("depth", "depths", "depth_maps")
_DEEP = (16, 0)
"""Bits of a depth map, and PNG's number for grey."""


def annotation_hints(root: Path) -> Iterator[str]:
    """A line where the folder, or what lies beside it, looks like Pascal VOC's, COCO's or a folder of masks, and one
    where it looks like a folder of depth maps."""
    if maps := next(
        (found for place in (root, root.parent) for name in _DEPTH if _is_deep(found := place / name)), None
    ):
        yield (
            f"depth maps lie beside the images: to use them, set data.depth to png:{maps}, data.depth_scale to the "
            "metres from one of their values to the next, and take methods from recipes/depth.yaml (docs/depth.md)"
        )
    for place in (root, root.parent):
        if found := _found(place):
            said = f"masks or boxes lie beside the images: to use them, set {found}"
            yield f"{said}, and name methods in run.segment or run.detect (docs/dense.md)"
            return


def _found(place: Path) -> str:
    """What to set, or `""`."""
    if any(next(place.glob(files), None) for files in (f"{XML}/*.xml", f"{MASKS}/*.png")):
        return f"data.annotations to voc:{place}"
    files = [file for file in sorted((*place.glob("*.json"), *place.glob("annotations/*.json"))) if _is_coco(file)]
    if files:
        tested = next((file for file in files if _TESTED.search(file.stem)), None)
        first = next((file for file in files if file != tested), files[0])
        second = f", and data.annotations_test to coco:{tested}" if tested not in (first, None) else ""
        return f"data.annotations to coco:{first}{second}"
    masks = next((place / name for name in _FOLDERS if next((place / name).glob("**/*.png"), None)), None)
    return f"data.annotations to masks:{masks}" if masks else ""


def _is_deep(folder: Path) -> bool:
    """Whether the first PNG in a folder is grey with 16 bits."""
    try:
        with next(folder.glob("**/*.png")).open("rb") as handle:
            return tuple(handle.read(26)[24:]) == _DEEP
    except (OSError, StopIteration):
        return False


def _is_coco(file: Path) -> bool:
    try:
        with file.open("rb") as handle:
            start = handle.read(_ENDS)
            handle.seek(max(0, file.stat().st_size - _ENDS))
            ends = start + handle.read(_ENDS)
            return bool(_COCO.search(ends) and _INSTANCES.search(ends))
    except OSError:
        return False
