"""Experiments as Prefect flows: one in a worktree of its own, or all points of a sweep for whatever workers there are:
`python -m pipelines.sweeps --set methods.simclr.temperature=0.1,0.5`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

# Before Prefect: there its settings are made.
from pipelines.flows import (
    Completed,
    Failed,
    State,
    bring_up_to_date,
    create_table_artifact,
    flow,
    get_client,
    if_possible,
    server,
    told,
)

# isort: split
from httpx import TransportError
from prefect.client.orchestration import SyncPrefectClient
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from pipelines import experiments, runner
from sslflow.output import command

DEPLOYMENT = "experiment/experiment"
LOOK_S = 5.0
"""From one look at the points of a sweep to the next."""


@flow(name="experiment")
def experiment(
    settings: Sequence[str] = (),
    revision: str = "",
    params: str = "",
    targets: Sequence[str] = (),
    jobs: int = 0,
    limit_s: float | None = None,
    retries: int = 0,
    share: bool = False,
) -> State[None]:
    """Run the pipeline with other settings, such as `train.epochs=5`, in a worktree that shares this folder's cache.

    It is of the commit `revision` with the text `params` as params.yaml, both of this folder where they aren't given.
    With `share`, what others have pushed to the default DVC remote is taken from there, and what was made is pushed.
    """
    try:
        own, text = ("", "") if revision and params else experiments.base()
        folder = experiments.place(settings, revision or own, params or text)
        with contextlib.chdir(folder):
            state = bring_up_to_date(targets, jobs, limit_s, retries, wait_s=0, pull=share)
            if share and state.is_completed():
                _push()
        if rows := experiments.scores(folder):
            with if_possible():
                create_table_artifact(rows, key="scores", description=f"The leaderboard of {folder.name}, in {folder}.")
        return told(state)
    except ValueError as error:
        return told(Failed(message=str(error)))


def _push() -> None:
    words = ["push", "--run-cache"]
    done = subprocess.run([sys.executable, "-m", "dvc", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"dvc {' '.join(words)}: {done.stderr.strip()[-500:]}")


@flow(name="sweep")
def sweep(
    settings: Sequence[str],
    targets: Sequence[str] = (),
    jobs: int = 0,
    limit_s: float | None = None,
    retries: int = 0,
    share: bool = False,
) -> State[None]:
    """Run an experiment for each combination of settings such as `methods.simclr.temperature=0.1,0.5` and
    `run.seeds=[0],[1]`, by the workers of the deployment `experiment`, and put their scores into one table.

    Cancelled, it cancels those that have not ended.
    """
    try:
        revision, params = experiments.base()
        asked = {"targets": targets, "jobs": jobs, "limit_s": limit_s, "retries": retries, "share": share}
        given = {"revision": revision, "params": params, **asked}
        runs = {experiments.name_of(point): _start(point, given) for point in experiments.points(settings)}
    except ValueError as error:
        return Failed(message=str(error))
    with get_client(sync_client=True) as client:
        try:
            while not all((ended := {name: _state(client, run) for name, run in runs.items()}).values()):
                time.sleep(LOOK_S)
        except TransportError as error:
            said = (
                f"no answer from Prefect's server ({error}); experiments that have begun go on, in {experiments.ROOM}"
            )
            return told(Failed(message=said))
        except BaseException:
            for run in runs.values():
                if not _state(client, run):
                    client.set_flow_run_state(run, Cancelling())
            raise
    rows = [row for name in runs for row in experiments.scores(experiments.ROOM / name)]
    if rows:
        with if_possible():
            create_table_artifact(rows, key="sweep", description=f"Scores of {len(runs)} experiments.")
    said = "\n".join([f"{name}: {state}" for name, state in ended.items()] + (experiments.table(rows) if rows else []))
    return told(Completed(message=said) if set(ended.values()) <= {"Completed"} else Failed(message=said))


def _start(point: Sequence[str], given: dict[str, Any]) -> UUID:
    try:
        run: Any = run_deployment(
            DEPLOYMENT,
            parameters={"settings": list(point), **given},
            flow_run_name=experiments.name_of(point),
            timeout=0,
        )
    except ObjectNotFound:
        raise ValueError(
            f"there is no deployment {DEPLOYMENT} on this server; make it: prefect --no-prompt deploy --name experiment"
        ) from None
    return run.id


def _state(client: SyncPrefectClient, run: UUID) -> str:
    """How a run has ended; empty while it hasn't."""
    state = client.read_flow_run(run).state
    return str(state.name) if state and state.is_final() else ""


@command
def main() -> int:
    """Run a sweep on the server that `PREFECT_API_URL` names; exit code 0, 1 or 130 (stopped)."""
    parser = runner.arguments("Run experiments by Prefect's workers.")
    parser.add_argument("--set", action="append", dest="settings", required=True, metavar="SECTION.KEY=VALUE[,VALUE]")
    parser.add_argument("--retries", type=int, default=0, help="how often a failed stage is tried again (default: 0)")
    parser.add_argument("--share", action="store_true", help="take from, and push to, the default DVC remote")
    asked = parser.parse_args()
    runner.raise_on_sigterm()
    given = PREFECT_API_URL.value()
    if not given or (why := server.missing(str(given))):
        print(f"PREFECT_API_URL is {given or 'not set'}: {why if given else 'it names the server'}", file=sys.stderr)
        print("without Prefect: python -m pipelines.experiments", file=sys.stderr)
        return 1
    try:
        options = (asked.targets, asked.jobs, asked.limit, asked.retries, asked.share)
        state = sweep(asked.settings, *options, return_state=True)
    except KeyboardInterrupt:
        print("stopped, and so are the experiments that had not ended", file=sys.stderr)
        return runner.INTERRUPTED
    print(state.message)
    return int(not state.is_completed())


if __name__ == "__main__":
    sys.exit(main())
