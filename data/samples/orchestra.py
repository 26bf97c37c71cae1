"""Which instruments there are, which presets of the soundfonts sound for them, and which drawing is kept for testing.

What sounds in `train` and what sounds in `test` share no sample of a soundfont, and the vendor `unseen` drew the
instrument for `test` alone. Who is unseen goes round, so that the train split shows every vendor's style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

VENDORS = ("noto", "twemoji", "openmoji")


@dataclass(frozen=True)
class Preset:
    font: str
    bank: int
    number: int
    name: str
    keys: Sequence[int] | None = None
    """MIDI keys, where they differ from the instrument's own."""


@dataclass(frozen=True)
class Instrument:
    code_point: str
    unseen: str
    """The vendor whose drawing only the test split shows."""
    keys: Sequence[int]
    """MIDI keys of its notes."""
    train: tuple[Preset, ...]
    test: tuple[Preset, ...]


def fluid(number: int, name: str) -> Preset:
    return Preset("fluid", 0, number, name)


def muse(bank: int, number: int, name: str) -> Preset:
    return Preset("musescore", bank, number, name)


def struck(number: int, name: str, *keys: int) -> Preset:
    return Preset("fluid", 128, number, name, keys)


INSTRUMENTS = {
    "accordion": Instrument(
        "1FA97", "openmoji", range(60, 80), (fluid(21, "accordion"), fluid(20, "reed organ")), (fluid(22, "harmonica"),)
    ),
    "banjo": Instrument(
        "1FA95",
        "twemoji",
        range(50, 75),
        (fluid(105, "banjo"), fluid(107, "koto"), fluid(104, "sitar")),
        (fluid(106, "shamisen"),),
    ),
    "bell": Instrument(
        "1F514",
        "openmoji",
        range(72, 97),
        (fluid(9, "glockenspiel"), fluid(8, "celesta"), fluid(11, "vibraphone"), fluid(10, "music box")),
        (fluid(112, "tinker bell"),),
    ),
    "drum": Instrument(
        "1F941",
        "twemoji",
        (),
        (struck(0, "standard snares", 38, 40), struck(32, "jazz snares", 38, 40), struck(16, "power snares", 38, 40)),
        (struck(48, "orchestra snare", 38),),
    ),
    "flute": Instrument(
        "1FA88",
        "twemoji",
        range(72, 97),
        (fluid(73, "flute"), fluid(75, "pan flute"), fluid(74, "recorder")),
        (fluid(72, "piccolo"),),
    ),
    "guitar": Instrument(
        "1F3B8", "noto", range(40, 65), (fluid(30, "distortion guitar"),), (fluid(29, "overdrive guitar"),)
    ),
    "keyboard": Instrument(
        "1F3B9",
        "openmoji",
        range(48, 85),
        (fluid(0, "grand piano"), fluid(2, "electric grand"), fluid(4, "electric piano")),
        (muse(0, 0, "grand piano"),),
    ),
    "long-drum": Instrument(
        "1FA98",
        "noto",
        (),
        (
            struck(0, "bongos", 60, 61),
            struck(0, "congas", 63, 64),
            struck(0, "timbales", 65, 66),
            struck(0, "toms", 45, 47, 48, 50),
        ),
        (Preset("fluid", 0, 116, "taiko", range(55, 68)),),
    ),
    "maracas": Instrument(
        "1FA87", "twemoji", (), (struck(0, "maracas", 70), struck(0, "shaker", 82)), (struck(0, "cabasa", 69),)
    ),
    "microphone": Instrument(
        "1F3A4",
        "noto",
        range(50, 73),
        (fluid(52, "ahh choir"), fluid(85, "solo voice"), fluid(54, "synthetic voice")),
        (fluid(53, "ohh voices"),),
    ),
    "saxophone": Instrument(
        "1F3B7",
        "openmoji",
        range(46, 66),
        (fluid(64, "soprano sax"), fluid(65, "alto sax"), fluid(67, "baritone sax")),
        (fluid(66, "tenor sax"),),
    ),
    "violin": Instrument(
        "1F3BB",
        "noto",
        range(67, 92),
        (fluid(40, "violin"), fluid(41, "viola"), muse(30, 48, "violas")),
        (muse(20, 48, "violins"),),
    ),
}
