"""Some seconds of one instrument: random notes of a soundfont's preset in a small room, on a floor of faint noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import signal

SECONDS = 3.25
RATE = 24_000
"""Samples a second of what is returned; the soundfont is played at twice that, so that nothing folds over."""
LOUDNESS = 0.04
"""Root of the mean square of every recording, in units of the full scale."""
PAUSE = (0.25, 0.9)
"""Seconds from one onset to the next, drawn evenly: 1.7 onsets a second on average, 1 to 4 in any short stretch."""


@dataclass(frozen=True)
class Player:
    """Plays presets of one soundfont (SF2 or SF3) with FluidSynth, without its reverb and chorus."""

    soundfont: Path

    def play(
        self, preset: tuple[int, int], notes: Sequence[tuple[float, float, int, int]], tuning: float
    ) -> np.ndarray:
        """`notes` (onset and end in seconds, key, velocity) by `preset` (bank and number; bank 128 is percussion),
        moved by `tuning` semitones, 12 at most: floats `(round(SECONDS * RATE),)`, mono."""
        import fluidsynth  # not among the project's own requirements

        off = {"synth.reverb.active": 0, "synth.chorus.active": 0, "synth.dynamic-sample-loading": 1}
        # A synthesizer of its own for every recording: even after a reset, one keeps the end of what it played before,
        # and so would carry sounds of one video, and of one split, into the next.
        synth = fluidsynth.Synth(gain=0.15, samplerate=2 * RATE, channels=16, **off)
        try:
            font = synth.sfload(str(self.soundfont))
            if font < 0:
                raise ValueError(f"{self.soundfont}: not a soundfont that FluidSynth can read")
            if synth.program_select(0, font, *preset) != 0:
                raise ValueError(f"{self.soundfont}: no preset {preset}")
            for control, value in ((101, 0), (100, 0), (6, 12), (38, 0)):  # the wheel spans an octave either way
                synth.cc(0, control, value)
            synth.pitch_bend(0, round(8191 * tuning / 12))
            events = [(start, True, key, velocity) for start, _, key, velocity in notes]
            events += [(end, False, key, 0) for _, end, key, _ in notes]
            pieces, now = [], 0
            for time, begins, key, velocity in [*sorted(events), (SECONDS, False, 0, 0)]:
                until = round(2 * RATE * time)
                if until > now:
                    pieces.append(synth.get_samples(until - now).reshape(-1, 2).mean(1) / 32768)
                now = until
                if begins:
                    synth.noteon(0, key, velocity)
                else:
                    synth.noteoff(0, key)
        finally:
            synth.delete()
        return signal.resample_poly(np.concatenate(pieces), 1, 2)


def draw_onsets(rng: np.random.Generator) -> list[float]:
    """Seconds at which something happens; the same distribution for every instrument, and for what makes no sound."""
    onsets, time = [], rng.uniform(0.05, 0.6)
    while time < SECONDS - PAUSE[0]:
        onsets.append(round(float(time), 4))
        time += rng.uniform(*PAUSE)
    return onsets


def draw_notes(onsets: Sequence[float], keys: Sequence[int], rng: np.random.Generator) -> list[tuple]:
    """A walk over at most an octave of `keys`: each note lasts eight tenths of the time to the next, 0.6 s at most."""
    span = min(13, len(keys))
    low = int(rng.integers(len(keys) - span + 1))
    place, notes = int(rng.integers(span)), []
    for onset, following in zip(onsets, [*onsets[1:], SECONDS], strict=True):
        end = onset + min(0.8 * (following - onset), 0.6)
        notes.append((onset, end, int(keys[low + place]), int(rng.integers(80, 121))))
        if span > 1:  # never the same note twice: a change is heard even where notes are held
            place = int((place + rng.integers(1, min(span, 6)) * rng.choice([-1, 1])) % span)
    return notes


def record(dry: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`dry` in a room with faint noise, every recording equally loud: int16 of the same length. The room and the noise
    are drawn alike for all, so that they tell nothing of the instrument."""
    time = np.arange(int(0.4 * RATE)) / RATE
    room = rng.normal(size=time.size) * np.exp(-time / rng.uniform(0.03, 0.1))
    room *= 10 ** (rng.uniform(-20, -10) / 20) / np.sqrt(np.sum(room**2))
    room[0] = 1
    wet = signal.fftconvolve(dry, room)[: dry.size]
    noise = signal.lfilter([1], [1, -rng.uniform(0, 0.95)], rng.normal(size=dry.size))
    noise *= 10 ** (rng.uniform(-50, -40) / 20) * _loudness(wet) / _loudness(noise)
    sound = (wet + noise) * LOUDNESS / _loudness(wet + noise)
    sound = np.tanh(sound)  # only the strokes of the drier percussion come near the full scale
    sound *= LOUDNESS / _loudness(sound)
    if (peak := np.abs(sound).max()) >= 1:
        raise ValueError(f"a recording with a peak of {peak:.2f} of the full scale: LOUDNESS is too high for it")
    return np.int16(np.round(32767 * sound))


def _loudness(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(sound**2)))
