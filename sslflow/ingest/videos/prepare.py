"""Video files to clips: probed, decoded, cut, split by source, with a row for each file that says what became of it."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from sslflow.data.classes import counted, hardly_differing, lacking, shown, summary
from sslflow.data.formats import ClipFormat, described
from sslflow.data.splits import NO_LABEL, TEST, TRAIN, held_out
from sslflow.ingest.images.made_by_systems import told
from sslflow.ingest.records import escape
from sslflow.ingest.shards import ShardWriter
from sslflow.ingest.videos.cache import OK
from sslflow.ingest.videos.cut import Grid, SoundNeeded
from sslflow.ingest.videos.ffmpeg import bindings, find
from sslflow.ingest.videos.outcomes import Outcome, outcomes
from sslflow.ingest.videos.sources import VideoFile, find_videos
from sslflow.paths import CLIPS_CACHE
from sslflow.runtime.files import write_csv, write_json
from sslflow.runtime.folders import replacing_folder
from sslflow.settings.params import Count, Fraction, Natural, Positive

COLUMNS = (
    *(("number", pa.int64()), ("start", pa.float64()), ("audible", pa.bool_()), ("loudness", pa.float32())),
    *(("duration", pa.float64()), ("size", pa.int64()), ("fps", pa.float64()), ("rate", pa.int64())),
    *((edge, pa.float32()) for edge in ("x0", "y0", "x1", "y1")),
    ("sha256", pa.string()),
)
"""What the manifest says of each clip besides: number (of its video); start, in seconds from the start of the file
(frame i is what is to be seen at `start + i / fps`); audible; loudness, in dB of full scale; of the file duration
(seconds, null where it doesn't say), size (bytes), fps, rate (0: no sound) and sha256; x0, y0, x1, y1, a box in the
frame, NaN where none is known. The path is the video's, the group its source."""
_EXAMPLES = 5
_COLUMNS = (
    *("path", "status", "clips", "silent", "holes", "split", "duration", "container"),
    *("picture", "width", "height", "fps", "rotation", "sound", "rate", "layout", "sha256"),
)


def prepare_clips(
    folder: Path,
    tell: Callable[[str], None],
    part: Callable[[list[VideoFile]], list[VideoFile]] = lambda files: files,
    cache: Path = CLIPS_CACHE,
    *,
    source: str = "samples:instruments",
    path: str = "data/raw",
    seconds: Positive = 3.0,
    fps: Count = 12,
    side: Count = 96,
    rate: Count = 16_000,
    sound: SoundNeeded = "required",
    test_fraction: Fraction = 0.2,
    seed: Natural = 0,
    max_bad: Fraction = 0.5,
    workers: Natural = 0,
    limit: Positive = 1800.0,
    ffmpeg: str = "",
) -> dict[str, int]:
    """Fill `folder` with what `sslflow.data.dataset.Dataset` reads, and with `videos.csv`; the counts.

    `tell` gets lines for the log; `part` is what is taken of the videos. The settings are explained in params.yaml and
    docs/video.md. The clips and their order depend on the videos, the settings and ffmpeg's version, not on `workers`
    (0: as many as cores). `folder` is replaced at the end, or not touched; what has been decoded stays in `cache`.
    Raises `ValueError` where there is no video, no ffmpeg, or more than the share `max_bad` is unusable.
    """
    grid = Grid(float(seconds), fps, side, rate, sound)
    _ = grid.frames, grid.samples  # both raise where they are no whole numbers
    bindings()
    program = find(ffmpeg)
    videos = find_videos(source, path)
    where = source if source.partition(":")[1] else f"{source} {path}"
    tell(f"clips  {len(videos.files)} videos in {where}; ffmpeg {program.version}")
    for line in (*videos.notes, *(f"warning: {caution}" for caution in hardly_differing(videos.classes))):
        tell(line)
    if videos.passed:
        tell(f"passed over, since hidden or made by a system: {told(videos.passed)}")
    found = outcomes(part(videos.files), grid, program, workers or _cores(), limit, cache)
    rejected = [(escape(name), escape(reason)) for name, reason in videos.rejected]
    good = [one for one in found if one.status == OK]
    copies = sum(one.copy for one in found)
    conflicts = _contradictions(found)
    _check(found, rejected, videos.other_files, where, max_bad)
    _split(good, test_fraction, seed)
    if not any(one.split == TRAIN for one in good):
        raise ValueError(f"{where}: all {len(good)} videos that can be used are for testing; there is none to train on")
    for line in _cautions(good, videos.classes, conflicts, copies):
        tell(line)
    with replacing_folder(folder) as temporary:
        form, counts, loudness = _write(temporary, good, grid)
        facts = {"counts": counts, "loudness": loudness, "ffmpeg": program.version}
        write_json(temporary / "dataset.json", {**described(form, videos.classes), **facts})
        empty = [""] * (len(_COLUMNS) - 2)
        rows = [*map(_row, found), *([name, reason, *empty] for name, reason in rejected)]
        write_csv(temporary / "videos.csv", _COLUMNS, sorted(rows, key=lambda row: row[0]))
    cuts = [one.entry.cuts for one in good if one.entry]
    return {
        "videos": len(found) + len(rejected),
        "usable": len(good),
        "unusable": len(found) + len(rejected) - len(good) - copies,
        "copies": copies,
        "label_conflicts": len(conflicts),
        "other_files": videos.other_files,
        "passed_over": sum(one.files for one in videos.passed),
        "classes": len(videos.classes),
        "clips": sum(counts.values()),
        **counts,
        "inaudible": sum(not cut.audible for one in cuts for cut in one.kept),
        "silent": sum(one.silent for one in cuts),
        "holes": sum(one.holes for one in cuts),
    }


def _check(found: Sequence[Outcome], rejected: list[tuple[str, str]], others: int, where: str, max_bad: float) -> None:
    bad = [(escape(one.video.name), escape(one.status)) for one in found if one.status != OK and not one.copy]
    bad += rejected
    good = sum(one.status == OK for one in found)
    if not good and not bad:
        more = f"; it holds {others} other files" if others else ""
        raise ValueError(f"{where}: there are no videos here (.mp4, .mov, .mkv, .webm, .avi, …){more}")
    if good and len(bad) / (good + len(bad)) <= max_bad:
        return
    reasons = Counter(reason.partition(":")[0] for _, reason in bad).most_common(_EXAMPLES)
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons)
    limit = f"more than clips.max_bad = {max_bad:g} allows" if good else "there is nothing to learn from"
    examples = "".join(f"\n  {name}: {reason}" for name, reason in bad[:_EXAMPLES])
    raise ValueError(f"{where}: {len(bad)} of {good + len(bad)} videos can't be used, {limit} ({counted}):{examples}")


