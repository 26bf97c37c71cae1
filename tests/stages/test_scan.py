"""The list of raw files: it changes when the images do, and nothing in a folder stops it."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import encoded, fill, scene, write
from ruamel.yaml import YAML

from sslflow import paths
from sslflow.ingest.images.sources import open_source
from sslflow.ingest.listing import write_domains_listing, write_listing
from sslflow.ingest.records import unescape
from sslflow.networks.starts import BUILT_IN, Start, is_name, known_by, read_start
from sslflow.runtime.files import sha256
from sslflow.stages import scan
from tests.conftest import ROOT

HEADER = "setting,path,size,mtime_ns\n"
PNG = encoded(scene(8, 8), "PNG")


def listed(root: Path, source: str = "folder", **settings: str) -> str:
    file = root.parent / "listing.csv"
    rows = write_listing(file, source=source, path=str(root), **settings)
    text = file.read_text(encoding="utf-8")
    assert text.count("\n") == rows + 1
    assert text.startswith(HEADER)
    return text


def rows(text: str) -> dict[str, tuple[str, str]]:
    return {path: (size, time) for _, path, size, time in list(csv.reader(text.splitlines()))[1:]}


def write_params(
    weights: str = "", split: str = "", starts: dict[str, dict[str, Any]] | None = None, **domains: str
) -> None:
    data = {"source": "folder", "path": "raw", "image_size": 8, "channels": 1}
    sets = {"mine": {**domains, "image_size": 8, "channels": 1}} if domains else {}
    adapt = {"weights": weights, "split": split}
    content = {"data": data, "domains": sets, "clips": {}, "adapt": adapt, "starts": starts or {}}
    YAML().dump(content, Path("params.yaml"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "raw/a", 3)
    fill(tmp_path / "raw/b", 2, first=10)
    return tmp_path / "raw"


def test_it_is_the_same_as_long_as_the_files_are(root: Path) -> None:
    before = listed(root)
    assert list(rows(before)) == ["", "a/", "a/0000.jpg", "a/0001.jpg", "a/0002.jpg", "b/", "b/0010.jpg", "b/0011.jpg"]
    facts = (root / "a/0000.jpg").stat()
    assert rows(before)["a/0000.jpg"] == (str(facts.st_size), str(facts.st_mtime_ns))
    write(root / ".hidden/x.png", PNG)
    write(root / "a/.x.png", PNG)
    shutil.copytree(root, root.parent / "copy", copy_function=shutil.copy2)
    assert before == listed(root) == listed(root, "imagefolder") == listed(root.parent / "copy")


def test_a_list_that_is_as_before_is_not_written(root: Path) -> None:
    listed(root)
    file = root.parent / "listing.csv"
    before = file.stat()
    listed(root)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write(root / "a/new.png", PNG)
    listed(root)
    assert file.stat().st_ino != before.st_ino
    assert sorted(path.name for path in root.parent.iterdir()) == ["listing.csv", "raw"]


def test_it_changes_with_each_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [listed(root)]
    new = write(root / "a/new.png", PNG)
    texts.append(listed(root))
    os.utime(new, ns=(1, 1))
    texts.append(listed(root))
    new.write_bytes(PNG + b"x")
    os.utime(new, ns=(1, 1))
    texts.append(listed(root))
    with monkeypatch.context() as patch:  # nothing is hidden from root: let the question be answered otherwise
        patch.setattr("os.access", lambda file, mode: not os.fspath(file).endswith("new.png"))
        texts.append(listed(root))
        assert rows(texts[-1])["a/new.png"] == ("unreadable", "")
    (root / "notes.txt").touch()
    texts.append(listed(root))
    new.rename(root / "b/new.png")
    texts.append(listed(root))
    (root / "c").mkdir()
    texts.append(listed(root))
    assert len(set(texts)) == len(texts)
    (root / "c").rmdir()
    (root / "notes.txt").unlink()
    (root / "b/new.png").unlink()
    assert listed(root) == texts[0]


def test_links_and_names_and_locked_folders_stop_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["new\nline.png", 'comma, "quote".png', "صورة.png", os.fsdecode(b"caf\xe9.png"), "back\\slash.png"]
    for name in names:
        write(root / "names" / name, PNG)
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "circle.png").symlink_to("circle.png")
    (root / "link").symlink_to(root / "a")
    (root / "b/up").symlink_to(root)
    write(root / "locked/x.png", PNG)
    scandir = os.scandir

    def refuse(path: Path):
        if path.name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    found = rows(listed(root))
    assert {unescape(path) for path in found} >= {f"names/{name}" for name in names}
    assert found["gone.png"] == found["circle.png"] == found["locked/"] == ("unreadable", "")
    assert (found["link/"], found["b/up/"]) == (("= a/", ""), ("= ", ""))
    assert "locked/x.png" not in found
    prepared = {
        item.name for item in open_source("folder", root, seed=0, test_fraction=0.2, label="category").records()
    }
    assert {"gone.png", "circle.png", "locked"} <= prepared
    (root / "link").unlink()
    (root / "link").symlink_to(root / "b")
    assert rows(listed(root))["link/"] == ("= b/", "")


def test_which_folders_are_looked_at(root: Path, tmp_path: Path) -> None:
    for source in ("samples:fashion", "torchvision:MNIST"):
        assert listed(tmp_path / "nowhere", source) == HEADER
    write(tmp_path / "probe/cat/x.png", PNG)
    probe = str(tmp_path / "probe")
    both = listed(root, probe_source="imagefolder", probe_path=probe)
    assert {line.split(",")[0] for line in both.splitlines()[1:]} == {"path", "probe_path"}
    assert list(rows(listed(root, "samples:fashion", probe_source="imagefolder", probe_path=probe))) == [
        "",
        "cat/",
        "cat/x.png",
    ]
    assert listed(root, probe_source="imagefolder", probe_path=str(root)) == listed(root)


def test_a_folder_that_is_not_there_is_a_clear_error(root: Path) -> None:
    before = listed(root)
    with pytest.raises(
        ValueError, match=r"nowhere: there is no such folder \(source folder looks there; set data.path"
    ):
        listed(root.parent / "nowhere")
    with pytest.raises(ValueError, match="expected a folder, found a file"):
        listed(root / "a/0000.jpg")
    assert (root.parent / "listing.csv").read_text() == before


def test_the_stage(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(root.parent)
    write_params()
    scan.main()
    assert paths.LISTING.read_text() == listed(root)
    assert paths.WEIGHTS_LISTING.read_text() == "setting,path,sha256\n"
    assert capsys.readouterr().out.startswith("scan  8 files and folders; ")
    assert sorted(file.name for file in paths.LISTINGS.iterdir()) == ["data.csv", "starts", "weights.csv", "words.csv"]


def test_weights_of_the_user_s_own_names_are_told_by_what_they_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    weights = write(Path("weights.safetensors"), b"1234")
    write_params(starts={"mine": {"weights": "weights.safetensors", "network": "resnet18", "side": 96}})
    scan.main()
    file = paths.start("mine")
    before, written = file.read_text(), file.stat().st_mtime_ns
    assert {one.stem for one in file.parent.iterdir()} == {"mine", *BUILT_IN}
    scan.main()
    assert file.stat().st_mtime_ns == written
    assert read_start("mine") == Start(weights="weights.safetensors", network="resnet18", side=96)
    write(weights, b"12345")
    scan.main()
    assert file.read_text() != before
    weights.unlink()
    with pytest.raises(ValueError, match="no such file of weights to start from"):
        scan.main()
    write_params()
    scan.main()
    assert not file.exists()
    with pytest.raises(ValueError, match=r"no weights of that name; add a block starts\.mine"):
        read_start("mine")


def test_the_stage_lists_a_pair_of_domains(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root.parent)
    domains = {"source": "imagefolder", "source_path": "raw", "target": "folder", "target_path": "raw/a"}
    write_params("", "", None, **domains, label="subcategory")
    scan.main()
    assert capsys.readouterr().out.startswith("scan  20 files and folders; ")
    file = paths.listing("domains", "mine")
    before = file.read_text()
    settings = [line.split(",")[0] for line in before.splitlines()]
    assert settings == ["setting", *["source_path"] * 8, *["target_path"] * 4]
    write(root / "a/new.png", PNG)
    scan.main()
    assert file.read_text() != before


def test_weights_that_a_setting_names_are_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    weights = write(Path("weights.safetensors"), b"1234")
    write_params("weights.safetensors")
    scan.main()
    before = paths.WEIGHTS_LISTING.read_text()
    written = paths.WEIGHTS_LISTING.stat()
    assert before.splitlines()[1:] == [f"adapt.weights,weights.safetensors,{sha256(weights)}"]
    os.utime(weights, ns=(1, 1))
    scan.main()
    assert paths.WEIGHTS_LISTING.read_text() == before
    assert (paths.WEIGHTS_LISTING.stat().st_ino, paths.WEIGHTS_LISTING.stat().st_mtime_ns) == (
        written.st_ino,
        written.st_mtime_ns,
    )
    weights.write_bytes(b"4321")
    os.utime(weights, ns=(1, 1))
    scan.main()
    assert paths.WEIGHTS_LISTING.read_text() != before, "other weights of the same size and time"
    weights.unlink()
    with pytest.raises(ValueError, match=r"adapt.weights: there is no file weights.safetensors; name a file"):
        scan.main()


def test_a_name_in_starts_is_told_from_a_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What adaptation depends on changes with the weights of the name, not with the other starts."""
    monkeypatch.chdir(root.parent)
    weights = write(Path("weights.pth"), b"1234")
    start = {"weights": "weights.pth", "network": "resnet18"}
    write_params("mine", starts={"mine": start})
    scan.main()
    before = paths.WEIGHTS_LISTING.read_text()
    assert before.splitlines()[1:] == [f"adapt.weights,{paths.start('mine')},{sha256(paths.start('mine'))}"]
    write_params("mine", starts={"mine": start, "other": start})
    scan.main()
    assert paths.WEIGHTS_LISTING.read_text() == before
    write(weights, b"4321")
    scan.main()
    assert paths.WEIGHTS_LISTING.read_text() != before
    write(Path("mine"), b"a file")
    with pytest.raises(ValueError, match=r"adapt.weights: mine is a name in starts, and .* write ./mine"):
        scan.main()
    write_params("./mine", starts={"mine": start})
    scan.main()
    assert paths.WEIGHTS_LISTING.read_text().splitlines()[1] == f"adapt.weights,mine,{sha256(Path('mine'))}"
    assert not is_name("./mine")
    assert known_by("./mine") == Path("mine")
    assert is_name("mine")
    write_params("min", starts={"mine": start})
    with pytest.raises(ValueError, match=r"there is no file min; name a file of weights, or a block of starts"):
        scan.main()


