"""Two domains side by side: who shows what, what training may see of them, and what is true."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from data_fixtures import encoded, fill, in_process, scene, write
from ruamel.yaml import YAML
from sklearn.neighbors import KNeighborsClassifier

from sslflow import paths
from sslflow.adaptation.task import SETTINGS, UNKNOWN, UNLABELLED, Task, open_task, target_answers
from sslflow.data.dataset import Dataset
from sslflow.ingest.domains import default_split, prepare_domains
from sslflow.ingest.images import prepare
from sslflow.settings.params import ParamsError
from sslflow.stages import domains

SMALL: dict[str, Any] = {"image_size": 28, "channels": 1, "workers": 1}
SPLITS = paths.SAMPLES.absolute() / "splits"
DIGITS = SPLITS / "digits.json"
SAMPLE_OF = {
    "digits": ("digits/clean", "item", "label"),
    "emoji-category": ("emoji/noto", "code_point", "category"),
    "emoji-subcategory": ("emoji/noto", "code_point", "subcategory"),
}


def prepared(tmp_path: Path, source: str = "imagefolder", target: str = "imagefolder", **settings: Any):
    """Counts and the folder of domains in `tmp_path/source` and `tmp_path/target`."""
    paths: dict[str, Any] = {f"{domain}_path": str(tmp_path / domain) for domain in ("source", "target")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "examine_all", in_process)
        counts = prepare_domains(tmp_path / "out", print, source=source, target=target, **SMALL | paths | settings)
    return counts, tmp_path / "out"


def classes_of(folder: Path, *names: str, each: int = 3) -> None:
    """A folder for each class, no picture twice."""
    for number, name in enumerate(names):
        fill(folder / name, each, first=100 * number + 1000 * (folder.name == "target"))


def split_file(tmp_path: Path, **changes: Any) -> Path:
    """The digits' split file with other content."""
    file = tmp_path / "split.json"
    file.write_text(json.dumps(json.loads(DIGITS.read_text()) | changes))
    return file


