from __future__ import annotations

import csv
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from data_fixtures import bomb, encoded, fill, scene, write

from sslflow.data.dataset import Dataset
from sslflow.ingest import shards
from sslflow.ingest.images import book
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.records import escape, unescape
from sslflow.reporting import origin
from sslflow.runtime.files import read_json
from tests.conftest import ROOT

SMALL: dict[str, Any] = {"image_size": 16, "channels": 3, "workers": 1}


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def prepared(tmp_path, source="folder", path=None, *, out="out", lines=None, **settings: Any):
    lines = [] if lines is None else lines
    counts = prepare(
        tmp_path / out, lines.append, source=source, path=str(path or tmp_path / "raw"), **SMALL | settings
    )
    return counts, Dataset(tmp_path / out)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        os.fsdecode(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()
    }


def bad_and_good(raw: Path) -> dict[str, str]:
    """A folder as people have them; the bad names and what must be said of them."""
    fill(raw, 12)
    write(raw / "two words.png", encoded(scene(seed=101), "PNG"))
    write(raw / "new\nline.png", encoded(scene(seed=102), "PNG"))
    write(raw / "صورة/图.webp", encoded(scene(seed=103), "WEBP"))
    write(raw / os.fsdecode(b"caf\xe9.png"), encoded(scene(seed=104), "PNG"))
    write(raw / "notes.txt", b"not one")
    bad = {
        "cut\n.jpg": (encoded(scene(300, 300), "JPEG")[:-900], "damaged: "),
        "空.png": (b"", "empty file"),
        "text.jpg": (b"hello", "not an image"),
        os.fsdecode(b"bomb\xff.png"): (bomb(), "too large"),
    }
    for name, (content, _) in bad.items():
        write(raw / "bad" / name, content)
    return {f"bad/{name}": reason for name, (_, reason) in bad.items()}


def test_a_folder_as_people_have_them(tmp_path):
    raw = tmp_path / "raw"
    bad = bad_and_good(raw)
    before = snapshot(raw)
    counts, dataset = prepared(tmp_path)
    assert counts == {
        "images": 16,
        "pool": 16,
        "train": 0,
        "test": 0,
        "classes": 0,
        "quarantined": 4,
        "duplicates": 0,
        "leaked": 0,
        "label_conflicts": 0,
        "other_files": 1,
        "left_out": 0,
        "thinned": 0,
        "passed_over": 0,
    }
    listed = {unescape(row["path"]): row["reason"] for row in table(dataset.folder / "quarantine.csv")}
    assert listed.keys() == bad.keys()
    assert all(listed[name].startswith(reason) for name, reason in bad.items())
    assert snapshot(raw) == before
    read = {"fit": "crop", "background": "white", "sixteen_bit": "full"}
    assert read_json(dataset.folder / "dataset.json")["read"] == read
    assert not dataset.labelled
    assert all((raw / unescape(path)).exists() for path in dataset.column("path"))
    assert dataset.column("group").tolist() == dataset.column("path").tolist()
    assert len((dataset.folder / "quarantine.csv").read_bytes().splitlines()) == 5  # a name never breaks a line
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "raw"]


def test_the_samples_come_back_bit_for_bit(tmp_path, fashion):
    counts, dataset = prepared(tmp_path, "samples:fashion", image_size=28, channels=1, workers=2)
    assert (counts["train"], counts["test"], counts["classes"]) == (12000, 2000, 10)
    rows = dataset.rows("train")[:512]
    assert (dataset.read(rows)["images"].numpy() == fashion[0]).all()
    assert (dataset.labels[rows] == fashion[1]).all()
    images = dataset.read(dataset.pretraining_rows)["images"].numpy() / 255
    assert dataset.format.mean == pytest.approx([images.mean()], abs=1e-12)
    assert dataset.format.std == pytest.approx([images.std()], abs=1e-12)


def test_emoji_in_colour(tmp_path):
    counts, dataset = prepared(tmp_path, "samples:emoji/noto", image_size=24, label="subcategory")
    assert (counts["train"], counts["test"], counts["classes"]) == (1477, 371, 99)
    assert counts["quarantined"] == counts["leaked"] == 0
    assert dataset.labelled
    assert len(dataset.format.mean) == len(dataset.format.std) == 3
    assert all(path == f"noto/{group}" for path, group in zip(*map(dataset.column, ("path", "group")), strict=True))


def test_the_same_whatever_the_number_of_workers(tmp_path, monkeypatch):
    bad_and_good(tmp_path / "raw")
    fill(tmp_path / "raw/more", 150, first=200)
    monkeypatch.setattr(book, "_TASK_IMAGES", 7)
    for workers in (1, 3):
        prepared(tmp_path, out=f"out{workers}", workers=workers)
    one, three = ({file.name: file.read_bytes() for file in (tmp_path / out).iterdir()} for out in ("out1", "out3"))
    assert one == three


