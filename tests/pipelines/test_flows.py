"""The Prefect skin: states, names, artifacts, retries; and the flow without Prefect."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import tiny
from httpx import ConnectError
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Completed, Failed
from prefect.testing.utilities import prefect_test_harness

from pipelines import flows, runner, sweeps
from sslflow import paths

BOARD = {
    "simclr": {"linear": {"mean": 0.8412, "std": 0.01, "n": 2}, "knn": {"mean": 0.8, "std": 0.0, "n": 2}},
    "random": {"linear": {"mean": 0.7, "std": 0.01, "n": 2}},
}
# Fails the first time only, as something that is out of order for a moment does.
FLAKY = "mkdir -p encoders; if mkdir tried-$1; then echo flaky; exit 1; fi; echo x > encoders/$1-$2"
# A training that is looked at in the middle, and judged after its end.
TRAINED = """
mkdir -p encoders work/pretrain/1 artifacts/curves
printf 'step,loss,rankme\\n0,5.5,300\\n20,4.5,200\\n' > work/pretrain/1/curve.csv
echo '{"run": "pretrain a-0", "step": 20, "steps": 80, "seconds": 10.0, "choices": null}' > work/pretrain/1/journal.json
while ! test -e seen; do sleep 0.1; done
printf 'step,loss,rankme\\n0,5.5,300\\n80,3.5,100\\n' > artifacts/curves/a-0.csv
rm -r work/pretrain/1
echo x > encoders/$1-$2
"""
JUDGED = tiny.PIPELINE.replace(
    "  report:",
    """  inspect:
    matrix: {method: [a], seed: [0]}
    cmd: mkdir -p artifacts/verdicts; cp verdict.json artifacts/verdicts/a-0.json
    deps: ["encoders/${item.method}-${item.seed}"]
    outs: ["artifacts/verdicts/${item.method}-${item.seed}.json"]
  report:""",
)
VERDICT = [{"kind": "healthy", "words": "Healthy: it learns.", "advice": "", "sick": False}]
# An experiment in the folder itself, less the check of params.yaml, which knows the real stages.
HERE = """
from pathlib import Path
from pipelines import experiments, runner
from pipelines.sweeps import experiment
experiments.base = lambda: ("", "")
experiments.place = lambda *given: Path()
runner.check_params = lambda: None
"""


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tiny.make(tmp_path / "project"))
    monkeypatch.setattr(runner, "check_params", lambda: None)
    return tmp_path / "project"


def task_runs(state: State) -> dict[str, TaskRun]:
    """By name, those of the flow run that ended in `state`."""
    flow_run = state.state_details.flow_run_id
    assert flow_run is not None
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [flow_run]}}))
    return {run.name: run for run in runs}


def states(state: State) -> dict[str, str]:
    return {name: str(run.state.name) for name, run in task_runs(state).items() if run.state}


@pytest.mark.usefixtures("server")
def test_a_task_for_each_stage_and_cached_for_what_is_fresh(folder: Path) -> None:
    first = flows.pipeline(jobs=2, return_state=True)
    assert first.is_completed()
    assert states(first) == dict.fromkeys(("prepare", "pretrain@a-0", "pretrain@b-0", "report"), "Completed")
    needs = task_runs(first)["report"].task_inputs["wait_for"]
    assert len(needs) == 2, "the page shows what each stage waited for"

    (folder / "params.yaml").write_text(tiny.PARAMS.replace("lr: 2e-3", "lr: 1e-2"))
    second = flows.pipeline(jobs=2, return_state=True)
    assert second.is_completed()
    assert second.message == "4 stages: 1 ran, 3 cached"
    assert states(second) == {
        "prepare": "Cached",
        "pretrain@a-0": "Completed",
        "pretrain@b-0": "Cached",
        "report": "Cached",
    }


@pytest.mark.usefixtures("server")
def test_a_look_is_a_task_and_what_it_finds_is_acted_on(folder: Path) -> None:
    (folder / "raw").mkdir()
    (folder / "dvc.yaml").write_text(tiny.LOOKING)
    flows.pipeline(["prepare"], return_state=True)
    assert states(flows.pipeline(["prepare"], return_state=True)) == {"look": "Cached", "prepare": "Cached"}
    (folder / "raw/new").touch()
    assert states(flows.pipeline(["prepare"], return_state=True)) == {"look": "Completed", "prepare": "Completed"}


@pytest.mark.usefixtures("server")
def test_a_failing_stage_fails_the_flow_and_shows_its_last_lines(folder: Path) -> None:
    (folder / "pretrain.sh").write_text("mkdir -p encoders; echo no space left; exit 1")
    state = flows.pipeline(["pretrain@a-0"], return_state=True)
    assert state.is_failed()
    assert "1 ran, 1 failed" in (state.message or "")
    assert "no space left" in (state.message or "")
    (stage,) = (run for name, run in task_runs(state).items() if name == "pretrain@a-0")
    assert stage.state
    assert stage.state.is_failed()
    assert "no space left" in (stage.state.message or "")


@pytest.mark.usefixtures("server")
def test_a_stage_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "RETRY_DELAY_S", 0.1)
    (folder / "pretrain.sh").write_text(FLAKY)
    state = flows.pipeline(["pretrain@a-0"], retries=1, return_state=True)
    assert state.is_completed()
    assert task_runs(state)["pretrain@a-0"].run_count == 2


@pytest.mark.usefixtures("server")
def test_the_leaderboard_and_the_report_are_artifacts(folder: Path) -> None:
    (folder / paths.LEADERBOARD).parent.mkdir()
    (folder / paths.LEADERBOARD).write_text(json.dumps(BOARD))
    (folder / "artifacts/report").mkdir()
    (folder / "artifacts/report/index.html").write_text("<p>report")
    flows.pipeline(["prepare"])
    with get_client(sync_client=True) as client:
        assert not client.read_artifacts(), "of earlier settings"
    state = flows.pipeline(["report"], return_state=True)
    with get_client(sync_client=True) as client:
        found = {artifact.key: artifact for artifact in client.read_artifacts()}
    assert {str(artifact.flow_run_id) for artifact in found.values()} == {str(state.state_details.flow_run_id)}
    rows = json.loads(str(found["leaderboard"].data))
    assert [row["name"] for row in rows] == ["simclr", "random weights"]
    assert rows[0]["linear"] == "84.1 ± 1.0"
    assert rows[1]["kNN"] == "–"
    assert (folder / "artifacts/report/index.html").as_uri() in str(found["report"].data)


@pytest.mark.usefixtures("server")
def test_a_training_is_shown_while_it_runs_and_its_verdict_after(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "LOOK_S", 0.1)
    (folder / "pretrain.sh").write_text(TRAINED)
    (folder / "dvc.yaml").write_text(JUDGED)
    (folder / "verdict.json").write_text(json.dumps(VERDICT))
    shown: list[tuple[str, str]] = []
    put = flows.Artifacts._put

    def spied(artifacts: flows.Artifacts, kind: str, create: Callable[..., object], content: object) -> None:
        put(artifacts, kind, create, content)
        shown.append((kind, str(content)))
        if kind == "so-far":
            (folder / "seen").touch()

    monkeypatch.setattr(flows.Artifacts, "_put", spied)
    assert flows.pipeline(["inspect"], return_state=True).is_completed()
    assert shown[0] == ("progress", "25.0")
    assert "Step 20 of 80, about 30 s left." in shown[2][1]
    with get_client(sync_client=True) as client:
        found = {one.key: one for one in client.read_artifacts() if one.key and "-a-0-" in one.key}
    assert found["pretrain-a-0-progress"].data == 100.0
    assert "All 80 steps are done." in str(found["pretrain-a-0-so-far"].data)
    picture = base64.b64decode(str(found["pretrain-a-0-curve"].data).partition("base64,")[2]).decode()
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert picture.count("polyline") == 2, "loss and RankMe"
    assert found["inspect-a-0-verdict"].data == "Healthy: it learns."
    assert found["pretrain-a-0-curve"].task_run_id, "on the page of its stage"


@pytest.mark.usefixtures("folder")
def test_the_flow_without_prefect() -> None:
    state = flows.pipeline.fn(["pretrain@a-0"])
    assert (state.name, state.message) == ("Completed", "2 stages: 2 ran")
    assert flows.pipeline.fn(["pretrain@a-0"]).message == "2 stages: 2 cached"


def test_a_flow_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """Though it can't end Prefect's server either."""
    folder = tiny.make(tmp_path / "project", "mkdir -p encoders; touch started; sleep 600")
    process = tiny.start("flows", folder)
    started = tiny.wait_until((folder / "started").exists)
    assert len(tiny.processes_in(folder)) > 4
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert started, said
    assert process.returncode == -signal.SIGKILL, said
    assert tiny.wait_until(lambda: tiny.processes_in(folder) == []), tiny.processes_in(folder)


def test_a_flow_that_is_stopped_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What happens to its processes: see the sweep that is stopped, and tests of the runner."""

    def stopped(*given: object, return_state: bool) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(flows, "pipeline", stopped)
    monkeypatch.setattr(flows.server, "missing", lambda address: "")
    monkeypatch.setattr(sys, "argv", ["flows"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
            assert flows.main() == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "stopped; what was finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "code"), [(Completed(message="2 ran"), 0), (Failed(message="1 failed"), 1)])
def test_a_flow_whose_server_is_lost_says_how_it_ended(
    state: State, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flows, "SERVER_S", 0)
    monkeypatch.setattr(flows.FlowRunContext, "get", object)
    monkeypatch.setattr(flows.os, "_exit", sys.exit)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}), pytest.raises(SystemExit) as left:
        flows.told(state)
    assert left.value.code == code
    said = capsys.readouterr().err
    assert f"{state.name}: {state.message}" in said
    assert "http://127.0.0.1:1/api is lost (no server answers there" in said


