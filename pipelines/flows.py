"""The runner with a Prefect skin: a task for each stage, states, logs, retries, artifacts: `python -m pipelines.flows`.

Needs no server to be set up: without `PREFECT_API_URL` there is one for as long as the run takes.
What is to run and what is up to date is DVC's to say; Prefect shows it.
"""

from __future__ import annotations

import base64
import contextlib
import contextvars
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pipelines import prefect_home  # noqa: F401  # before Prefect

# isort: split
from httpx import HTTPError
from prefect import flow, get_client, get_run_logger, task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Completed, Failed

from pipelines import locks, machine, runner, server
from pipelines.plan import Planned, group
from pipelines.workspace import LOGS, Result, Workspace, print_line
from sslflow import paths
from sslflow.output import command
from sslflow.reporting.curves import drawings, poster, read_curve
from sslflow.reporting.leaderboard import duration, metric_names, order, row_title, shown, title
from sslflow.reporting.running import TRAINING, training
from sslflow.reporting.verdicts import findings_in
from sslflow.runtime.files import read_json

RETRY_DELAY_S = 5.0
LOOK_S = 30.0
"""From one look at a training to the next."""
SERVER_S = 60.0
"""For which a flow that has ended waits for a server that is gone: one that is started anew is there by then."""
COLUMNS = ("step", "loss", "lr", "rankme", "feature_std")
"""Of the curve, whose last row stands among the artifacts."""


@flow(name="sslflow")
def pipeline(
    targets: Sequence[str] = (), jobs: int = 0, limit_s: float | None = None, retries: int = 0, wait_s: float = 0
) -> State[None]:
    """Run what is stale of `targets` (none: all) through DVC, up to `jobs` stages side by side (0: as the machine has).

    A stage may take `limit_s` seconds and is tried again `retries` times; a pretraining stage then goes on from its
    checkpoint. A run that is at work in this folder is waited for `wait_s` seconds. Returns a Failed state where a
    stage failed or the settings are wrong. `pipeline.fn()` does the same without Prefect.
    """
    try:
        return told(bring_up_to_date(targets, jobs, limit_s, retries, wait_s))
    except ValueError as error:
        return told(Failed(message=str(error)))


def told(state: State[None]) -> State[None]:
    """How a flow ends, for Prefect to show. Where its server is gone, Prefect would try for minutes to tell it, and end
    with a traceback: then it is said here, and this process ends."""
    address = PREFECT_API_URL.value()
    if FlowRunContext.get() and address and (why := server.gone(str(address), SERVER_S)):
        print(
            f"{state.name}: {state.message}\n"
            f"Prefect's server at {address} is lost ({why}): it will go on showing this run as running; results and "
            "dvc.lock are as they should be",
            file=sys.stderr,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if state.is_completed() else 1)  # on the way out, too, Prefect waits for its server
    return state


@contextlib.contextmanager
def if_possible() -> Iterator[None]:
    """Within it, something is shown; a server that is lost is no reason to stop, or to wait for a minute each time."""
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}),
        contextlib.suppress(HTTPError, PrefectException, OSError),
    ):
        yield


def bring_up_to_date(
    targets: Sequence[str], jobs: int, limit_s: float | None, retries: int, wait_s: float, pull: bool = False
) -> State[None]:
    """The work of `pipeline`, in the present folder; with `pull`, what others have made is taken from the default DVC
    remote. Raises `ValueError` where the settings are wrong."""
    in_prefect = FlowRunContext.get() is not None
    with locks.one_run(wait_s=wait_s) as held:
        side_by_side, _ = machine.shares(jobs)
        on_line = _log if in_prefect else print_line
        workspace = Workspace(limit_s=limit_s, pull=pull, hold=[held], on_line=on_line)
        run = in_tasks(workspace, retries) if in_prefect else workspace.run
        results = runner.bring_up_to_date(targets, run, jobs=side_by_side, stop=workspace.stop)
    said = runner.summary(list(results.values()))
    if not all(result.good for result in results.values()):
        return Failed(message=said)
    if in_prefect and runner.reported(targets):
        with if_possible():
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
            with watched(stage.name):
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


