"""What preparing clips, learning from them and examining what was learnt costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslflow import paths
from sslflow.audiovisual.ingredients import clip_rows, of_clips, statistics_of
from sslflow.audiovisual.method import ClipMethod, find
from sslflow.audiovisual.plan import Plan
from sslflow.commands.estimate.bench import Bench
from sslflow.commands.estimate.clock import Taken, cores, taking
from sslflow.commands.estimate.cost import Cost
from sslflow.commands.estimate.images import bytes_of, rows_of_curve, told
from sslflow.commands.estimate.training import steps_of, watching
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.data.splits import TEST
from sslflow.examination.clips.exam import Exam, Examination, probe
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.ingest.videos.sources import VideoFile
from sslflow.monitoring.watch import Watch
from sslflow.settings.params import lookup
from sslflow.stages import examine, pretrain_clips
from sslflow.training.ingredients import build

FEW = 6
"""Clips with which an examination is tried first."""
VIDEOS, FEWEST, BYTES = 32, 4, 64 * 10**6
"""Videos that are cut for the measurement, at most and at least, and bytes of them, about."""


@dataclass(frozen=True)
class Cut:
    """Clips of all videos, or of some."""

    clips: Dataset[ClipFormat]
    share: float
    """Of the videos' bytes that these are of."""
    taken: Taken
    """What cutting them took."""


def cut(bench: Bench, name: str) -> Cut:
    """The clips of a set, or some of what they will be, cut once."""
    if name not in bench.cuts:
        if f"clips@{name}" not in bench.stale:
            bench.cuts[name] = Cut(Dataset(paths.clips(name)), 1.0, Taken())
        else:
            bench.cuts[name] = _some(bench, name)
    return bench.cuts[name]


def _some(bench: Bench, name: str) -> Cut:
    share = 1.0

    def part(files: list[VideoFile]) -> list[VideoFile]:
        nonlocal share
        sizes = [_size(one.file) for one in files]
        fits = round(BYTES / max(1.0, sum(sizes) / max(1, len(files))))
        count = min(len(files), max(FEWEST, min(VIDEOS, fits)))
        chosen = np.linspace(0, len(files) - 1, count).astype(int).tolist()
        share = sum(sizes[number] for number in chosen) / max(1, sum(sizes))
        return [files[number] for number in chosen]

    settings = bench.settings({f"clips.{name}": prepare_clips})[f"clips.{name}"]
    folder = bench.folder / "clips" / name
    with taking() as taken:
        prepare_clips(folder, lambda line: None, part, bench.folder / "cut", **settings)
    return Cut(Dataset(folder), share, taken)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def prepared_clips(bench: Bench, name: str) -> Cost:
    """Decoding by ffmpeg, several at a time."""
    cost, found = bench.begun("clips"), cut(bench, name)
    work = (found.taken.own + found.taken.children) / found.share
    cost.spend("decoding", max(work / cores(), found.taken.own / found.share))
    cost.work = work
    form = found.clips.format
    sound = round(form.seconds * form.rate) * 2
    size = len(found.clips) / found.share * (form.frames * 3 * form.side**2 + sound)
    bench.kept(cost, round(size))
    cost.disk += round(size)  # what is decoded stays in work/clips as well
    cost.ram += found.taken.grown
    if found.share < 1:
        cost.notes.append(f"reckoned from videos of {100 * found.share:.0f} % of the bytes")
    return cost


@dataclass(frozen=True)
class _Made:
    method: ClipMethod
    views: Any
    found: Cut
    rows: np.ndarray
    held: np.ndarray
    full: int


def _made(bench: Bench, name: str, settings: dict[str, dict[str, Any]]) -> _Made:
    plan, kind, block = Plan(**settings["pretrain_clips"]), find(name), f"clip_methods.{name}"
    found = cut(bench, plan.clips)
    rows, held = clip_rows(kind, name, found.clips, plan.held_out, 0)
    full = round(len(rows) / found.share)
    pictures, sounds = settings["clip_encoders.picture"], settings["clip_encoders.sound"]
    every = np.resize(np.arange(len(rows)), full)
    named = plan.start in lookup(bench.content, "starts")
    given = {
        **of_clips(found.clips, rows, pictures, sounds, "" if named else plan.start),
        **({"encoder": lambda: bench.given(plan.start, found.clips.format.picture)} if named else {}),
        "labels": lambda: torch.from_numpy(found.clips.labels[rows][every]),
        "statistics": lambda: statistics_of(found.clips, rows)[torch.from_numpy(every)],
    }
    views = kind.Views(found.clips.format, **settings[f"{block}.views"])
    return _Made(build(kind, given, settings[block]), views, found, rows, held, full)


def pretrained(bench: Bench, name: str) -> Cost:
    """As `pretrain` of images."""
    cost, settings = bench.begun("pretrain_clips"), bench.settings(pretrain_clips.schemas(name))
    with taking() as built:
        made = _made(bench, name, settings)
    cost.spend("starting", built.seconds)
    plan, train = Plan(**settings["pretrain_clips"]), settings[f"clip_methods.{name}.train"]
    clips = made.found.clips
    found = steps_of(made.method, made.views, clips, made.rows, made.full, bench.device, None, train)
    told(cost, found, plan.journal, train)
    watched = np.resize(made.rows, min(plan.diagnostics, made.full))
    watch = Watch(made.method, None, clips, watched, bench.device, 0, train.get("memory_format", "channels_last"))
    cost.spend(
        "diagnostics", watching(watch, bench.device).seconds * rows_of_curve(found.count, plan.journal.log_every)
    )
    weights = bytes_of(made.method)
    bench.kept(cost, weights + sum(bytes_of(encoder) for encoder in made.method.encoders.values()))
    return cost


def examined(bench: Bench, name: str) -> Cost:
    """All that is asked of a method, asked on the clips at hand."""
    cost, settings = bench.begun("examine"), bench.settings(examine.schemas(name))
    made = _made(bench, name, settings)
    size, clips = Examination(**settings["examine"]), made.found.clips
    made.method.to(bench.device)
    held = made.held if len(made.held) else made.rows
    tested, taken = len(clips.rows(TEST)), []
    sizes = [min(FEW, size.clips), size.clips]
    for most in sizes:
        exam = Exam(made.method, made.views, clips, made.rows, held, bench.device, 0, replace(size, clips=most))
        with taking(bench.device) as one:
            exam.findings()
            for part, encoder in made.method.encoders.items() if clips.labelled else ():
                for _ in range(2):  # beside one with random weights
                    probe(exam, encoder, sound=part == "sound")
        taken.append(one)
        cost.ram = max(cost.ram, bench.begun("examine").ram + one.grown)
    seen = [sum(min(most, count) for count in (tested, len(made.rows))) for most in sizes]
    whole = sum(min(size.clips, round(count / made.found.share)) for count in (tested, len(made.rows)))
    each = max(0.0, taken[1].seconds - taken[0].seconds) / max(1, seen[1] - seen[0])
    cost.spend("examining", taken[1].seconds + each * max(0, whole - seen[1]))
    return cost