def test_shards_are_bounded_and_the_last_is_shorter(tmp_path, monkeypatch):
    fill(tmp_path / "raw", 25)
    monkeypatch.setattr(shards, "SHARD_BYTES", 10 * 3 * 16 * 16)
    _, dataset = prepared(tmp_path)
    sizes = [len(np.load(file)) for file in sorted(dataset.folder.glob("images-*.npy"))]
    assert sizes == [10, 10, 5]
    _, whole = prepared(tmp_path, out="again")
    rows = np.arange(25)
    assert torch.equal(dataset.read(rows)["images"], whole.read(rows)["images"])


def split_folder(raw: Path) -> None:
    """3 + 3 images to train on, 2 to test on; one of each part repeats a test image."""
    fill(raw / "train/a", 3)
    fill(raw / "train/b", 3, first=10)
    fill(raw / "test/a", 2, first=20)
    image = scene(seed=20)
    write(raw / "train/b/copy.jpg", encoded(image, "JPEG"))  # the same bytes as test/a/0020.jpg
    write(raw / "test/a/copy.jpg", encoded(image, "JPEG"))
    write(raw / "train/a/one.png", encoded(scene(seed=50), "PNG"))
    write(raw / "train/b/one.bmp", encoded(scene(seed=50), "BMP"))  # the same pixels, another label


def test_duplicates_and_leakage_are_dropped(tmp_path):
    split_folder(tmp_path / "raw")
    lines = []
    counts, dataset = prepared(tmp_path, "imagefolder", lines=lines)
    assert (counts["train"], counts["test"]) == (7, 2)
    assert (counts["duplicates"], counts["leaked"], counts["label_conflicts"]) == (3, 1, 2)
    assert [line for line in lines if "leakage: 1 image" in line]
    listed = {row["path"]: row for row in table(dataset.folder / "duplicates.csv")}
    assert listed["train/b/copy.jpg"] == {
        "path": "train/b/copy.jpg",
        "split": "train",
        "fate": "dropped",
        "first_path": "test/a/0020.jpg",
        "first_split": "test",
        "same": "bytes",
        "leak": "yes",
        "label": "b",
        "first_label": "a",
    }
    assert listed["test/a/copy.jpg"]["leak"] == "no"
    assert (listed["train/b/one.bmp"]["first_path"], listed["train/b/one.bmp"]["same"]) == ("train/a/one.png", "pixels")
    pixels = dataset.column("pixels").tolist()
    assert len(set(pixels)) == len(pixels)


def test_duplicates_may_be_kept_but_are_told(tmp_path):
    split_folder(tmp_path / "raw")
    lines = []
    counts, _ = prepared(tmp_path, "imagefolder", duplicates="keep", lines=lines)
    assert (counts["train"], counts["test"], counts["leaked"], counts["duplicates"]) == (9, 3, 1, 3)
    assert [line for line in lines if line.startswith("warning: leakage") and "kept" in line]


def test_a_probe_set_within_the_pool(tmp_path):
    """What is trained on may be in the pool; what is tested on may not."""
    fill(tmp_path / "raw", 20)
    for split, numbers in (("train", range(4)), ("test", range(4, 7))):
        for number in numbers:
            write(tmp_path / "probe" / split / f"{number % 2}" / f"{number}.jpg", encoded(scene(seed=number), "JPEG"))
    counts, dataset = prepared(tmp_path, probe_source="imagefolder", probe_path=str(tmp_path / "probe"))
    assert (counts["pool"], counts["train"], counts["test"], counts["leaked"]) == (17, 4, 3, 3)
    assert dataset.classes == ["0", "1"]
    assert len(dataset.pretraining_rows) == 17
    assert origin.count(dataset) == 20, "the four to train on are in the pool as well"
    assert Counter(dataset.column("split")[dataset.labels >= 0]) == {"train": 4, "test": 3}


def test_nothing_to_work_with(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    with pytest.raises(ValueError, match="there are no images here"):
        prepared(tmp_path)
    write(raw / "notes.txt", b"x")
    with pytest.raises(ValueError, match="1 other files"):
        prepared(tmp_path)
    for number in range(3):
        write(raw / f"{number}.jpg", b"")
    with pytest.raises(ValueError, match=r"3 of 3 images can't be used, there is nothing to prepare \(3 empty file\)"):
        prepared(tmp_path, max_bad=1.0)
    fill(raw, 2, first=10)
    with pytest.raises(ValueError, match=r"3 of 5 .* data.max_bad = 0.5 allows .*\n  0.jpg: empty file"):
        prepared(tmp_path)
    assert prepared(tmp_path, max_bad=0.6)[0]["quarantined"] == 3
    with pytest.raises(ValueError, match="there is no such folder"):
        prepared(tmp_path, path=tmp_path / "elsewhere")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "raw"]


