"""What is known of an image, checked and brought to where its prepared pixels lie. Imports no torch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from sslflow.data.annotated import LEAST_LEFT, as_png
from sslflow.ingest.images import shapes
from sslflow.ingest.images.decode import Decoded
from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.geometry import NEAREST, SWAPPING, TURNS, Fit, placement, turned
from sslflow.ingest.images.masks import as_classes, read_mask
from sslflow.ingest.records import LEFT_OUT, MENDED, NO_CLASS, UNANNOTATED, Annotation, Fate, Masks, Thing

_SLIGHT = 1.0
"""Pixels by which a box may reach beyond its image without a word: how edges are counted differs by so much."""


@dataclass(frozen=True)
class Known:
    """What is known of a prepared image."""

    mask: bytes | None = None
    """A PNG, `(size, size)`: classes, or `NO_CLASS`."""
    classes: tuple[int, ...] = ()
    """Those in the mask."""
    boxes: np.ndarray | None = None
    """float32 `(k, 4)`, within the square; None: the things aren't known."""
    labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    ignored: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    flaws: tuple[tuple[str, Fate], ...] = ()
    """Reason and fate of each."""
    usable: bool = True
    cut_away: int = 0
    """Things of which the fit leaves nothing."""

    def same(self, other: Known) -> bool:
        """Whether the other says the same."""
        if (self.boxes is None) != (other.boxes is None):
            return False
        return self.mask == other.mask and np.array_equal(_in_order(self), _in_order(other))


def known(annotation: Annotation, picture: Decoded, *, size: int, fit: Fit, masks: Masks, max_pixels: int) -> Known:
    """What the annotation says of a picture, in prepared pixels; what can't be used is said as a flaw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of size; size is checked here
        try:
            return _known(annotation, picture, size, fit, masks, max_pixels)
        except Refused as reason:
            why = str(reason)
        except MemoryError:
            why = "annotation that needs more memory than there is"
    return Known(flaws=((why, UNANNOTATED),), usable=False)


def _known(annotation: Annotation, picture: Decoded, size: int, fit: Fit, masks: Masks, max_pixels: int) -> Known:
    if annotation.unusable:
        raise Refused(annotation.unusable)
    flaws: list[tuple[str, Fate]] = []
    mask = None if annotation.mask is None else _read(annotation, masks, max_pixels)
    frame, turn = _frame(annotation, mask, picture)
    things = None
    if annotation.things is not None:
        things = [_checked(thing, frame, flaws) for thing in annotation.things]
        things = [thing for thing in things if thing is not None]
        if mask is None and annotation.painted:
            mask = shapes.painted(things, frame)
    if turn:
        reason = "image that is stored on its side and was annotated as stored"
        flaws.append((f"{reason}: turned upright with it", MENDED))
    placed = placement(picture.width, picture.height, size, fit)
    found = Known(flaws=tuple(flaws))
    content, classes = None, ()
    if mask is not None:
        upright = Image.fromarray(mask)
        upright = upright.transpose(TURNS[turn]) if turn else upright
        square = Image.new("L", (size, size), NO_CLASS)
        square.paste(placed.resized(upright, NEAREST), placed.at)
        pixels = np.asarray(square)
        content, classes = as_png(pixels), tuple(np.unique(pixels[pixels != NO_CLASS]).tolist())
    if things is None:
        return Known(content, classes, flaws=found.flaws)
    boxes = np.asarray([thing.box for thing in things], np.float64).reshape(-1, 4)
    boxes = placed.moved(turned(boxes, turn, *frame) if turn else boxes)
    left = boxes.clip(0, size)
    area, whole = (_extent(some).prod(1) for some in (left, boxes))
    ignored = np.asarray([thing.ignored for thing in things], np.bool_)
    ignored |= (area < LEAST_LEFT * whole) | (_extent(left) < 1).any(1)
    some = (_extent(left) > 0).all(1)
    labels = np.asarray([thing.label for thing in things], np.int64)
    return Known(
        content, classes, left[some].astype(np.float32), labels[some], ignored[some], found.flaws,
        cut_away=int((~some).sum()),
    )  # fmt: skip


def _read(annotation: Annotation, masks: Masks, max_pixels: int) -> np.ndarray:
    assert annotation.mask is not None
    try:
        return as_classes(read_mask(annotation.mask, max_pixels), masks)
    except (Refused, MemoryError):
        raise
    except Exception as error:  # broken files make decoders raise nearly anything
        raise Refused(f"mask that is damaged: {' '.join(str(error).split()) or type(error).__name__}") from None


def _frame(annotation: Annotation, mask: np.ndarray | None, picture: Decoded) -> tuple[tuple[int, int], int]:
    """Width and height of the picture as it was annotated, and the orientation from which it has to be turned; 0: it is
    upright."""
    upright = (picture.width, picture.height)
    claims = {} if annotation.size is None else {"image whose size was annotated otherwise": annotation.size}
    if mask is not None:
        claims["mask of another size than its image"] = (mask.shape[1], mask.shape[0])
    stored = picture.orientation in SWAPPING and all(size == upright[::-1] for size in claims.values())
    if claims and stored and upright[0] != upright[1]:
        return (upright[1], upright[0]), picture.orientation
    for what, size in claims.items():
        if size != upright:
            raise Refused(f"{what}: {size[0]} x {size[1]}, the image is {upright[0]} x {upright[1]}")
    return upright, 0


def _checked(thing: Thing, frame: tuple[int, int], flaws: list[tuple[str, Fate]]) -> Thing | None:
    """The thing with a box within its image, or None where there is nothing of it. Raises `Refused` where it can't be
    known what is meant: something may be anywhere."""
    shape = shapes.checked(thing.shape, frame, flaws) if thing.shape is not None else None
    box = thing.box if thing.box is not None else shapes.box(shape) if shape is not None else None
    if box is None:
        raise Refused("thing without a box or a shape that can be used")
    left, top, right, bottom = box
    told = ", ".join(f"{edge:g}" for edge in box)
    if not np.isfinite(box).all():
        raise Refused(f"box that is no number: {told}")
    if right < left or bottom < top:
        raise Refused(f"box whose right is left of its left, or bottom above its top: {told}")
    if right == left or bottom == top:
        left, top, right, bottom = box = shapes.box(shape) if shape is not None else box
        if right == left or bottom == top:
            flaws.append((f"box of no area: {told}", LEFT_OUT))
            return None
        flaws.append((f"box of no area: {told}; its shape's is used", MENDED))
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(frame[0])), min(bottom, float(frame[1])))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        flaws.append((f"box outside of its image: {told}, the image is {frame[0]} x {frame[1]}", LEFT_OUT))
        return None
    if max(abs(a - b) for a, b in zip(box, inside, strict=True)) > _SLIGHT:
        flaws.append((f"box that reaches beyond its image: {told}; cut at its edge", MENDED))
    return Thing(thing.label, inside, shape, thing.ignored)


def _extent(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2:] - boxes[:, :2]


def _in_order(one: Known) -> np.ndarray:
    if one.boxes is None:
        return np.empty((0, 6))
    table = np.column_stack([one.boxes, one.labels, one.ignored])
    return table[np.lexsort(table.T)]
