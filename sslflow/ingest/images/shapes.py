"""Shapes of things, as COCO has them: polygons and run lengths, checked and painted into a mask. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from sslflow.ingest.images.files import Refused
from sslflow.ingest.records import LEFT_OUT, MENDED, NO_CLASS, Fate, Shape, Thing

_FAR = 1.0
"""So many times the image's size a polygon may reach beyond it."""
_ALL_PAIRS = 2_000
"""Polygons of more points are not asked whether they cross themselves."""


def checked(shape: Shape, frame: tuple[int, int], flaws: list[tuple[str, Fate]]) -> Any:
    """The shape in an image of that width and height as COCO's compressed run lengths; None where it can't be used.
    Raises `Refused` for run lengths of an image of another size."""
    if isinstance(shape, Mapping):
        return _run_lengths(shape, frame, flaws)
    good = []
    for polygon in shape:
        points = polygon.reshape(-1, 2)
        if len(np.unique(points, axis=0)) < 3:
            flaws.append((f"polygon of fewer than 3 points: {len(points)}; its box is used", LEFT_OUT))
        elif not np.isfinite(points).all() or (abs(points / frame - 0.5) > 0.5 + _FAR).any():
            flaws.append(("polygon far outside of its image, or of no numbers; its box is used", LEFT_OUT))
        else:
            if crosses_itself(points):
                flaws.append((f"polygon that crosses itself: {len(points)} points, filled all the same", MENDED))
            good.append(polygon.tolist())
    if not good:
        return None
    return coco.merge(coco.frPyObjects(good, frame[1], frame[0]))


def _run_lengths(shape: Mapping[str, Any], frame: tuple[int, int], flaws: list[tuple[str, Fate]]) -> Any:
    height, width = shape["size"]
    if (width, height) != frame:
        raise Refused(
            f"run lengths of an image of another size: {width} x {height}, the image is {frame[0]} x {frame[1]}"
        )
    counts = shape["counts"]
    try:
        lengths = counts if isinstance(counts, np.ndarray) else np.asarray(_uncompressed(counts), np.float64)
        whole = lengths.astype(np.int64)
        if (whole != lengths).any() or (whole < 0).any() or whole.sum() != width * height:
            raise ValueError
    except (ValueError, OverflowError):
        flaws.append(("run lengths that don't fill their image; its box is used", LEFT_OUT))
        return None
    return coco.frPyObjects({"size": [height, width], "counts": whole.tolist()}, height, width)


def _uncompressed(text: str) -> list[int]:
    """The lengths that a text of COCO's stands for: five bits a letter, lowest first, the sixth says whether there are
    more; from the third number on, it is the difference to the last but one. pycocotools reads outside of its memory
    where a text is damaged. Raises `ValueError` for what is no such text."""
    lengths: list[int] = []
    number = bits = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or bits > 60:
            raise ValueError
        number |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << bits
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = bits = 0
    if bits:
        raise ValueError
    return lengths


def box(run_lengths: Any) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a shape."""
    left, top, width, height = coco.toBbox(run_lengths).tolist()
    return left, top, left + width, top + height


def _filled(run_lengths: Any) -> np.ndarray:
    """Where a shape is, bool `(height, width)`."""
    return coco.decode(run_lengths).astype(bool)


def painted(things: Sequence[Thing], frame: tuple[int, int]) -> np.ndarray:
    """The things as a mask, uint8 `(height, width)`: 0 is the background, 1 the first class of things; smaller ones lie
    over larger ones. What is ignored, and the box of what has no shape, is `NO_CLASS`."""
    mask = np.zeros(frame[::-1], np.uint8)
    for thing in sorted(things, key=_area, reverse=True):
        if thing.shape is not None:
            mask[_filled(thing.shape)] = NO_CLASS if thing.ignored else thing.label + 1
        elif thing.box is not None:
            left, top = np.floor(thing.box[:2]).astype(int)
            right, bottom = np.ceil(thing.box[2:]).astype(int)
            mask[top:bottom, left:right] = NO_CLASS
    return mask


def _area(thing: Thing) -> float:
    run_lengths: Any = thing.shape
    if run_lengths is not None:
        return float(coco.area(run_lengths))
    left, top, right, bottom = thing.box or (0.0, 0.0, 0.0, 0.0)
    return (right - left) * (bottom - top)


def crosses_itself(points: np.ndarray) -> bool:
    """Whether two edges of a closed polygon, `(n, 2)`, cross: each has the ends of the other on both sides."""
    if len(points) > _ALL_PAIRS:
        return False
    first, second = points, np.roll(points, -1, axis=0)
    ahead = second - first

    def side(of: np.ndarray) -> np.ndarray:
        """Of each point, on which side of each edge it is: −1, 0 or 1."""
        apart = of[None] - first[:, None]
        return np.sign(ahead[:, None, 0] * apart[..., 1] - ahead[:, None, 1] * apart[..., 0])

    divided = side(first) * side(second) < 0
    return bool((divided & divided.T).any())
