"""Which stages run after a change, and no others: on the project's own dvc.yaml, with outputs that are made up."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides

from pipelines.plan import outputs, plan
from tests.conftest import ROOT, copy_kept_folders

RECIPE = ROOT / "recipes" / "demo.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which all stages of the demo's recipe have run, as far as DVC can tell."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(ROOT / "sslflow", folder / "sslflow", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(RECIPE, folder / "params.yaml")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    made_up(folder / "data/samples/README.md")
    made_up(folder / "data/domains/.gitkeep")
    made_up(folder / "data/clips/.gitkeep")
    copy_kept_folders(folder)
    for path in outputs(folder):
        made_up(folder / path if Path(path).suffix else folder / path / "content")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Repo() as repo:
            written = [Path(out.fs_path) for stage in repo.index.stages for out in stage.outs]
            read = {Path(dep.fs_path) for stage in repo.index.stages for dep in stage.deps}
            for path in read:
                if any(out in path.parents for out in written):
                    made_up(path if path.suffix else path / "content")
            repo.commit(force=True)
    return folder


def made_up(file: Path) -> Path:
    """A file that holds its own name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(file.name)
    return file


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "project", symlinks=True))
    return tmp_path / "project"


def stale(folder: Path) -> dict[str, int]:
    """How many stages of each group would run for a reason of their own."""
    names = [stage.name for stage in plan(folder=folder) if stage.state == "stale" and not stage.only_looks]
    return dict(Counter(name.partition("@")[0] for name in names))


def edited(file: str) -> Callable[[Path], object]:
    """A change of one of the project's files that changes no result."""
    return lambda folder: (folder / file).write_text((folder / file).read_text() + "\n# reworded\n")


def set_to(*overrides: str) -> Callable[[Path], object]:
    """A change of params.yaml as `dvc exp run -S` makes it."""
    return lambda folder: apply_overrides(folder / "params.yaml", list(overrides))


OF_A_METHOD = dict.fromkeys(
    ("preview", "pretrain", "inspect", "extract", "pseudolabel", "audit_clusters", "probe", "finetune"), 1
)


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        pytest.param(lambda folder: None, {}, id="nothing"),
        pytest.param(set_to("run.methods=[rotation]"), {"report": 1}, id="fewer methods"),
        pytest.param(set_to("run.methods=[simclr,rotation,byol]"), {**OF_A_METHOD, "report": 1}, id="one more method"),
        pytest.param(
            set_to("run.adapt_methods=[source_only,gated_dance,dance]"),
            {"adapt": 1, "score": 1, "report": 1},
            id="one more method of adaptation",
        ),
        pytest.param(
            edited("sslflow/methods/images/rotation.py"),
            {"preview": 1, "pretrain": 1, "inspect": 1},
            id="one method's file",
        ),
        pytest.param(
            edited("sslflow/methods/adaptation/gated_dance.py"), {"adapt": 1}, id="one method of adaptation's file"
        ),
        pytest.param(
            edited("sslflow/judging/verdict.py"),
            {"preview": 2, "inspect": 2, "inspect_clips": 1},
            id="a verdict's wording",
        ),
        pytest.param(
            edited("sslflow/examination/clips/tasks.py"), {"examine": 1, "report": 1}, id="what clips are examined by"
        ),
        pytest.param(
            edited("sslflow/examination/adaptation/scores.py"), {"score": 2, "report": 1}, id="a score of adaptation"
        ),
        pytest.param(
            edited("sslflow/evaluation/retrieval.py"),
            {
                "audit": 1,
                "audit_clusters": 2,
                "probe": 2,
                "probe_control": 3,
                "finetune": 2,
                "finetune_control": 1,
                "examine": 1,
                "report": 1,
            },
            id="a retrieval score",
        ),
        pytest.param(set_to("probe.knn.k=5"), {"probe": 2, "probe_control": 3, "report": 1}, id="a setting of a stage"),
        pytest.param(edited("sslflow/reporting/page.py"), {"report": 1}, id="the report"),
        pytest.param(edited("sslflow/paths.py"), {}, id="a name of a file"),
        pytest.param(
            lambda folder: made_up(folder / "data/clips/other/content"), {"report": 1}, id="another set of clips"
        ),
    ],
)
def test_a_change_runs_what_depends_on_it(
    project: Path, change: Callable[[Path], object], runs: dict[str, int]
) -> None:
    change(project)
    assert stale(project) == runs


@pytest.mark.parametrize(("setting", "trained"), [("methods.rotation.train.lr=0.1", 1), ("views.flip=0.25", 2)])
def test_a_setting_runs_what_trains_or_draws_by_it(project: Path, setting: str, trained: int) -> None:
    apply_overrides(project / "params.yaml", [f"++{setting}"])
    found = stale(project)
    assert (found["pretrain"], found["inspect"], found["preview"], found["report"]) == (trained, trained, trained, 1)
    assert not found.keys() & {"prepare", "clips", "domains", "extract", "probe", "finetune", "pretrain_clips", "score"}


def test_what_is_not_named_is_no_stage(project: Path) -> None:
    shutil.copy(ROOT / "recipes" / "cpu.yaml", project / "params.yaml")
    groups = {stage.name.partition("@")[0] for stage in plan(folder=project)}
    assert {"scan", "prepare", "pretrain", "probe", "report"} <= groups
    assert not groups & {"domains", "adapt", "score", "clips", "pretrain_clips", "inspect_clips", "examine"}
    shutil.copy(ROOT / "recipes" / "videos.yaml", project / "params.yaml")
    groups = {stage.name.partition("@")[0] for stage in plan(folder=project)}
    assert groups == {"scan", "prepare", "audit", "clips", "pretrain_clips", "inspect_clips", "examine", "report"}