def _contradictions(found: Sequence[Outcome]) -> list[str]:
    """Copies that have another label than the file that they equal; that one loses its own, since nobody knows which is
    right."""
    first = {one.sha256: one for one in found if not one.copy}
    pairs = [(first[one.sha256], one) for one in found if one.copy and one.video.label != first[one.sha256].video.label]
    for original, _ in pairs:
        original.video = replace(original.video, label=NO_LABEL)
    return [f"{escape(original.video.name)} and {escape(copy.video.name)}" for original, copy in pairs]


def _cautions(
    good: Sequence[Outcome], classes: tuple[str, ...], conflicts: Sequence[str], copies: int
) -> Iterator[str]:
    """Lines on the labels of the videos that can be used."""
    if conflicts:
        yield (
            f"warning: equal videos with different labels: {shown(conflicts, _EXAMPLES)}; they are used without one; "
            "delete those that are wrong"
        )
    if copies > len(good):
        yield f"warning: most videos are copies of others: {copies:,} are left out, {len(good):,} stay (see videos.csv)"
    if classes:
        counts = counted(classes, (one.video.label for one in good), (one.split or "" for one in good))
        yield f"labelled videos of {summary({name: sum(own.values()) for name, own in counts.items()})}"
        yield from (f"warning: {line}" for line in lacking(counts, tested=True))


def _split(good: Sequence[Outcome], fraction: float, seed: int) -> None:
    """As the source's table says; else a share of the videos (of each label's, where there are labels) is held out."""
    drawn = [one for one in good if one.video.split is None]
    chosen = set(held_out([one.sha256 for one in drawn], [one.video.label for one in drawn], fraction, seed).tolist())
    for number, one in enumerate(drawn):
        one.split = TEST if number in chosen else TRAIN
    for one in good:
        one.split = one.video.split or one.split


def _write(
    folder: Path, good: Sequence[Outcome], grid: Grid
) -> tuple[ClipFormat, dict[str, int], dict[str, float] | None]:
    """The clips of all videos, in order: first those to train on. What holds for all of them, how many each split has,
    and mean and spread of the training clips' loudness, where any can be heard."""
    loudness = []
    fields = {"frames": ("|u1", (grid.frames, 3, grid.side, grid.side)), "sound": ("<i2", (grid.samples,))}
    with ShardWriter(folder, fields, COLUMNS, measured="frames") as writer:
        for number, one in enumerate(sorted(good, key=lambda one: one.split != TRAIN)):
            assert one.entry is not None
            assert one.entry.media is not None
            assert one.split is not None
            media, frames, sound = one.entry.media, one.entry.frames(), one.entry.sound()
            columns = {
                "path": escape(one.video.name),
                "split": one.split,
                "label": one.video.label,
                "group": one.video.source or one.sha256,
                "number": number,
                "duration": media.duration,
                "size": one.size,
                "fps": media.picture.fps if media.picture else 0.0,
                "rate": media.sound.rate if media.sound else 0,
                "sha256": one.sha256,
                **dict(zip(("x0", "y0", "x1", "y1"), one.video.box, strict=True)),
            }
            for row, cut in enumerate(one.entry.cuts.kept):
                own = {"start": cut.start, "audible": cut.audible, "loudness": cut.loudness}
                writer.add({"frames": frames[row], "sound": sound[row]}, columns | own)
                if one.split == TRAIN:
                    loudness += [cut.loudness] * cut.audible
    mean, std = writer.mean_and_std(TRAIN)
    form = ClipFormat(grid.frames, grid.side, grid.fps, grid.rate, grid.seconds, mean, std)
    heard = {"mean": statistics.fmean(loudness), "std": statistics.pstdev(loudness)} if loudness else None
    return form, {split: writer.count(split) for split in (TRAIN, TEST)}, heard


def _row(one: Outcome) -> list[Any]:
    media, cuts = (one.entry.media, one.entry.cuts) if one.entry else (None, None)
    picture, sound = (media.picture, media.sound) if media else (None, None)
    return [
        escape(one.video.name),
        escape(one.status),
        *((len(cuts.kept), cuts.silent, cuts.holes) if cuts else ("", "", "")),
        one.split or "",
        *((media.duration, media.container) if media else ("", "")),
        *((picture.codec, picture.width, picture.height, picture.fps, picture.rotation) if picture else [""] * 5),
        *((sound.codec, sound.rate, sound.layout) if sound else [""] * 3),
        one.sha256,
    ]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
