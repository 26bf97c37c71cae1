"""The shipped videos of instruments: complete, split by source, without tell-tales, and what their script makes."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import imageio_ffmpeg
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT

SAMPLES = ROOT / "data" / "samples"
FOLDER = SAMPLES / "instruments"
SECONDS, FPS, SIDE, RATE = 3.25, 12, 128, 24_000


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return pq.read_table(FOLDER / "videos.parquet").to_pylist()


@pytest.fixture(scope="module")
def script():
    """The modules that build the sample; they stand beside the data, outside the package."""
    sys.path.insert(0, str(SAMPLES))
    try:
        import instruments  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(str(SAMPLES))
    return instruments


def decoded(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames `(n, SIDE, SIDE, 3)` in [0, 1] and sound `(samples,)` in [-1, 1]."""
    start = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-i", str(FOLDER / path)]
    frames, sound = (
        subprocess.run([*start, *rest, "-"], stdout=subprocess.PIPE, check=True, timeout=60).stdout
        for rest in (["-f", "rawvideo", "-pix_fmt", "rgb24"], ["-f", "s16le", "-ac", "1"])
    )
    pictures = np.frombuffer(frames, np.uint8).reshape(-1, SIDE, SIDE, 3) / 255
    return pictures, np.frombuffer(sound, np.int16) / 32768


def test_every_video_is_in_the_table_and_all_are_of_one_size(rows):
    files = {str(file.relative_to(FOLDER)): file.stat().st_size for file in FOLDER.glob("videos/*/*/*")}
    assert set(files) == {row["path"] for row in rows}
    assert len(files) == len(rows) == 486
    assert len(set(files.values())) == 1
    assert sum(files.values()) < 20e6
    assert all(row["path"].startswith(f"videos/{row['split']}/{row['label']}/") for row in rows)
    contents = {(FOLDER / path).read_bytes() for path in files}
    assert len(contents) == len(files)


def test_every_instrument_has_as_many_videos(rows):
    counts = Counter((row["split"], row["label"]) for row in rows)
    labels = {label for _, label in counts}
    assert len(labels) == 9
    assert counts == {(split, label): each for label in labels for split, each in (("train", 44), ("test", 10))}


def test_sources_are_divided_and_each_tested_one_is_of_parts_that_training_knows(rows):
    for label in {row["label"] for row in rows}:
        train, test = ([r for r in rows if (r["label"], r["split"]) == (label, s)] for s in ("train", "test"))
        assert len({r["source"] for r in test}) == 3
        assert not {r["source"] for r in train} & {r["source"] for r in test}
        for row in test:
            assert row["source"] == f"{row['sound']} x {row['picture']}"
            assert any(r["sound"] == row["sound"] for r in train)
            assert any(r["picture"] == row["picture"] for r in train)


def test_the_tested_drawings_are_seen_in_training(script):
    videos = script.plan(script.read_drawings())
    shown = {split: {(v.label, v.artist, v.drawing) for v in videos if v.split == split} for split in ("train", "test")}
    assert shown["test"] < shown["train"]


def test_onsets_are_one_to_four_a_second_for_every_instrument(rows):
    for row in rows:
        onsets = np.array(row["onsets"])
        assert 0 < onsets[0] < 0.61
        assert onsets[-1] < SECONDS - 0.24
        assert np.diff(onsets).min() > 0.249
        assert np.diff(onsets).max() < 0.901
    means = [np.mean([len(r["onsets"]) for r in rows if r["label"] == label]) for label in {r["label"] for r in rows}]
    assert max(means) - min(means) < 1.5


def test_boxes_are_within_the_frame_and_not_where_one_would_guess(rows):
    boxes = np.array([[row[edge] for edge in ("x0", "y0", "x1", "y1")] for row in rows])
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sides.min() > 0.1
    assert sides.max() < 0.7
    middle = np.array([0.5, 0.5])
    holds = np.all((boxes[:, :2] <= middle) & (middle <= boxes[:, 2:]), axis=1)
    assert holds.mean() < 0.7
    half = sides.mean(0) / 2
    guess = np.concatenate([middle - half, middle + half])
    shared = np.prod(
        np.clip(np.minimum(boxes[:, 2:], guess[2:]) - np.maximum(boxes[:, :2], guess[:2]), 0, None), axis=1
    )
    overlap = shared / (np.prod(sides, axis=1) + np.prod(guess[2:] - guess[:2]) - shared)
    assert np.mean(overlap >= 0.5) < 0.3


@pytest.mark.parametrize("number", [0, 100, 485])
def test_pictures_and_sound_come_back_in_full(rows, number):
    row = rows[number]
    frames, sound = decoded(row["path"])
    assert frames.shape == (round(SECONDS * FPS), SIDE, SIDE, 3)
    assert abs(len(sound) - SECONDS * RATE) <= 1024  # one packet of AAC
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.04, rel=0.08)
    # What is in the box changes more where a note begins than elsewhere.
    x0, y0, x1, y1 = (round(SIDE * row[edge]) for edge in ("x0", "y0", "x1", "y1"))
    change = np.abs(np.diff(frames[:, y0:y1, x0:x1], axis=0)).mean((1, 2, 3))
    begins = {int(np.ceil(FPS * onset - 0.5)) - 1 for onset in row["onsets"]}  # the first frame that shows it
    inside = np.array([n in begins for n in range(len(change))])
    assert change[inside].mean() > 2 * change[~inside].mean()


def test_the_table_is_what_the_script_plans(rows, script):
    assert [(video.path, video.source) for video in script.plan(script.read_drawings())] == [
        (row["path"], row["source"]) for row in rows
    ]


def test_the_script_draws_what_the_video_shows(rows, script):
    drawings = script.read_drawings()
    planned = zip(script.plan(drawings), rows, strict=True)
    video, row = next((video, row) for video, row in planned if row["split"] == "test")
    onsets = script.draw_onsets(script.stream(video, "sound"))
    assert onsets == pytest.approx(row["onsets"], abs=1e-4)
    drawing = drawings[video.label][video.artist][video.drawing]
    drawn, box = script.see(video, onsets, drawing, script.read_distractors(SAMPLES / "emoji")["test"])
    assert box == pytest.approx({edge: row[edge] for edge in box})
    frames, _ = decoded(video.path)
    error = np.mean((np.stack(drawn) / 255 - frames) ** 2)
    assert -10 * np.log10(error) > 25  # decibels; H.264 with half the colours takes its share


def test_every_recording_is_as_loud_and_its_noise_is_its_own(script):
    from melody import record  # pyright: ignore[reportMissingImports]

    time = np.arange(round(SECONDS * RATE)) / RATE
    quiet = 0.001 * np.sin(2 * np.pi * 440 * time)
    strokes = np.where(time % 0.5 < 0.01, 1.0, 0.0) * np.sin(2 * np.pi * 2000 * time)
    first, again, other, dry = (
        record(sound, np.random.default_rng(seed)) for sound, seed in ((quiet, 0), (quiet, 0), (quiet, 1), (strokes, 0))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    for sound in (first, other, dry):
        assert np.sqrt(np.mean((sound / 32768) ** 2)) == pytest.approx(0.04, rel=0.01)


def test_licences_lie_beside_the_videos():
    source = (FOLDER / "SOURCE.md").read_text()
    licences = sorted(file.name for file in (FOLDER / "LICENSES").iterdir())
    assert len(licences) == 6
    for name in licences:
        assert f"LICENSES/{name}" in source
        assert len((FOLDER / "LICENSES" / name).read_text()) > 1000