def items(dataset: Dataset, rows: np.ndarray) -> list[str]:
    return [path.partition("/")[2] for path in dataset.column("path", rows)]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clean digits and the photos, prepared."""
    folder = tmp_path_factory.mktemp("digits")
    counts, out = prepared(folder, "samples:digits/clean", "samples:digits/photo")
    assert counts["source_images"] == counts["target_images"] == 1797
    return out


@pytest.fixture(scope="module")
def digit() -> dict[str, str]:
    """What each item is."""
    table = pq.read_table(paths.SAMPLES / "digits/photo.parquet", columns=["item", "label"]).to_pydict()
    return dict(zip(table["item"], table["label"], strict=True))


# The splits that ship


@pytest.mark.parametrize("name", SAMPLE_OF)
def test_a_split_gives_each_domain_half_of_each_class(name: str) -> None:
    sample, item, label = SAMPLE_OF[name]
    table = pq.read_table(paths.SAMPLES / f"{sample}.parquet", columns=[item, label]).to_pydict()
    kind = dict(zip(table[item], table[label], strict=True))
    split = json.loads((SPLITS / f"{name}.json").read_text())
    assert split["label"] == (None if label == "label" else label)
    source, target = split["source"], split["target"]
    assert len({*source, *target}) == len(source) + len(target)
    classes = set(split["settings"]["cda"]["source"])
    assert {*source, *target} == {one for one in kind if kind[one] in classes}
    halves = Counter(kind[one] for one in source), Counter(kind[one] for one in target)
    assert all(0 <= halves[0][one] - halves[1][one] <= 1 for one in classes)
    assert min(halves[1].values()) >= 10
    assert len(classes) == {"digits": 10, "emoji-category": 9, "emoji-subcategory": 30}[name]


@pytest.mark.parametrize("name", SAMPLE_OF)
def test_the_settings_classes(name: str) -> None:
    settings = json.loads((SPLITS / f"{name}.json").read_text())["settings"]
    assert set(settings) == set(SETTINGS) - {"as_is"}
    source, target = ({kind: set(one[domain]) for kind, one in settings.items()} for domain in ("source", "target"))
    every = source["cda"]
    assert every == target["cda"] == source["pda"] == target["oda"]
    assert target["pda"] < every
    assert source["oda"] < every
    shares = {
        0.5: target["pda"],
        0.6: source["oda"],
        0.4: source["opda"] & target["opda"],
        0.3: source["opda"] - target["opda"],
        0.31: target["opda"] - source["opda"],
    }
    for share, chosen in shares.items():
        assert abs(len(chosen) - share * len(every)) <= 1
    assert source["opda"] | target["opda"] == every


def test_which_split_goes_with_which_samples() -> None:
    assert (
        default_split("samples:digits/clean", "samples:digits/photo", "category")
        == paths.SAMPLES / "splits/digits.json"
    )
    emoji = default_split("samples:emoji/noto", "samples:emoji/openmoji", "subcategory")
    assert emoji == paths.SAMPLES / "splits/emoji-subcategory.json"
    assert emoji is not None
    assert emoji.exists()
    for source, target in (("samples:emoji/noto", "samples:digits/clean"), ("imagefolder", "folder")):
        assert default_split(source, target, "category") is None
    assert default_split("samples:fashion", "samples:fashion", "category") is None


def test_photos_are_harder_than_clean_digits_for_who_knows_these_only(digits: Path) -> None:
    task, answers = open_task(digits, "cda", DIGITS), target_answers(digits, "cda", DIGITS)
    clean, photo = (
        one.read(np.arange(len(one)))["images"].flatten(1).numpy() / 255 for one in (task.source, task.target)
    )
    assert items(task.source, task.target_rows) == items(task.target, task.target_rows)
    known = KNeighborsClassifier(5).fit(clean[task.source_rows], task.source_labels)
    within, across = (known.score(images[task.target_rows], answers.labels) for images in (clean, photo))
    assert within > 0.95
    assert 0.3 < across < within - 0.08


# The task


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_task_on_digits(digits: Path, digit: dict[str, str], setting: str) -> None:
    task, answers = open_task(digits, setting, DIGITS), target_answers(digits, setting, DIGITS)
    split = json.loads(DIGITS.read_text())
    lists = split["settings"].get(setting, {"source": list("0123456789"), "target": list("0123456789")})
    assert isinstance(task, Task)
    assert task.classes == tuple(lists["source"])
    shown, seen = items(task.source, task.source_rows), items(task.target, task.target_rows)
    everyone = digit if setting == "as_is" else None
    assert set(shown) == {one for one in everyone or split["source"] if digit[one] in lists["source"]}
    assert set(seen) == {one for one in everyone or split["target"] if digit[one] in lists["target"]}
    assert (len(set(shown)), len(set(seen))) == (len(shown), len(seen))
    assert everyone or not set(shown) & set(seen)
    assert (np.diff(task.source_rows) > 0).all()
    assert (np.diff(task.target_rows) > 0).all()

    assert task.source_labels.dtype == answers.labels.dtype == torch.int64
    assert [task.classes[label] for label in task.source_labels] == [digit[one] for one in shown]
    assert answers.names == [digit[one] for one in seen]
    known = {name: number for number, name in enumerate(task.classes)}
    assert answers.labels.tolist() == [known.get(digit[one], UNKNOWN) for one in seen]
    assert (answers.labels == UNKNOWN).any() == (setting in ("oda", "opda"))


def test_as_is_takes_test_images_too_and_needs_no_split(digits: Path) -> None:
    task = open_task(digits)
    assert task.target_rows.tolist() == list(range(1797))
    assert len(task.source_rows) == 1797
    assert set(task.target.column("split")) == {"train", "test"}


def holds(thing: Any, truth: list[int], seen: dict[int, Any], depth: int = 4) -> list[str]:
    """The ways on which `truth` is found in a thing, its attributes, columns and entries."""
    if depth == 0 or id(thing) in seen or isinstance(thing, (str, bytes, type)) or callable(thing):
        return []
    seen[id(thing)] = thing  # kept alive, or another would have its id
    if isinstance(thing, (np.ndarray, torch.Tensor, pa.ChunkedArray, list, tuple)) and len(thing) == len(truth):
        found = np.asarray(thing)
        return ["here"] if found.ndim == 1 and (found.astype(str) == np.array(truth).astype(str)).all() else []
    if isinstance(thing, pa.Table):
        inside = {name: thing[name] for name in thing.column_names}
    elif isinstance(thing, (list, tuple)):
        inside = dict(enumerate(thing))
    elif type(thing).__module__.startswith("sslflow") or isinstance(thing, dict):
        inside = (
            thing
            if isinstance(thing, dict)
            else {name: getattr(thing, name) for name in dir(thing) if name[:2] != "__"}
        )
    else:
        return []
    return [f"{name}: {way}" for name, one in inside.items() for way in holds(one, truth, seen, depth - 1)]


def test_no_label_of_the_target_is_within_reach(digits: Path) -> None:
    truth = Dataset(digits / "target").labels.tolist()
    assert "labels: here" in holds(Dataset(digits / "target"), truth, {})
    task = open_task(digits)
    assert holds(task.target, truth, {}) == []
    assert set(task.target.labels) == {-1}
    assert task.target.classes == []
    assert not task.target.labelled
    assert (task.source.labels >= 0).all()
    assert torch.equal(
        *(
            read["images"]
            for read in (task.target.read(task.target_rows[:9]), Dataset(digits / "target").read(np.arange(9)))
        )
    )


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    classes_of(tmp_path / "source", "b", "d", "e")
    classes_of(tmp_path / "target", "a", "b", "c", "e", each=2)
    _, out = prepared(tmp_path)
    assert open_task(out).classes == ("b", "d", "e")
    assert open_task(out).source_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    answers = target_answers(out)
    assert answers.labels.tolist() == [UNKNOWN, UNKNOWN, 0, 0, UNKNOWN, UNKNOWN, 2, 2]
    assert answers.names == list("aabbccee")


def test_a_class_without_a_usable_image_is_not_one_of_the_source(tmp_path: Path) -> None:
    classes_of(tmp_path / "source", "a", "c")
    write(tmp_path / "source/b/broken.png", b"no image")
    classes_of(tmp_path / "target", "b", "c", each=1)
    _, out = prepared(tmp_path)
    assert open_task(out).classes == ("a", "c")
    assert open_task(out).source_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert target_answers(out).labels.tolist() == [UNKNOWN, 1]


def test_nothing_in_common_is_all_unknown(tmp_path: Path) -> None:
    classes_of(tmp_path / "source", "a", "b")
    classes_of(tmp_path / "target", "c", "d")
    answers = target_answers(prepared(tmp_path)[1])
    assert answers.labels.tolist() == [UNKNOWN] * 6
    assert answers.names == list("cccddd")


def test_class_folders_to_a_heap_of_ten(tmp_path: Path) -> None:
    classes_of(tmp_path / "source", "a", "b")
    shutil.copy(tmp_path / "source/a/0000.jpg", tmp_path / "source/a/again.jpg")
    heap = fill(tmp_path / "target", 9, first=50)
    shutil.copy(heap[0], tmp_path / "target/again.jpg")
    write(tmp_path / "target/broken.jpg", b"no image")
    counts, out = prepared(tmp_path, target="folder")
    assert (counts["source_images"], counts["source_classes"], counts["source_duplicates"]) == (6, 2, 1)
    assert (counts["target_images"], counts["target_quarantined"], counts["target_duplicates"]) == (10, 1, 1)
    task = open_task(out)
    assert len(task.target_rows) == 10
    assert {"again.jpg", "0050.jpg"} <= set(task.target.column("path"))
    assert "broken.jpg" in (out / "target/quarantine.csv").read_text()
    answers = target_answers(out)
    assert answers.labels.tolist() == [UNLABELLED] * 10
    assert answers.names == [""] * 10
    with pytest.raises(ValueError, match=r"target: no labels, which setting cda needs .* choose as_is"):
        open_task(out, "cda", DIGITS)


# What goes wrong


@pytest.mark.parametrize(
    ("source", "names", "message"),
    [
        ("imagefolder", ["only"], "two classes or more as source, found one class, 'only' in imagefolder"),
        ("folder", ["a", "b"], "two classes or more as source, found no labels in folder"),
        ("imagefolder", [], "expected a folder for each class"),
    ],
)
def test_a_source_must_have_classes(tmp_path: Path, source: str, names: list[str], message: str) -> None:
    (tmp_path / "source").mkdir()
    classes_of(tmp_path / "source", *names)
    classes_of(tmp_path / "target", "a")
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, source)
    assert not (tmp_path / "out").exists()


def test_one_class_is_left_of_a_source(tmp_path: Path) -> None:
    classes_of(tmp_path / "source", "a")
    write(tmp_path / "source/b/broken.png", b"no image")
    classes_of(tmp_path / "target", "a")
    _, out = prepared(tmp_path)
    with pytest.raises(ValueError, match=r"two classes or more, found a; see quarantine.csv"):
        open_task(out)


@pytest.mark.parametrize(
    ("setting", "changes", "message"),
    [
        ("opd", {}, "there is no setting 'opd', did you mean 'opda'"),
        ("cda", {"source": ["1F600"]}, "source: no image of .*source is left"),
        ("cda", {"target": []}, "target: no image of .*target is left"),
        ("cda", {"settings": {"cda": {"source": ["0", "Flags"], "target": ["0"]}}}, "other data: .*has no class Flags"),
        ("cda", {"settings": {"cda": {"source": ["0", "1"], "target": ["Flags"]}}}, "other data: .*has no class Flags"),
        ("cda", {"settings": {"cda": {"source": ["3"], "target": ["3"]}}}, "two classes or more, found 3;"),
        ("cda", {"settings": {}}, "not a split file with setting cda: .* found KeyError: 'cda'"),
        ("pda", {"source": 5}, "not a split file with setting pda: .* found TypeError"),
    ],
)
def test_a_setting_that_cannot_be(
    digits: Path, tmp_path: Path, setting: str, changes: dict[str, Any], message: str
) -> None:
    split = split_file(tmp_path, **changes)
    for function in (open_task, target_answers):
        with pytest.raises(ValueError, match=message):
            function(digits, setting, split)


def test_samples_know_their_split_file_and_own_folders_need_one(digits: Path, tmp_path: Path) -> None:
    assert items_of(open_task(digits, "cda")) == items_of(open_task(digits, "cda", DIGITS))
    for domain in ("source", "target"):
        classes_of(tmp_path / domain, "a", "b")
    _, own = prepared(tmp_path)
    with pytest.raises(ValueError, match="setting cda needs a split file"):
        open_task(own, "cda")


def items_of(task: Task) -> tuple[list[int], list[int]]:
    return task.source_rows.tolist(), task.target_rows.tolist()


def test_files_that_are_not_there(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json: there is no such split file"):
        open_task(digits, "cda", tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="not a split file"):
        open_task(digits, "cda", write(tmp_path / "broken.json", b"{"))
    with pytest.raises(ValueError, match="no prepared domains here; run `dvc repro domains` first"):
        open_task(tmp_path)


# The stage


def test_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    classes_of(tmp_path / "source", "a", "b")
    write(tmp_path / "target/x.png", encoded(scene(seed=7), "PNG"))
    own = {"source": "imagefolder", "source_path": "source", "target": "folder", "target_path": "target"}
    own |= {"image_size": 12, "channels": 3, "fit": "pad", "background": "black", "workers": 1}
    YAML().dump({"domains": {"mine": own}}, Path("params.yaml"))
    domains.main("mine")
    task = open_task(paths.domains("mine"))
    assert task.source.read(task.source_rows)["images"].shape == (6, 3, 12, 12)
    assert task.target.read(task.target_rows)["images"].shape == (1, 3, 12, 12)
    assert task.target.read(task.target_rows)["images"][0, :, 0].sum() == 0  # padded, in black
    metrics = json.loads(paths.metrics("domains", "mine").read_text())
    assert (metrics["source_images"], metrics["target_images"], metrics["target_classes"]) == (6, 1, 0)
    assert "domains mine  target: 1 images, 0 classes; 0 quarantined, 0 duplicates" in capsys.readouterr().out

    YAML().dump({"domains": {"mine": own | {"label": "kind"}}}, Path("params.yaml"))
    with pytest.raises(ParamsError, match=r"domains.mine.label: .*found 'kind'"):
        domains.main("mine")


def test_the_stage_loads_no_torch() -> None:
    code = "import sslflow.stages.domains, sslflow.stages.scan, sys; sys.exit('torch' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
