"""Folders of videos as strangers have them: which labels they give, and what is told of them."""

from __future__ import annotations

import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import av_media
import pytest

from sslflow.data.dataset import Dataset
from sslflow.ingest.videos.prepare import prepare_clips
from sslflow.ingest.videos.sources import find_videos

SMALL: dict[str, Any] = {"fps": 8, "seconds": 2.0, "side": 16, "workers": 1, "max_bad": 1.0}


def folders(root: Path, *names: str, each: int = 2) -> str:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            (root / name / f"{number}.mp4").write_bytes(f"{name} {number}".encode())
    return str(root)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["set/bell", "set/drum"], r"one class only, 'set', whose videos lie in bell, drum; .*set clips\.path to it"),
        (["bell"], r"one class only, 'bell'.*for videos without labels set clips\.source to folder"),
        (["train", "test"], r"found test, train, like the parts of a set; set clips\.path"),
        (["train/bell", "train/drum", "val/bell", "val/drum"], r"such as .*/train; for videos"),
        (["session", "unlabeled/a", "unlabeled/b"], r"found unlabeled"),
    ],
)
def test_labels_that_can_hardly_be_meant_stop(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_videos("folders", folders(tmp_path, *names))
    assert len(find_videos("folder", str(tmp_path)).files) == 2 * len(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["bell", "drum", "unlabeled"], "unlabeled is taken as a class, like bell, drum"),
        (["bell/a", "bell/b", "drum/a", "drum/b"], r"same folders in them \(a, b\)"),
        (["wind/flute", "string/harp"], r"in 2 of 2 class folders videos lie only in further folders"),
    ],
)
def test_labels_that_may_be_meant_are_warned_of(tmp_path: Path, names: list[str], message: str) -> None:
    found = find_videos("folders", folders(tmp_path, *names))
    assert re.search(message, "\n".join(line for line in found.notes if line.startswith("warning: ")))


def test_labels_are_told_with_their_counts(tmp_path: Path) -> None:
    notes = find_videos("folders", folders(tmp_path, "bell", "drum/old")).notes
    assert notes == (f"{tmp_path}: videos in 2 classes: bell 2, drum 2",)


@pytest.mark.parametrize("name", ["café", "한국", "Å"])
def test_one_name_is_one_label(tmp_path: Path, name: str) -> None:
    spelt = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    found = find_videos("folders", folders(tmp_path, *spelt, "bell"))
    assert found.classes == tuple(sorted([spelt[0], "bell"]))
    assert len(found.files) == 6
    assert [file.label for file in found.files].count(found.classes.index(spelt[0])) == 4


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", ".Trash-1000", "lost+found"])
@pytest.mark.parametrize("source", ["folder", "folders"])
def test_what_systems_make_is_passed_over(tmp_path: Path, name: str, source: str) -> None:
    root = folders(tmp_path, "bell", "drum", name, f"bell/{name}/film.mp4")
    (tmp_path / "drum/._0.mp4").touch()
    found = find_videos(source, root)
    assert [file.name for file in found.files] == ["bell/0.mp4", "bell/1.mp4", "drum/0.mp4", "drum/1.mp4"]
    assert sum(one.files for one in found.passed) == 5
    assert (found.rejected, found.other_files) == ([], 0)


def test_contradicting_names_and_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = av_media.make(tmp_path / "plain.mp4")
    for number, name in enumerate(["bell/0", "bell/1", "drum/0", "drum/1", "Drum/0"]):
        file = tmp_path / "raw" / f"{name}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        av_media.ffmpeg("-i", plain, "-c", "copy", "-metadata", f"title={number}", file)
    shutil.copy(tmp_path / "raw/drum/0.mp4", tmp_path / "raw/bell/x.mp4")
    (tmp_path / "raw/harp").mkdir()
    (tmp_path / "raw/harp/0.mp4").write_bytes(b"no video")
    (tmp_path / "raw/@eaDir").mkdir()
    (tmp_path / "raw/@eaDir/bell.jpg").touch()
    lines: list[str] = []
    counts = prepare_clips(Path("out"), lines.append, source="folders", path="raw", **SMALL)
    told = "\n".join(lines)
    assert "warning: equal videos with different labels: bell/x.mp4 and drum/0.mp4; they are used without one" in told
    assert "warning: classes whose names differ by hardly anything are taken as different: 'Drum' and 'drum'" in told
    assert "warning: no example that can be used of the classes harp" in told
    assert "warning: nothing to test on of 2 of 3 classes: Drum, drum" in told
    assert "labelled videos of 4 classes: Drum 1, bell 2, drum 1, harp 0" in told
    assert "passed over, since hidden or made by a system: 1 file: @eaDir 1" in told
    assert (counts["copies"], counts["label_conflicts"], counts["passed_over"], counts["usable"]) == (1, 1, 1, 5)
    clips = Dataset(Path("out"))
    assert {path for path, label in zip(clips.column("path"), clips.labels, strict=True) if label < 0} == {"bell/x.mp4"}


def test_that_most_videos_are_copies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = av_media.make(tmp_path / "plain.mp4")
    (tmp_path / "raw").mkdir()
    for number in range(3):
        shutil.copy(plain, tmp_path / f"raw/{number}.mp4")
    lines: list[str] = []
    prepare_clips(Path("out"), lines.append, source="folder", path="raw", **SMALL)
    assert "warning: most videos are copies of others: 2 are left out, 1 stay (see videos.csv)" in lines