def test_a_server_that_is_there_again_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["no server answers there", ""])
    monkeypatch.setattr(flows.server, "missing", lambda address: next(answers))
    monkeypatch.setattr(flows.FlowRunContext, "get", object)
    state = Completed()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        assert flows.told(state) is state
    assert next(answers, "all were asked for") == "all were asked for"


def test_what_can_not_be_shown_is_left_out_after_one_more_try() -> None:
    with flows.if_possible():
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 1
        raise ConnectError("refused")
    with pytest.raises(KeyError), flows.if_possible():
        raise KeyError


@pytest.mark.usefixtures("server")
def test_a_sweep_runs_an_experiment_for_each_point_and_has_their_scores(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker: each runs where it is asked for. The scores that are committed are of other settings."""
    (folder / paths.LEADERBOARD).parent.mkdir()
    (folder / paths.LEADERBOARD).write_text(json.dumps(BOARD).replace("0.84", "0.11"))
    (folder / "board.json").write_text(json.dumps(BOARD))
    own = "head -c 1 source.txt > prepared; cp board.json artifacts/leaderboard.json\n    params: [methods.a.lr]"
    (folder / "dvc.yaml").write_text(tiny.PIPELINE.replace("head -c 1 source.txt > prepared", own))
    tiny.commit(folder)

    def run_here(name: str, *, parameters: dict, flow_run_name: str, timeout: float) -> FlowRun:
        assert (name, timeout) == ("experiment/experiment", 0)
        ended = sweeps.experiment.with_options(flow_run_name=flow_run_name)(**parameters, return_state=True)
        assert ended.state_details.flow_run_id
        with get_client(sync_client=True) as client:
            return client.read_flow_run(ended.state_details.flow_run_id)

    monkeypatch.setattr(sweeps, "run_deployment", run_here)
    state = sweeps.sweep(["methods.a.lr=0.1,0.5"], ["prepare"], return_state=True)
    assert state.is_completed(), state.message
    assert str(state.message).startswith("lr-0.1: Completed\nlr-0.5: Completed\n")
    for rate in ("0.1", "0.5"):
        place = folder / f"work/experiments/lr-{rate}"
        assert f"lr: {rate}" in (place / "params.yaml").read_text()
        assert (place / "prepared").read_text() == "h"
    assert not (folder / "prepared").exists(), "experiments write in folders of their own"
    with get_client(sync_client=True) as client:
        found = {one.key: one for one in client.read_artifacts() if one.key in ("scores", "sweep")}
    rows = json.loads(str(found["sweep"].data))
    assert [row["experiment"] for row in rows] == ["lr-0.1", "lr-0.1", "lr-0.5", "lr-0.5"]
    assert json.loads(str(found["scores"].data))[0]["linear"] == "84.1 ± 1.0"
    not_run = sweeps.experiments.place(["methods.a.lr=0.7"], "HEAD", (folder / "params.yaml").read_text())
    assert sweeps.experiments.scores(not_run) == []


@pytest.mark.usefixtures("server")
def test_a_sweep_that_is_stopped_cancels_what_its_workers_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no process of it is left, but for the worker."""
    folder = tiny.make(tmp_path / "project", f"mkdir -p encoders; touch {tmp_path}/started; sleep 600")
    (folder / "here.py").write_text(HERE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sweeps.experiments, "base", lambda: ("", ""))
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="local", type="process"))
        client.create_deployment(
            client.create_flow(sweeps.experiment),
            "experiment",
            work_pool_name="local",
            entrypoint="here.py:experiment",
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
        )
    environment = {"PYTHONPATH": str(tiny.ROOT), "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    worker = subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "local"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def stopped(seconds: float) -> None:
        """As by Ctrl-C, once the experiment is at work."""
        assert tiny.wait_until((tmp_path / "started").exists, 200, every=0.5)
        raise KeyboardInterrupt

    try:
        monkeypatch.setattr(sweeps, "time", SimpleNamespace(sleep=stopped))
        with pytest.raises(KeyboardInterrupt):
            sweeps.sweep(["methods.a.lr=0.1"], ["pretrain@a-0"])
        with get_client(sync_client=True) as client:

            def cancelled() -> bool:
                (run,) = (run for run in client.read_flow_runs() if run.name == "lr-0.1" and run.deployment_id)
                return run.state is not None and run.state.is_cancelled()

            assert tiny.wait_until(cancelled, 150, every=1)
        assert tiny.wait_until(lambda: tiny.processes_in(folder) == [], 60, every=1), tiny.processes_in(folder)
    finally:
        worker.terminate()
        said, _ = worker.communicate()
        print(said)
