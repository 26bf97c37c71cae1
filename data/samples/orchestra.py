"""Which instruments there are, and which presets of the soundfonts sound for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
    keys: Sequence[int]
    """MIDI keys of its notes."""
    presets: tuple[Preset, ...]


def fluid(number: int, name: str) -> Preset:
    return Preset("fluid", 0, number, name)


def muse(bank: int, number: int, name: str) -> Preset:
    return Preset("musescore", bank, number, name)


def struck(number: int, name: str, *keys: int) -> Preset:
    return Preset("fluid", 128, number, name, keys)


INSTRUMENTS = {
    "accordion": Instrument(range(60, 80), (fluid(21, "accordion"), fluid(20, "reed organ"), fluid(22, "harmonica"))),
    "bell": Instrument(
        range(72, 97),
        (
            fluid(9, "glockenspiel"),
            fluid(8, "celesta"),
            fluid(10, "music box"),
            fluid(112, "tinker bell"),
            fluid(11, "vibraphone"),
        ),
    ),
    "drum": Instrument(
        (),
        (
            struck(0, "standard snares", 38, 40),
            struck(32, "jazz snares", 38, 40),
            struck(16, "power snares", 38, 40),
            struck(48, "orchestra snare", 38),
        ),
    ),
    "flute": Instrument(
        range(72, 97), (fluid(73, "flute"), fluid(75, "pan flute"), fluid(74, "recorder"), fluid(72, "piccolo"))
    ),
    "guitar": Instrument(range(40, 65), (fluid(30, "distortion guitar"), fluid(29, "overdrive guitar"))),
    "keyboard": Instrument(
        range(48, 85),
        (
            fluid(0, "grand piano"),
            fluid(2, "electric grand"),
            fluid(4, "electric piano"),
            muse(0, 0, "grand piano"),
        ),
    ),
    "maracas": Instrument((), (struck(0, "maracas", 70), struck(0, "shaker", 82), struck(0, "cabasa", 69))),
    "microphone": Instrument(
        range(50, 73),
        (
            fluid(52, "ahh choir"),
            fluid(85, "solo voice"),
            fluid(54, "synthetic voice"),
            fluid(53, "ohh voices"),
        ),
    ),
    "saxophone": Instrument(
        range(46, 66),
        (fluid(64, "soprano sax"), fluid(65, "alto sax"), fluid(67, "baritone sax"), fluid(66, "tenor sax")),
    ),
}
