"""What a plan says would run and why, what DVC then runs, and what is left over."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from dvc.dependency.param import ParamsDependency
from dvc.output import Output
from dvc.utils import serialize

from pipelines import leftovers, runner
from pipelines.plan import PlanError, plan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny.make(tmp_path / "project"))
    return tmp_path / "project"


def run_all(*targets: str) -> dict[str, runner.Result]:
    workspace = runner.Workspace(on_line=lambda stage, line: None)
    return runner.execute(plan(targets), workspace.run, jobs=2, stop=workspace.stop)


def outcomes(results: dict[str, runner.Result]) -> dict[str, str]:
    return {name: result.outcome for name, result in results.items()}


def reasons() -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.reasons for stage in plan()}


def states() -> dict[str, str]:
    return {stage.name: stage.state for stage in plan()}


def test_plan_tells_what_runs_and_why(folder: Path) -> None:
    assert [stage.name for stage in plan()] == ["prepare", "pretrain@a-0", "pretrain@b-0", "report"]
    assert set(states().values()) == {"stale"}
    assert reasons()["pretrain@a-0"][0] == "never ran"

    assert outcomes(run_all()) == dict.fromkeys(states(), "ran")
    assert set(states().values()) == {"fresh"}
    assert outcomes(run_all()) == dict.fromkeys(states(), "cached")

    (folder / "params.yaml").write_text(
        tiny.PARAMS.replace("lr: 2e-3", "lr: 1e-2").replace("[1, 2]", "[1, 3], new: ''")
    )
    assert reasons() == {
        "prepare": (),
        "pretrain@a-0": (
            "param methods.a.lr 0.002 → 0.01",
            "param methods.a.widths [1, 2] → [1, 3]",
            "param methods.a.new added: ''",
        ),
        "pretrain@b-0": (),
        "report": ("upstream pretrain@a-0 will run",),
    }
    assert states()["report"] == "pending"


def test_plan_sees_files_and_commands(folder: Path) -> None:
    run_all("pretrain@b-0")
    (folder / "source.txt").write_text("hallo")
    (folder / "encoders" / "b-0").unlink()
    (folder / "dvc.yaml").write_text(tiny.PIPELINE.replace("pretrain.sh ${item.method}", "pretrain.sh  ${item.method}"))
    assert reasons()["prepare"] == ("changed: source.txt",)
    assert reasons()["pretrain@b-0"] == (
        "changed: its command",
        "output is missing: encoders/b-0",
        "upstream prepare will run",
    )


def test_a_plan_reads_and_hashes_each_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all()
    read: list[str] = []
    built: list[str] = []
    parse, build = serialize.load_path, Output.get_hash
    monkeypatch.setattr("pipelines.plan.load_path", lambda path, fs: read.append(path) or parse(path, fs))
    monkeypatch.setattr(ParamsDependency, "read_params", lambda dependency: pytest.fail("asked DVC"))
    monkeypatch.setattr(Output, "get_hash", lambda out: built.append(str(out)) or build(out))
    assert set(states().values()) == {"fresh"}
    assert read == [str(folder / "params.yaml")]
    assert sorted(built) == sorted(
        # as an output and as a dependency
        ["encoders", "encoders/a-0", "encoders/b-0", "prepared", "prepared", "pretrain.sh", "report.txt", "source.txt"]
    )


def test_settings_are_named_in_all_the_ways_that_dvc_knows(folder: Path) -> None:
    text = tiny.PIPELINE.replace('["methods.${item.method}"]', '["methods.${item.method}.lr", methods.a.widths.1]')
    (folder / "dvc.yaml").write_text(text)
    run_all()
    assert set(states().values()) == {"fresh"}
    (folder / "params.yaml").write_text(tiny.PARAMS.replace("[1, 2]", "[1, 3]"))
    assert reasons()["pretrain@b-0"] == ("param methods.a.widths.1 2 → 3",)
    (folder / "params.yaml").write_text(tiny.PARAMS.replace(", widths: [1, 2]", ""))
    assert reasons()["pretrain@b-0"] == ("param methods.a.widths.1 removed (was 2)",)


def test_what_upstream_makes_alike_runs_nothing_below(folder: Path) -> None:
    run_all("pretrain@a-0")
    (folder / "source.txt").write_text("hallo")
    assert states()["pretrain@a-0"] == "pending"
    assert outcomes(run_all("pretrain@a-0")) == {"prepare": "ran", "pretrain@a-0": "cached"}


def test_a_stage_that_runs_every_time_makes_no_fresh_stage_pending(folder: Path) -> None:
    (folder / "raw").mkdir()
    (folder / "dvc.yaml").write_text(tiny.LOOKING)
    assert (states()["look"], reasons()["look"]) == ("stale", ("never ran",))
    run_all()
    assert states() == {
        "look": "stale",
        "prepare": "fresh",
        "pretrain@a-0": "fresh",
        "pretrain@b-0": "fresh",
        "report": "fresh",
    }
    assert reasons()["look"] == ("looks every time whether the images have changed",)
    (folder / "list").unlink()
    assert reasons()["look"][0] == "output is missing: list"
    assert (states()["prepare"], reasons()["prepare"]) == ("pending", ("upstream look will run",))
    (folder / "list").write_text("another")
    assert reasons()["look"][0] == "output was changed: list"


@pytest.mark.usefixtures("folder")
def test_targets_are_stages_and_groups() -> None:
    assert [stage.name for stage in plan(["pretrain"])] == ["prepare", "pretrain@a-0", "pretrain@b-0"]
    assert [stage.name for stage in plan(["pretrain@b-0"])] == ["prepare", "pretrain@b-0"]
    with pytest.raises(PlanError, match="no stage 'pretain', did you mean 'pretrain'"):
        plan(["pretain"])


def test_a_group_whose_list_is_empty_says_which_one(folder: Path) -> None:
    (folder / "params.yaml").write_text(tiny.PARAMS.replace("methods: [a, b]", "methods: []"))
    with pytest.raises(PlanError, match=r"stage 'pretrain' has nothing to do: run\.methods in params\.yaml is empty"):
        plan(["pretrain"])


def test_a_folder_without_a_pipeline_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="not inside of a DVC repository"):
        plan(folder=tmp_path)


def test_leftovers_of_methods_that_are_no_longer_run(folder: Path) -> None:
    run_all()
    assert leftovers.find() == []
    (folder / "params.yaml").write_text(tiny.PARAMS.replace("[a, b]", "[a]"))
    (found,) = leftovers.find()
    assert (found.stage, found.files) == ("pretrain@b-0", (Path("encoders/b-0"),))
    leftovers.remove([found])
    assert leftovers.find() == []
    assert sorted(file.name for file in (folder / "encoders").iterdir()) == ["a-0"]
    assert states()["pretrain@a-0"] == "fresh"


def test_leftovers_never_reach_out_of_the_folder_or_into_what_is_still_made(folder: Path) -> None:
    run_all("pretrain@a-0")
    outside = folder.parent / "outside"
    outside.write_text("mine")
    lock = folder / "dvc.lock"
    lock.write_text(
        lock.read_text()
        + "  gone@x-0:\n    cmd: x\n    outs:\n    - path: ../outside\n    - path: prepared\n    - path: .\n"
    )
    (found,) = leftovers.find()
    assert (found.stage, found.files) == ("gone@x-0", ())