def test_a_failed_run_leaves_the_former_result(tmp_path):
    fill(tmp_path / "raw", 3)
    prepared(tmp_path)
    before = snapshot(tmp_path / "out")
    (tmp_path / "raw").rename(tmp_path / "gone")
    (tmp_path / "raw").mkdir()
    with pytest.raises(ValueError, match="no images"):
        prepared(tmp_path)
    assert snapshot(tmp_path / "out") == before
    fill(tmp_path / "raw", 5)
    assert prepared(tmp_path)[0]["images"] == 5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["gone", "out", "raw"]


def test_what_a_killed_run_left_is_removed_and_a_living_one_is_not_disturbed(tmp_path):
    fill(tmp_path / "raw", 2)
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    host = socket.gethostname()
    (tmp_path / f".out.{host}.{done.pid}.tmp").mkdir()
    (tmp_path / f".out.{host}.{os.getppid()}.tmp").mkdir()
    prepared(tmp_path)
    assert sorted(file.name for file in tmp_path.glob(".*")) == [f".out.{host}.{os.getppid()}.tmp"]


RUN = """
import sys
from pathlib import Path
from typing import Any
from sslflow.ingest.images.prepare import prepare

if __name__ == "__main__":
    print("ready", flush=True)
    try:
        raw, out = sys.argv[1] + "/raw", Path(sys.argv[1]) / "out"
        prepare(out, print, source="folder", path=raw, image_size=64, channels=3, workers=2)
    except (ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__} {getattr(error, 'errno', '')}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
"""


def start(tmp_path, **options) -> subprocess.Popen[str]:
    write(tmp_path / "run.py", RUN.encode())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        **options,
    )


def slow_folder(tmp_path) -> None:
    """So much work that what comes in between comes in between: large images, by links to one file."""
    large = write(tmp_path / "large.png", encoded(scene(3000, 3000), "PNG", compress_level=1))
    (tmp_path / "raw").mkdir()
    for number in range(400):
        (tmp_path / f"raw/{number:03d}.png").symlink_to(large)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        if len(found) == 2 and all(one.cpu_times().user > 0.5 for one in found):
            return found
        time.sleep(0.05)
    raise AssertionError("no workers came up")


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=120)
    assert not alive


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path):
    fill(tmp_path / "raw", 120)
    process = start(
        tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.startswith(f"OSError {errno.EFBIG}")
    assert not [file for file in tmp_path.iterdir() if "out" in file.name]


def test_a_killed_worker_is_an_error(tmp_path):
    slow_folder(tmp_path)
    process = start(tmp_path)
    workers = workers_of(process)
    workers[0].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "a worker process was killed" in errors
    assert "000.png" in errors
    assert_gone(workers)
    assert not [file for file in tmp_path.iterdir() if "out" in file.name]


@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_ends_everything(tmp_path, whole_group):
    slow_folder(tmp_path)
    process = start(tmp_path)
    workers = workers_of(process)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert time.monotonic() - began < 60
    assert_gone(workers)
    assert not [file for file in tmp_path.iterdir() if "out" in file.name]


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    slow_folder(tmp_path)
    process = start(tmp_path)
    workers = workers_of(process)
    process.kill()
    process.communicate(timeout=120)
    assert_gone(workers)


def test_the_stage_reports_wrong_settings_without_a_traceback(tmp_path):
    write(tmp_path / "params.yaml", b"data: {source: folder, image_siz: 32, channels: 2, fit: squeeze, max_bad: 2}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "sslflow.stages.prepare"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for part in ("did you mean 'image_size'", "data.channels", "data.fit", "data.max_bad", "data.image_size: missing"):
        assert part in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["params.yaml", "work"], "its log, and no data"


def test_escaped_names_are_what_the_manifest_holds(tmp_path):
    name = "a\\b\n图.png"
    write(tmp_path / "raw" / name, encoded(scene(), "PNG"))
    assert prepared(tmp_path)[1].column("path").tolist() == [escape(name)]


def test_no_images_are_a_data_set_of_none(tmp_path: Path) -> None:
    counts = prepare(tmp_path / "prepared", lambda line: None, source="none", image_size=8, channels=3)
    assert set(counts.values()) == {0}
    found = Dataset(tmp_path / "prepared")
    assert len(found) == len(found.labels) == len(found.pretraining_rows) == 0
    assert not found.labelled