def test_a_split_file_that_a_setting_names_is_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    write_params(split="split.json")
    with pytest.raises(ValueError, match=r"adapt.split: there is no file split.json; name such a file"):
        scan.main()
    write(Path("split.json"), b"{}")
    scan.main()
    assert "adapt.split,split.json," in paths.WEIGHTS_LISTING.read_text()


def test_sets_of_words_of_the_user_s_own_are_listed_by_what_they_hold(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    language = {"similarity": ["simlex999", "pairs.tsv", ""], "analogies": "analogies"}
    write_params()
    content = YAML().load(Path("params.yaml"))
    YAML().dump({**content, "language": language}, Path("params.yaml"))
    with pytest.raises(
        ValueError, match=r"language.similarity\[1\]: there is no file pairs.tsv; name such a file, or a"
    ):
        scan.main()
    for words in (b"a\tb\t1", b"a\tb\t2"):
        write(Path("pairs.tsv"), words)
        scan.main()
        lines = paths.WORDS_LISTING.read_text().splitlines()
        assert lines[1:] == [f"language.similarity[1],pairs.tsv,{sha256(Path('pairs.tsv'))}"]


@pytest.mark.parametrize("kind", ["coco", "masks", "voc"])
def test_annotations_are_listed(root: Path, kind: str) -> None:
    """So that `prepare` runs again when they change."""
    place = root.parent / "truth"
    file = place / ("Annotations/a.xml" if kind == "voc" else "a.png")
    write(file, b"1")
    setting = f"{kind}:{file if kind == 'coco' else place}"
    before = listed(root, annotations=setting)
    assert before.count("annotations,") == {"coco": 1, "masks": 2, "voc": 3}[kind]
    write(file, b"12")
    after = listed(root, annotations=setting)
    assert after != before
    second = write(root.parent / "b.json", b"{}")
    if kind == "coco":
        tested = f"coco:{second}"
        assert f"annotations_test,{second}," in listed(root, annotations=setting, annotations_test=tested)
    file.unlink()
    if kind == "coco":
        with pytest.raises(ValueError, match=r"data.annotations: there is no file"):
            listed(root, annotations=setting)
    else:
        assert listed(root, annotations=setting) != after


def test_a_copy_of_the_project_without_the_annotations_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = root.parent / ".dvc/tmp/exps/abc"
    shutil.copytree(root, copy / "raw")
    write(root.parent / "a.json", b"{}")
    monkeypatch.chdir(copy)
    settings = {"data": {"source": "folder", "path": "raw", "annotations": "coco:a.json"}}
    with pytest.raises(ValueError, match=r"data.annotations: a.json is not in this copy .* path, coco:/"):
        scan._refuse_copy(settings, {})
    write(copy / "a.json", b"{}")
    scan._refuse_copy(settings, {})


def test_a_domain_s_folder_is_missed_only_where_one_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "domains.csv"
    assert write_domains_listing(file, source_path="nowhere", target_path="nowhere") == 0
    assert file.read_text() == HEADER
    for domain in ("source", "target"):
        with pytest.raises(ValueError, match=rf"nowhere: there is no such folder .* set domains\.{domain}_path"):
            write_domains_listing(file, **{domain: "imagefolder", f"{domain}_path": "nowhere"})


def test_dvc_tracks_a_list_and_shards_and_no_folder_of_raw_files() -> None:
    found = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    bodies = [stage.get("do", stage) for stage in found]
    tracked = [str(one) for body in bodies for one in (*body.get("deps", []), *body.get("outs", []))]
    assert "data/prepared" in tracked
    assert not [one for one in tracked if one.startswith("data/raw") or one in ("data", ".")]
