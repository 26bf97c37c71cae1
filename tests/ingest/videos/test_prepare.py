"""From a folder of videos to clips: every file has its row, nothing is invented, nothing is done twice."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av_media
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.examination.clips.pointing import known_boxes
from sslflow.ingest.listing import write_clips_listing
from sslflow.ingest.videos import cache
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.runtime.files import read_json, write_json
from sslflow.stages import clips
from tests.conftest import ROOT

SMALL = {"fps": 8, "source": "folder", "path": "raw", "seconds": 2.0, "side": 16, "workers": 1, "max_bad": 1.0}
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds, H.264 and AAC, the index at the end."""
    return av_media.make(tmp_path_factory.mktemp("plain") / "plain.mp4")


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for videos, in a project's folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def different(file: Path, plain: Path, seed: int) -> Path:
    """The same streams in a file of other bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    av_media.ffmpeg("-i", plain, "-c", "copy", "-metadata", f"title={seed}", file)
    return file


def prepared(**settings: Any) -> tuple[dict[str, int], Dataset[ClipFormat]]:
    counts = prepare_clips(Path("out"), lambda line: None, **SMALL | settings)
    return counts, Dataset(Path("out"))


def rows(folder: Path = Path("out")) -> dict[str, dict[str, str]]:
    with (folder / "videos.csv").open(encoding="utf-8", newline="") as handle:
        return {row["path"]: row for row in csv.DictReader(handle)}


def statuses(folder: Path = Path("out")) -> dict[str, str]:
    return {name: row["status"] for name, row in rows(folder).items()}


def cut_after(share: float) -> Callable[[bytearray], object]:
    return lambda content: content.__delitem__(slice(round(share * len(content)), None))


def scrambled(content: bytearray) -> None:
    rng = np.random.default_rng(0)
    for place in rng.integers(len(content) // 4, len(content) - 6000, 40):
        content[place : place + 40] = rng.bytes(40)


def corpus(raw: Path, plain: Path) -> dict[str, str]:
    """One file of each kind that is known to go wrong somewhere; what becomes of it."""
    make = av_media.ffmpeg
    silence = ("-f", "lavfi", "-i", "anullsrc=r=48000:cl=mono")
    front = raw / "index first.mp4"
    make("-i", plain, "-c", "copy", "-movflags", "+faststart", front)
    make("-i", plain, "-map", "0:v", "-c", "copy", raw / "no sound.mp4")
    make("-i", plain, "-map", "0:a", "-c", "copy", raw / "no picture.mp4")
    make(
        "-i",
        plain,
        *silence,
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c:v",
        "copy",
        "-c:a",
        "aac",
        "-shortest",
        raw / "silent.mp4",
    )
    av_media.damaged(raw / "cut, index last.mp4", plain, cut_after(0.6))
    av_media.damaged(raw / "cut, index first.mp4", front, cut_after(0.6))
    av_media.damaged(raw / "scrambled.mp4", front, scrambled)
    (raw / "empty.mp4").touch()
    (raw / "text.mp4").write_text("I am no video.\n" * 100)
    make("-i", plain, "-t", "0.3", *H264, "-c:a", "aac", raw / "short.mp4")
    make(
        "-i",
        plain,
        "-t",
        "2.5",
        "-i",
        plain,
        "-map",
        "1:v",
        "-map",
        "0:a",
        "-c:v",
        "copy",
        "-c:a",
        "aac",
        raw / "less sound.mp4",
    )
    make("-display_rotation", "90", "-i", plain, "-c", "copy", raw / "turned.mp4")
    make("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", raw / "cover.png")
    cover = ("-map", "0:a", "-map", "1:v", "-c:a", "copy", "-c:v", "png", "-disposition:v:0", "attached_pic")
    make("-i", plain, "-i", raw / "cover.png", *cover, raw / "cover.mp4")
    make("-i", plain, "-c:v", "copy", "-c:a", "aac", "-ac", "6", raw / "surround.mp4")
    av_media.make(raw / "variable.mkv", times="(N*0.04+0.015*mod(N\\,3))/TB", sound=("-c:a", "libopus"))
    av_media.make(raw / "vp8.webm", picture=("-c:v", "libvpx", "-deadline", "realtime"), sound=("-c:a", "libvorbis"))
    av_media.damaged(raw / "cut.webm", raw / "vp8.webm", cut_after(0.6))
    av_media.shifted(raw / "sound later.mp4", plain, sound=2.5)
    av_media.shifted(raw / "picture later.mkv", plain, picture=1.2)
    (raw / "naïve ☃ %03d").mkdir()
    odd = [
        "-dash.mp4",
        "a%03d.mp4",
        "naïve ☃ %03d/pipe:1.mp4",
        "new\nline.mp4",
        os.fsdecode(b"caf\xe9.mp4"),
        "it's [1].MP4",
    ]
    for number, name in enumerate(odd):
        shutil.copy(different(raw / "x.mkv", plain, number), raw / name)
    (raw / "x.mkv").unlink()
    os.mkfifo(raw / "pipe.mp4")
    (raw / "gone.mp4").symlink_to("nowhere.mp4")
    (raw / "folder.mp4").mkdir()
    shutil.copy(plain, raw / "folder.mp4/within.mov")
    shutil.copy(plain, raw / "zz copy.mov")
    return {
        "index first.mp4": "ok 3",
        "no sound.mp4": "no sound track",
        "no picture.mp4": "no picture: sound only",
        "silent.mp4": "silent",
        "cut, index last.mp4": "cut short",
        "cut, index first.mp4": "cut short",
        "cut.webm": "cut short",
        "scrambled.mp4": "damaged",
        "empty.mp4": "empty file",
        "text.mp4": "not a video of a known kind",
        "short.mp4": "too short: 0.32 s, a clip takes 2 s",
        "less sound.mp4": "ok 1",
        "turned.mp4": "ok 3",
        "cover.mp4": "no picture but a cover",
        "surround.mp4": "ok 3",
        "variable.mkv": "ok 3",
        "vp8.webm": "ok 3",
        "sound later.mp4": "ok 1",
        "picture later.mkv": "ok 2",
        "-dash.mp4": "ok 3",
        "a%03d.mp4": "ok 3",
        "naïve ☃ %03d/pipe:1.mp4": "ok 3",
        "new\\nline.mp4": "ok 3",
        "caf\\xe9.mp4": "ok 3",
        "it's [1].MP4": "ok 3",
        "pipe.mp4": "not a regular file",
        "gone.mp4": "not there",
        "folder.mp4": "a folder, not a file",
        "zz copy.mov": "ok 3",
        "folder.mp4/within.mov": "a copy of zz copy.mov",
    }


def test_every_file_has_its_row_and_its_reason(raw: Path, plain: Path) -> None:
    expected = corpus(raw, plain)
    counts, found = prepared(workers=3)
    table = rows()
    assert set(table) == set(expected)
    for name, status in expected.items():
        wanted, _, clips = status.partition(" ") if status.startswith("ok") else (status, "", "")
        assert table[name]["status"].startswith(wanted), f"{name}: {table[name]['status']}"
        assert (table[name]["clips"] or "0") == (clips or "0"), f"{name}: {table[name]}"
    assert counts["usable"] == sum(status.startswith("ok") for status in expected.values())
    assert counts["videos"] == counts["usable"] + counts["unusable"] + counts["copies"] == len(expected)
    assert counts["other_files"] == 1  # the cover
    assert counts["clips"] == len(found) == sum(int(row["clips"] or 0) for row in table.values())
    assert table["surround.mp4"]["layout"] == "5.1"
    assert set(found.column("path")) == {name for name, status in expected.items() if status.startswith("ok")}

    read = found.read(np.arange(len(found)))
    assert read["frames"].shape == (len(found), 16, 3, 16, 16)
    assert read["sound"].shape == (len(found), 32_000)
    assert (found.column("loudness") > -60).all()
    assert found.column("audible").all()
    # The same content under another name is read alike, to the bit.
    of = {name: np.flatnonzero(found.column("path") == name) for name in ("-dash.mp4", "a%03d.mp4")}
    one, other = (found.read(numbers) for numbers in of.values())
    assert (one["frames"] == other["frames"]).all()
    assert (one["sound"] == other["sound"]).all()
    assert len(np.unique(read["frames"][:, 0].flatten(1).numpy(), axis=0)) > 4


def test_without_sound_where_it_is_optional(raw: Path, plain: Path) -> None:
    av_media.ffmpeg("-i", plain, "-map", "0:v", "-c", "copy", raw / "mute.mp4")
    shutil.copy(plain, raw / "heard.mp4")
    counts, found = prepared(sound="optional", test_fraction=0.0)
    assert set(statuses().values()) == {"ok"}
    assert counts["clips"] == 6
    mute = found.column("path") == "mute.mp4"
    np.testing.assert_array_equal(found.column("audible"), ~mute)
    assert not found.read(np.flatnonzero(mute))["sound"].any()
    assert found.read(np.flatnonzero(~mute))["sound"].any()
    assert counts["inaudible"] == 3


def test_copies_never_lie_in_both_splits_and_nor_does_a_source(raw: Path, plain: Path) -> None:
    for number in range(10):
        different(raw / f"{number % 2}" / f"{number}.mp4", plain, number)
    for number in range(10):
        shutil.copy(raw / f"{number % 2}/{number}.mp4", raw / f"copy {number}.mp4")
    counts, found = prepared(test_fraction=0.3)
    assert (counts["usable"], counts["copies"], counts["train"], counts["test"]) == (10, 10, 21, 9)
    for numbers in (found.column("number"), found.groups):
        assert not set(numbers[found.rows("train")]) & set(numbers[found.rows("test")])
        assert len(set(numbers)) == 10
    assert found.column("split").tolist() == ["train"] * 21 + ["test"] * 9
    np.testing.assert_array_equal(found.pretraining_rows, np.arange(21))
    assert not found.labelled
    assert np.isnan(known_boxes(found, np.arange(30))).all()
    again = prepared(test_fraction=0.3, seed=1)[1]
    assert set(again.column("path")[21:]) != set(found.column("path")[21:])

    for file in raw.glob("copy*"):
        file.unlink()
    counts, found = prepared(source="folders", test_fraction=0.4)
    assert found.classes == ["0", "1"]
    assert found.labelled
    np.testing.assert_array_equal(found.labels, [int(path[0]) for path in found.column("path")])
    assert np.bincount(found.labels[found.rows("test")]).tolist() == [6, 6]  # of each label its share
    shutil.copy(plain, raw / "loose.mp4")
    prepared(source="folders")
    assert statuses()["loose.mp4"] == "not in a folder that is a label"


def test_what_clips_are_made_of(raw: Path, plain: Path) -> None:
    shutil.copy(plain, raw)
    _, found = prepared(fps=4, test_fraction=0.0)
    facts = read_json(Path("out/dataset.json"))
    assert facts["counts"] == {"train": 3, "test": 0}
    read = found.read(found.pretraining_rows)
    shares = read["frames"].double() / 255
    np.testing.assert_allclose(found.format.mean, shares.mean((0, 1, 3, 4)).numpy(), atol=1e-9)
    np.testing.assert_allclose(found.format.std, shares.std((0, 1, 3, 4), correction=0).numpy(), atol=1e-9)
    loudness = 10 * (read["sound"].double() / 32768).square().mean(1).log10().numpy()
    np.testing.assert_allclose(found.column("loudness"), loudness, atol=1e-4)
    assert facts["loudness"]["mean"] == pytest.approx(float(loudness.mean()), abs=1e-4)
    (number, start, *rest) = (found.column(name).tolist() for name in ("number", "start", "fps", "rate", "size"))
    assert (number, start) == ([0] * 3, [0.0, 2.0, 4.0])
    assert rest == [[25.0] * 3, [48_000] * 3, [plain.stat().st_size] * 3]
    clicks = [
        av_media.click_times(sound, 16_000) + begin for sound, begin in zip(read["sound"].numpy(), start, strict=True)
    ]
    np.testing.assert_allclose(np.concatenate(clicks), av_media.CLICKS, atol=0.001)


def test_shards_of_several_videos(raw: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        different(raw / f"{number}.mp4", plain, number)
    _, whole = prepared(test_fraction=0.0)
    expected = whole.read(np.arange(9))
    frames, sound = expected["frames"].numpy().copy(), expected["sound"].numpy().copy()
    monkeypatch.setattr("sslflow.ingest.shards.SHARD_BYTES", 4 * sound[0].nbytes)  # a clip's sound is larger here
    _, parts = prepared(test_fraction=0.0)
    assert sorted(file.name for file in Path("out").glob("*.npy")) == [
        f"{kind}-0000{n}.npy" for kind in ("frames", "sound") for n in range(3)
    ]
    order = np.array([8, 0, 4, 3, 4])
    read = parts.read(order)
    np.testing.assert_array_equal(read["frames"], frames[order])
    np.testing.assert_array_equal(read["sound"], sound[order])
    np.testing.assert_array_equal(read["groups"], parts.groups[order])


def test_the_result_does_not_depend_on_the_workers(raw: Path, plain: Path) -> None:
    for number in range(4):
        different(raw / f"{number}.mp4", plain, number)
    prepared()
    first = {file.name: file.read_bytes() for file in Path("out").iterdir()}
    shutil.rmtree(paths.CLIPS_CACHE)
    prepared(workers=4)
    assert {file.name: file.read_bytes() for file in Path("out").iterdir()} == first


def test_an_added_video_costs_only_itself(raw: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make = cache._make

    def noted(folder: Path, file: Path, *rest: Any) -> cache.Entry:
        made.append(file.name)
        return make(folder, file, *rest)

    monkeypatch.setattr(cache, "_make", noted)
    different(raw / "a.mp4", plain, 0)
    (raw / "bad.mp4").write_text("no video")
    prepared()
    assert sorted(made) == ["a.mp4", "bad.mp4"]
    made.clear()
    different(raw / "b.mp4", plain, 1)
    (raw / "a.mp4").rename(raw / "c.mp4")
    prepared(test_fraction=0.0)
    assert made == ["b.mp4"]
    made.clear()
    prepared(fps=4)
    assert sorted(made) == ["b.mp4", "bad.mp4", "c.mp4"]  # another form, other clips
    made.clear()
    (broken,) = [file for file in paths.CLIPS_CACHE.glob("*/*/frames.npy") if np.load(file).shape[1] == 8][:1]
    broken.write_bytes(broken.read_bytes()[:-1])
    prepared(fps=4)
    assert len(made) == 1
    made.clear()
    monkeypatch.setattr(cache, "_CODE", "other code")
    prepared()
    assert len(made) == 3


def test_a_file_that_changes_is_read_anew(raw: Path, plain: Path) -> None:
    file = different(raw / "a.mp4", plain, 0)
    different(raw / "b.mp4", plain, 1)
    prepared()
    before = rows()["a.mp4"]["sha256"]
    different(file, plain, 2)
    prepared()
    assert (later := rows()["a.mp4"]["sha256"]) != before
    facts = file.stat()
    with file.open("r+b") as handle:
        handle.seek(-1, os.SEEK_END)
        handle.write(b"\x01")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    prepared()
    assert rows()["a.mp4"]["sha256"] != later, "another content of the same size and time"
    assert rows()["b.mp4"]["status"] == "ok"


def settings_file(**settings: Any) -> None:
    with Path("params.yaml").open("w") as handle:
        YAML(typ="safe").dump({"clips": {"mine": SMALL | settings}}, handle)


def started() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "sslflow.stages.clips", "mine"], env=environment, start_new_session=True
    )


def entries() -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in paths.CLIPS_CACHE.glob("*/*/facts.json")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_goes_on(raw: Path, plain: Path, how: signal.Signals) -> None:
    for number in range(2):
        different(raw / f"{number}.mp4", plain, number)
    # Long enough to be at it when the end comes.
    av_media.ffmpeg("-stream_loop", "999", "-i", plain, "-c", "copy", raw / "2 long.mp4")
    settings_file(workers=1)
    process = started()
    deadline = time.monotonic() + 60
    while len(entries()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    before = entries()
    assert len(before) == 2
    below: list[psutil.Process] = []
    while not below and time.monotonic() < deadline:
        below = [child for child in psutil.Process(process.pid).children() if "2 long.mp4" in " ".join(child.cmdline())]
    assert below
    os.kill(process.pid, how)
    assert process.wait(120) == (130 if how == signal.SIGINT else -how)
    assert not psutil.wait_procs(below, timeout=60)[1], "ffmpeg runs on"
    assert not paths.clips("mine").exists()
    if how == signal.SIGINT:
        assert not list(paths.CLIPS_CACHE.glob("*/.*.tmp"))
    (raw / "2 long.mp4").unlink()
    clips.main("mine")
    assert entries() == before
    assert len(Dataset(paths.clips("mine"))) == 6


def table(folder: Path, **changes: Any) -> None:
    columns = {
        "path": [
            "videos/train/bell/a.mp4",
            "videos/train/drum/b.mp4",
            "videos/test/bell/c.mp4",
            "videos/test/drum/d.mp4",
        ],
        "split": ["train", "train", "test", "test"],
        "label": ["bell", "drum", "bell", "drum"],
        "source": ["bell 1", "drum 1", "bell 2", "drum 2"],
        **{edge: [share] * 4 for edge, share in zip(("x0", "y0", "x1", "y1"), (0.1, 0.2, 0.5, 0.75), strict=True)},
        "onsets": [[0.5, 1.5]] * 4,
    }
    pq.write_table(pa.table(columns | changes), folder / "videos.parquet")


def test_a_sample_with_a_table(raw: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = raw.parent / "samples/bells"
    monkeypatch.setattr(paths, "SAMPLES", samples.parent)
    for number, name in enumerate(["train/bell/a", "train/drum/b", "test/bell/c", "test/drum/d"]):
        different(samples / f"videos/{name}.mp4", plain, number)
    table(samples)
    counts, found = prepared(source="samples:bells")
    assert (counts["train"], counts["test"], counts["classes"]) == (6, 6, 2)
    assert found.classes == ["bell", "drum"]
    assert found.labelled
    assert [found.classes[label] for label in found.labels] == [path.split("/")[2] for path in found.column("path")]
    assert [path.split("/")[1] for path in found.column("path")] == found.column("split").tolist()
    np.testing.assert_array_equal(known_boxes(found, np.arange(12)), np.array([[0.1, 0.2, 0.5, 0.75]] * 12, np.float32))
    assert found.column("group").tolist()[:3] == ["bell 1"] * 3

    table(samples, source=["bell 1", "drum 1", "bell 1", "drum 2"])
    with pytest.raises(ValueError, match="the source 'bell 1' is in both splits"):
        prepared(source="samples:bells")
    table(samples, path=["../a.mp4", "b", "c", "d"])
    with pytest.raises(ValueError, match=r"\.\./a\.mp4: a path that leads out"):
        prepared(source="samples:bells")
    table(samples, split=["train", "train", "test", "pool"])
    with pytest.raises(ValueError, match="expected the split train or test, found 'pool'"):
        prepared(source="samples:bells")
    pq.write_table(pa.table({"path": ["a"]}), samples / "videos.parquet")
    with pytest.raises(ValueError, match="expected a column split"):
        prepared(source="samples:bells")
    with pytest.raises(ValueError, match="no sample of videos 'bels', did you mean 'bells'"):
        prepared(source="samples:bels")


def test_what_stops_a_run(raw: Path, plain: Path) -> None:
    (raw / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"folder raw: there are no videos here \(\.mp4, .*\); it holds 1 other files"):
        prepared()
    (raw / "bad.mp4").write_text("no video")
    with pytest.raises(
        ValueError, match=r"1 of 1 videos can't be used, there is nothing to learn from \(1 not a video"
    ):
        prepared()
    shutil.copy(plain, raw)
    with pytest.raises(ValueError, match=r"1 of 2 videos can't be used, more than clips\.max_bad = 0\.4 allows"):
        prepared(max_bad=0.4)
    assert not Path("out").exists()
    prepared(max_bad=0.5)
    before = {file: file.stat().st_mtime_ns for file in Path("out").iterdir()}
    with pytest.raises(ValueError, match=r"clips: 1\.3 s of 8 frames a second are 10\.4; choose numbers"):
        prepared(seconds=1.3)
    with pytest.raises(ValueError, match="there is no source 'foldr', did you mean 'folder'"):
        prepared(source="foldr")
    with pytest.raises(
        ValueError, match=r"nowhere: there is no such folder \(source folder looks there; set clips\.path"
    ):
        prepared(path="nowhere")
    assert {file: file.stat().st_mtime_ns for file in Path("out").iterdir()} == before
    with pytest.raises(ValueError, match="elsewhere: nothing prepared here; run `dvc repro"):
        Dataset(Path("elsewhere"))


def test_what_took_too_long_is_tried_again(raw: Path, plain: Path) -> None:
    shutil.copy(plain, raw / "a.mp4")
    with pytest.raises(ValueError, match="too slow"):
        prepared(limit=1e-3)
    assert prepared()[0]["usable"] == 1


def test_that_it_took_too_long_is_not_kept_by_a_run_that_was_killed(raw: Path, plain: Path) -> None:
    shutil.copy(plain, raw / "a.mp4")
    prepared()
    (facts,) = paths.CLIPS_CACHE.glob("*/*/facts.json")
    slow = {**read_json(facts), "status": "too slow: decoding took longer than 1 s", "cuts": []}
    shutil.rmtree(facts.parent)
    write_json(facts, slow)
    assert prepared()[0]["usable"] == 1


def test_the_stage(raw: Path, plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        different(raw / f"{number}.mp4", plain, number)
    (raw / "bad.mp4").touch()
    settings_file()
    clips.main("mine")
    assert len(Dataset(paths.clips("mine"))) == 6
    metrics = read_json(paths.metrics("clips", "mine"))
    assert (metrics["clips"], metrics["test"], metrics["usable"], metrics["unusable"]) == (6, 3, 2, 1)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("clips  3 videos in folder raw; ffmpeg ")
    assert printed[-1].startswith(
        "clips mine  6 clips (3 train, 3 test) of 2 videos, 1 unusable, 0 copies; 0 clips silent, 0"
    )
    assert "warning: there is no video to test on" not in "".join(printed)
    settings_file(test_fraction=0.0)
    clips.main("mine")
    assert "warning: there is no video to test on" in capsys.readouterr().out


def test_the_list_of_raw_files(raw: Path) -> None:
    assert write_clips_listing(Path("clips.csv"), source="samples:instruments", path="nowhere") == 0
    (raw / "a.mp4").touch()
    assert write_clips_listing(Path("clips.csv"), source="folders", path="raw") == 2
    assert Path("clips.csv").read_text().splitlines()[2].startswith("path,a.mp4,0,")
    with pytest.raises(ValueError, match=r"nowhere: there is no such folder .* set clips\.path"):
        write_clips_listing(Path("clips.csv"), source="folder", path="nowhere")
