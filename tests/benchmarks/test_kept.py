"""What benchmarks keep is made anew where it would be made of something else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import kept, methods, methods_runs
from sslflow.data.dataset import Dataset
from sslflow.runtime.files import write_text
from tests import imports
from tests.conftest import write_dataset


def test_what_is_kept_is_made_anew_for_other_settings_code_or_samples(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kept, "ROOT", tmp_path / "project")
    code, sample = tmp_path / "project/sslflow/ingest/a.py", tmp_path / "project/data/samples/x/b.parquet"
    write_text(code, "1")
    write_text(sample, "1")
    folder, made = tmp_path / "prepared", []

    def anew(settings: object) -> bool:
        before = len(made)
        kept.make(folder, settings, ("ingest",), lambda: made.append(write_text(folder / "dataset.json", "{}")))
        assert (folder / "dataset.json").exists()
        return len(made) > before

    assert anew({"size": 8})
    assert not anew({"size": 8})
    assert anew({"size": 9})
    write_text(code, "2")
    assert anew({"size": 9})
    write_text(sample, "2")
    assert anew({"size": 9})
    assert not anew({"size": 9})
    (folder / "dataset.json").unlink()
    folder.rmdir()
    assert anew({"size": 9})


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A stage that imports a view, and a method that is found by name and imports a loss."""
    files = {
        "sslflow.stages.pretrain": "import sslflow.views.images",
        "sslflow.views.images": "STRENGTH = 1",
        "sslflow.methods.images.simclr": "import sslflow.networks.heads",
        "sslflow.networks.heads": "WIDTH = 1",
        "sslflow.networks.queue": "",
    }
    places = {module: tmp_path / f"{module}.py" for module in files}
    for module, text in files.items():
        write_text(places[module], text)
    monkeypatch.setattr(imports, "modules", lambda: places)
    monkeypatch.setattr(kept, "modules", lambda: places)
    yield tmp_path
    imports.imported.cache_clear()


def made_by(project: Path) -> dict[str, str]:
    imports.imported.cache_clear()
    kept.hash_of.cache_clear()
    return kept.code_of(["pretrain"], "sslflow.methods.images.simclr")


@pytest.mark.parametrize("module", ["stages.pretrain", "views.images", "methods.images.simclr", "networks.heads"])
def test_whatever_code_a_run_reaches_makes_its_row_one_of_other_code(project, module):
    result = {"code": made_by(project), "commit": "abc1234"}
    file = project / f"sslflow.{module}.py"
    assert kept.other_code(result, made_by(project)) == ""
    file.write_text(f'"""Words."""\n{file.read_text()}  # and more\n')
    (project / "sslflow.networks.queue.py").write_text("SIZE = 2")
    assert kept.other_code(result, made_by(project)) == "", "no code that it reaches"
    file.write_text(f"{file.read_text()}\nMORE = 1")
    assert kept.other_code(result, made_by(project)) == f"abc1234: {module}"


def test_a_module_more_or_less_is_other_code_and_an_old_row_is_never_todays(project):
    now = made_by(project)
    fewer = {name: found for name, found in now.items() if name != "sslflow.networks.heads"}
    for made, today in ((fewer, now), (now, fewer)):
        assert kept.other_code({"code": made, "commit": "abc1234"}, today) == "abc1234: networks.heads"
    assert "abc1234: which modules differ is not known" in kept.other_code({"commit": "abc1234"}, now)


def test_the_table_marks_rows_of_other_code_and_says_what_differs():
    found = [{"linear": 0.5, "knn": 0.5, "findings": [], "seed": 0, "right": np.ones(4), "rows": np.arange(4)}]
    rows = {name: [{**found[0], "other": other}] for name, other in (("simclr", "abc1234: views.images"), ("byol", ""))}
    lines = list(methods._rows("emoji", rows, np.arange(4)))
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["simclr ‡", "byol"]
    assert lines[-1] == "‡ Made by other code than today's: simclr (abc1234: views.images)."
    assert not list(kept.note({"byol": [""]}))


def test_a_run_reaches_the_loop_its_views_and_the_probe():
    code = methods_runs.code(methods_runs.Job("fashion", "resnet", "simclr", 0))
    for module in ("training.fit", "views.images", "networks.heads", "evaluation.linear", "methods.images.simclr"):
        assert f"sslflow.{module}" in code
    assert "sslflow.methods.images.byol" not in code
    assert "sslflow.training.fit" not in methods_runs.code(methods_runs.Job("fashion", "resnet", "pixels", 0))


def test_held_out_images_are_whole_groups_of_the_training_images_and_test_images_are_in_no_split(tmp_path):
    labels, groups = np.arange(60) % 3, np.arange(60) // 2
    images = np.random.default_rng(0).integers(0, 255, (60, 1, 8, 8), dtype=np.uint8)
    splits = ["train"] * 48 + ["test"] * 12
    folder = write_dataset(tmp_path / "prepared", images, labels, splits).folder
    table = pq.read_table(folder / "manifest.parquet")
    place = table.column_names.index("group")
    pq.write_table(table.set_column(place, "group", pa.array(groups.astype(str))), folder / "manifest.parquet")
    methods_runs.hold_out(folder / "manifest.parquet", 0.25)
    dataset = Dataset(folder)
    train, test = dataset.rows("train"), dataset.rows("test")
    assert sorted([*train, *test]) == list(range(48))
    assert 8 <= len(test) <= 16
    assert not set(groups[train]) & set(groups[test])
    assert set(labels[test]) == {0, 1, 2}
    assert set(dataset.pretraining_rows) == set(train)