@contextlib.contextmanager
def watched(stage: str) -> Iterator[None]:
    """While a stage trains within, how far it is, its curve and what that says are artifacts of the task run, renewed
    every `LOOK_S` seconds and at its end; of a stage that judges, its verdict at the end."""
    artifacts, ended = Artifacts(stage), threading.Event()
    here = contextvars.copy_context()

    def look() -> None:
        while not ended.wait(LOOK_S):
            here.run(artifacts.renew)

    thread = threading.Thread(target=look, name=f"look at {stage}", daemon=True)
    if group(stage) in TRAINING:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        if thread.ident:
            thread.join()
    artifacts.conclude()


class Artifacts:
    """What Prefect's pages show of one stage; each artifact is made once and then changed."""

    def __init__(self, stage: str) -> None:
        self.stage, self._known = stage, {}
        self.group, _, self.run = stage.partition("@")
        method, _, seed = self.run.rpartition("-")
        self.of = (method, int(seed)) if seed.isdigit() else ("", 0)
        self.root = paths.OF_CLIPS if self.group.endswith("_clips") else paths.ARTIFACTS

    def renew(self) -> None:
        """Show a training as it is now; nothing where it has not come far enough to tell."""
        if found := training(self.stage):
            share, left = 100 * found.step / found.steps, duration(found.seconds_left)
            said = [f"**{one.words}** {one.advice}" for one in found.findings] or [found.silence]
            self._show(share, f"Step {found.step} of {found.steps}, about {left} left.", said, found.rows)

    def conclude(self) -> None:
        """Show how a training, or a look at its curve, has ended, where it has."""
        method, seed = self.of
        if self.group in TRAINING and (rows := read_curve(paths.curve(method, seed, self.root))):
            self._show(100.0, f"All {rows[-1]['step']} steps are done.", [], rows)
        elif self.group in ("inspect", "inspect_clips"):
            said = [
                f"{one['words']} {one['advice']}".strip() for one in findings_in(paths.verdict(method, seed, self.root))
            ]
            if said:
                self._put("verdict", create_markdown_artifact, "\n\n".join(said))

    def _show(self, share: float, far: str, said: list[str], rows: list[dict[str, str]]) -> None:
        method, seed = self.of
        last = [(name, f"{float(rows[-1][name]):.4g}") for name in COLUMNS if rows[-1].get(name)]
        table = [f"| {' | '.join(cells)} |" for cells in ([name for name, _ in last], ["---"] * len(last))]
        table.append(f"| {' | '.join(value for _, value in last)} |")
        picture = base64.b64encode(poster(drawings(method, {seed: rows})).encode()).decode()
        self._put("progress", create_progress_artifact, share)
        self._put("curve", create_image_artifact, f"data:image/svg+xml;base64,{picture}")
        self._put("so-far", create_markdown_artifact, "\n\n".join([far, *said, "\n".join(table)]))

    def _put(self, kind: str, create: Callable[..., Any], content: Any) -> None:
        key = f"{self.stage}-{kind}".lower().replace("@", "-").replace("_", "-")
        with if_possible():
            if key in self._known:
                with get_client(sync_client=True) as client:
                    client.update_artifact(self._known[key], ArtifactUpdate(data=content))
            else:
                self._known[key] = create(content, key=key, description=f"{self.stage}: {kind}")


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


@command
def main() -> int:
    """Run the flow in this process; exit code 0, 1 (something failed or is wrong) or 130 (stopped)."""
    parser = runner.arguments("Run what is stale through DVC, shown by Prefect.")
    parser.add_argument("--retries", type=int, default=0, help="how often a failed stage is tried again (default: 0)")
    asked = parser.parse_args()
    runner.raise_on_sigterm()
    given = PREFECT_API_URL.value()
    if given and (why := server.missing(str(given))):
        advice = "start it (docs/operate.md), or unset PREFECT_API_URL for a server of the run's own"
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
    print(runner.results_text() if runner.reported(asked.targets) else state.message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
