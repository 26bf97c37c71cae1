"""Experiments in worktrees that share DVC's cache, and results that go between machines by a remote."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import experiments
from pipelines.plan import plan
from tests import tiny


def dvc(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project whose raw file lies beside the repository's own."""
    folder = tiny.make(tmp_path / "project", "mkdir -p encoders; echo $1 >> $LOG; cat prepared > encoders/$1-$2")
    tiny.commit(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return folder


def test_points_are_all_combinations_and_have_names() -> None:
    found = experiments.points(["train.lr=0.1,0.5", "run.methods=[a],[b]", "run.seeds=[0]"])
    assert found[0] == ["train.lr=0.1", "run.methods=[a]", "run.seeds=[0]"]
    assert len(found) == 4
    assert experiments.name_of(found[0]) == "lr-0.1-methods-a-seeds-0"
    assert experiments.name_of([]) == "as-it-is"
    long = [experiments.name_of([f"data.path={'x' * 80}{end}"]) for end in "ab"]
    assert len({*long}) == 2
    assert max(map(len, long)) <= experiments.LONGEST
    assert experiments.name_of(["data.path=../../etc"]).count("/") == 0
    with pytest.raises(ValueError, match=r"expected section\.key=value"):
        experiments.points(["train.lr"])


def test_an_experiment_has_its_own_settings_and_the_shared_cache(project: Path) -> None:
    (project / "data/raw").mkdir(parents=True)
    (project / "params.yaml").write_text(tiny.PARAMS.replace("lr: 1e-3", "lr: 5e-3"))  # edited, not committed
    revision, params = experiments.base()
    folder = experiments.place(["methods.a.lr=0.5"], revision, params)
    assert folder == Path("work/experiments/lr-0.5")
    assert "lr: 0.5" in (folder / "params.yaml").read_text()
    assert "lr: 5e-3" in (folder / "params.yaml").read_text()
    assert (folder / "data/raw").resolve() == project / "data/raw"
    dvc(folder, "repro", "pretrain")
    log = Path(os.environ["LOG"])
    assert log.read_text().split() == ["a", "b"]

    (project / "params.yaml").write_text((folder / "params.yaml").read_text())
    assert "is cached - skipping run" in dvc(project, "repro", "pretrain")
    assert log.read_text().split() == ["a", "b"], "the run-cache gives back what the experiment has made"
    assert (project / "encoders/a-0").read_text() == "h"

    again = experiments.place(["methods.a.lr=0.5"], revision, params)
    assert again == folder
    assert (folder / "encoders/a-0").exists(), "what it has is kept"


def test_what_is_not_committed_is_refused_by_name(project: Path) -> None:
    (project / "pretrain.sh").write_text("something else")
    (project / "new.py").touch()
    with pytest.raises(ValueError, match=r"not committed: pretrain\.sh, new\.py"):
        experiments.base()


def test_settings_and_revisions_that_there_are_not(project: Path) -> None:
    revision, params = experiments.base()
    with pytest.raises(ValueError, match=r"methods\.c\.lr"):
        experiments.place(["methods.c.lr=1"], revision, params)
    assert not experiments.ROOM.exists(), "what is refused leaves no worktree"
    with pytest.raises(ValueError, match="git worktree add"):
        experiments.place([], "0" * 40, params)


@pytest.fixture(params=["directory", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines of a DVC remote: a directory, and a server that answers as S3 does."""
    if request.param == "directory":
        yield [f"url = {tmp_path}/store"]
        return
    pytest.importorskip("dvc_s3")
    boto3, served = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    server = served.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=address, region_name="us-east-1").create_bucket(Bucket="shared")
        yield ["url = s3://shared/sslflow", f"endpointurl = {address}"]
    finally:
        server.stop()


def test_another_machine_takes_what_the_first_has_made(tmp_path: Path, remote: list[str]) -> None:
    first, second = (tiny.make(tmp_path / name) for name in ("first", "second"))
    settings = "\n    ".join(["['remote \"store\"']", *remote])
    for folder in (first, second):
        (folder / ".dvc/config").write_text(f"[core]\n    no_scm = true\n    remote = store\n{settings}\n")
    dvc(first, "repro", "prepare")
    dvc(first, "push", "--run-cache")
    assert "Stage 'prepare' is cached - skipping run" in dvc(second, "repro", "--pull", "prepare")
    assert (second / "prepared").read_text() == "h"


def test_the_plan_of_an_experiment_is_that_of_its_own_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = experiments.place(["run.methods=[a]"], *experiments.base())
    monkeypatch.chdir(folder)
    assert [stage.name for stage in plan()] == ["prepare", "pretrain@a-0", "report"]
