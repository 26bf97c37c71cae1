"""What all examples of a data set have in common, by kind of data, and how `dataset.json` says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, get_args


@dataclass(frozen=True)
class ImageFormat:
    """What all prepared images have in common."""

    kind: ClassVar[str] = "images"
    unit: ClassVar[str] = "images"
    """What one calls the examples."""
    fields: ClassVar[tuple[str, ...]] = ("images",)
    grouped: ClassVar[bool] = False
    """Whether views need the groups of a batch."""

    channels: int
    size: int
    """Pixels: images are squares."""
    mean: tuple[float, ...]
    """Of each channel, over the images to pretrain on, as shares of white."""
    std: tuple[float, ...]


@dataclass(frozen=True)
class ClipFormat:
    """What all clips have in common."""

    kind: ClassVar[str] = "clips"
    unit: ClassVar[str] = "clips"
    fields: ClassVar[tuple[str, ...]] = ("frames", "sound")
    grouped: ClassVar[bool] = True
    """A clip of the same source is no example of a sound that does not belong to a picture."""

    frames: int
    """Of each clip; frame i is what the video shows at i / `fps` seconds from the clip's start."""
    side: int
    """Pixels: frames are squares of three channels."""
    fps: float
    rate: int
    """Samples of sound a second, one channel."""
    seconds: float
    mean: tuple[float, ...]
    """Of each channel, over the frames of the training clips, as shares of white."""
    std: tuple[float, ...]

    @property
    def samples(self) -> int:
        """Samples of sound of each clip."""
        return round(self.seconds * self.rate)

    @property
    def picture(self) -> ImageFormat:
        """The same of a single frame."""
        return ImageFormat(3, self.side, self.mean, self.std)


@dataclass(frozen=True)
class TextFormat:
    """What all passages of text have in common."""

    kind: ClassVar[str] = "text"
    unit: ClassVar[str] = "passages"
    fields: ClassVar[tuple[str, ...]] = ("tokens", "following")
    """Of each passage its own tokens, and those of the passage that follows in the same document, all padding where
    none does: int32 `(length,)` each."""
    grouped: ClassVar[bool] = True
    """Groups are documents: a passage of the same one is no example of what does not follow."""

    length: int
    """Tokens of a passage, the special ones and padding among them."""
    vocabulary: int
    counts: tuple[int, ...] = ()
    """How often each token occurs in the passages to pretrain on, `(vocabulary,)`; empty of captions."""
    inside: tuple[int, ...] = ()
    """Tokens that go on with a word which the token before them began."""


@dataclass(frozen=True)
class VolumeFormat:
    """What all blocks of volumes have in common."""

    kind: ClassVar[str] = "volumes"
    unit: ClassVar[str] = "blocks"
    fields: ClassVar[tuple[str, ...]] = ("volumes",)
    """uint8 `(channels, side, side, side)`: what a range of values became, darkest to brightest."""
    grouped: ClassVar[bool] = False

    channels: int
    side: int
    """Voxels: blocks are cubes."""
    mean: tuple[float, ...]
    """Of each channel, over the blocks to pretrain on, as shares of white."""
    std: tuple[float, ...]


AnyFormat = ImageFormat | ClipFormat | TextFormat | VolumeFormat
UNITS: dict[str, str] = {kind.kind: kind.unit for kind in get_args(AnyFormat)}
"""What one calls the examples, by kinds of data."""


def singular(unit: str) -> str:
    """What one calls one of the examples."""
    return unit.removesuffix("s")


def any_one(unit: str) -> str:
    """The same with its article: `an image`, `a block`."""
    return f"{'an' if unit[0] in 'aeiou' else 'a'} {singular(unit)}"


def described(format: AnyFormat, classes: Sequence[str]) -> dict[str, Any]:
    """What `dataset.json` says of a data set at the least."""
    return {"kind": format.kind, "format": asdict(format), "classes": list(classes)}


def format_of(facts: Mapping[str, Any]) -> Any:
    """The format that `described` wrote. Raises `ValueError` for a kind of data that there is not."""
    kinds = {kind.kind: kind for kind in get_args(AnyFormat)}
    if facts["kind"] not in kinds:
        raise ValueError(f"expected a data set of one of {', '.join(kinds)}, found one of {facts['kind']}")
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in facts["format"].items()
    }
    return kinds[facts["kind"]](**settings)
