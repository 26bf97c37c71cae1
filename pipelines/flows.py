"""The runner with a Prefect skin: a task for each stage, states, logs, retries, artifacts: `python -m pipelines.flows`.

Needs no server to be set up: without `PREFECT_API_URL` there is one for as long as the run takes.
What is to run and what is up to date is DVC's to say; Prefect shows it.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# Prefect reads these when it is imported. Its database lies in the project's scratch folder, and it phones nowhere.
os.environ.setdefault("PREFECT_HOME", str(Path("work/prefect").resolve()))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from pipelines import locks, machine, runner, server
from pipelines.plan import Planned
from pipelines.workspace import LOGS, Result, Workspace, print_line
from sslflow import paths
from sslflow.reporting.leaderboard import metric_names, order, row_title, shown, title
from sslflow.runtime.files import read_json

RETRY_DELAY_S = 5.0


@flow(name="sslflow")
def pipeline(targets: Sequence[str] = (), jobs: int = 0, limit_s: float | None = None, retries: int = 0) -> State[None]:
    """Run what is stale of `targets` (none: all) through DVC, up to `jobs` stages side by side (0: as the machine has).

    A stage may take `limit_s` seconds and is tried again `retries` times; a pretraining stage then goes on from its
    checkpoint. Returns a Failed state where a stage failed or the settings are wrong. `pipeline.fn()` does the same
    without Prefect.
    """
    try:
        return _run(targets, jobs, limit_s, retries)
    except ValueError as error:
        return Failed(message=str(error))


def _run(targets: Sequence[str], jobs: int, limit_s: float | None, retries: int) -> State[None]:
    in_prefect = FlowRunContext.get() is not None
    with locks.one_run() as held:
        side_by_side, gpus = machine.shares(jobs)
        on_line = _log if in_prefect else print_line
        workspace = Workspace(limit_s=limit_s, gpus=gpus, hold=[held], on_line=on_line)
        run = in_tasks(workspace, retries) if in_prefect else workspace.run
        results = runner.bring_up_to_date(targets, run, jobs=side_by_side, stop=workspace.stop)
    said = runner.summary(list(results.values()))
    if not all(result.good for result in results.values()):
        return Failed(message=said)
    if in_prefect:
        publish()
    return Completed(message=said)


def in_tasks(workspace: Workspace, retries: int) -> Callable[[Planned], Result]:
    """`workspace.run` as a Prefect task for each stage, to be called from any thread while the flow runs."""
    # Threads start with an empty context; in a copy of this one, a task finds the flow run that it belongs to.
    flow_context = contextvars.copy_context()
    states: dict[str, State] = {}

    def run(stage: Planned) -> Result:
        results: list[Result] = []

        @task(
            name=stage.name.partition("@")[0],
            task_run_name=stage.name,
            description="; ".join(stage.reasons) or "up to date",
            cache_policy=NO_CACHE,
            retries=retries,
            retry_delay_seconds=RETRY_DELAY_S,
            retry_condition_fn=lambda task, task_run, state: not workspace.stop.called,
        )
        def bring_up_to_date() -> State[None]:
            result = workspace.run(stage)
            results.append(result)
            if result.outcome == "stopped":
                return Cancelled(message=result.message)
            if not result.good:
                return Failed(message=result.message)
            return Completed(name="Cached" if result.outcome == "cached" else None, message=result.message or None)

        upstream = [states[name] for name in stage.after]
        state = flow_context.copy().run(lambda: bring_up_to_date(return_state=True, wait_for=upstream))
        states[stage.name] = state
        return results[-1] if results else Result(stage.name, "failed", state.message or "Prefect ran no task")

    return run


def publish() -> None:
    """The leaderboard as a table, and a page with the way to the report, among the flow run's artifacts."""
    if paths.LEADERBOARD.exists():
        board = read_json(paths.LEADERBOARD)
        rows = [
            {
                "name": row_title(board, name),
                **{title(metric): shown(metric, board[name].get(metric)) for metric in metric_names(board)},
            }
            for name in order(board)
        ]
        create_table_artifact(rows, key="leaderboard", description="Mean and spread over seeds, beside the controls.")
    page = (paths.REPORT / "index.html").resolve()
    if page.exists():
        create_markdown_artifact(
            f"# Report\n[{page.name}]({page.as_uri()}): one file, on `{platform.node()}` in `{page}`.",
            key="report",
            description="Where the report of this run lies.",
        )


def _log(stage: str, line: str) -> None:
    get_run_logger().info(line)


def main() -> int:
    """Run the flow in this process; exit code 0, 1 (something failed or is wrong) or 130 (stopped)."""
    parser = runner.arguments("Run what is stale through DVC, shown by Prefect.")
    parser.add_argument("--retries", type=int, default=0, help="how often a failed stage is tried again (default: 0)")
    asked = parser.parse_args()
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    runner.raise_on_sigterm()
    given = PREFECT_API_URL.value()
    if given and (why := server.missing(str(given))):
        advice = "start it (docs/prefect.md), or unset PREFECT_API_URL for a server of the run's own"
        print(f"PREFECT_API_URL is {given}: {why}; {advice}", file=sys.stderr)
        return 1
    try:
        with contextlib.ExitStack() as stack:
            if not PREFECT_API_URL.value():
                address = stack.enter_context(server.temporary(LOGS / "prefect-server.log"))
                stack.enter_context(temporary_settings({PREFECT_API_URL: address}))
            # Lines that still wait to be sent have nowhere to go once the server is gone.
            stack.callback(APILogHandler().flush)
            state = pipeline(asked.targets, asked.jobs, asked.limit, asked.retries, return_state=True)
    except server.NotStarted as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, and the next run goes on from there", file=sys.stderr)
        return runner.INTERRUPTED
    if not state.is_completed():
        print(state.message, file=sys.stderr)
        return 1
    print(runner.results_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
