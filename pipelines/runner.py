"""Runs what is stale, stage by stage, through DVC: `python -m pipelines.runner [targets] [--jobs N]`.

DVC's graph is the only graph and its cache the only cache: each stage is one `dvc --wait-for-lock repro -s STAGE`, so
plain `dvc repro` does the same job, and a run that was cut off is resumed where it stood. A stage that fails takes with
it what depends on it; the others run, since DVC keeps what they make. A stage that runs every time is looked at first
without DVC, which would write dvc.lock anew though nothing has changed. Nothing here knows Prefect.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import FrameType, MappingProxyType
from typing import NoReturn, get_args

from pipelines import locks, machine
from pipelines.plan import Planned, heights, plan
from pipelines.progress import Display, Times
from pipelines.workspace import Outcome, Result, Workspace
from sslflow import paths
from sslflow.output import command
from sslflow.reporting.leaderboard import leaderboard_text
from sslflow.runtime.files import read_json

DURATIONS = paths.WORK / "durations.json"
INTERRUPTED = 130


def execute(
    stages: Sequence[Planned],
    run: Callable[[Planned], Result],
    *,
    jobs: int,
    stop: Callable[[], None],
    on_result: Callable[[Result], None] = lambda result: None,
    done: Mapping[str, Result] = MappingProxyType({}),
) -> dict[str, Result]:
    """Call `run` on every stage after what it needs, up to `jobs` side by side, longest chains first; results by name.

    Those in `done` have their results already. `run` is called in threads. Whatever ends this early, Ctrl-C and signals
    that raise included, calls `stop` and waits for the threads first.
    """
    results = dict(done)
    height = heights(stages)
    waiting = sorted((stage for stage in stages if stage.name not in done), key=lambda stage: -height[stage.name])
    running: dict[Future[Result], Planned] = {}

    def settle(result: Result) -> None:
        results[result.stage] = result
        on_result(result)

    with ThreadPoolExecutor(max(1, len(stages)), thread_name_prefix="stage") as pool:
        try:
            while waiting or running:
                for stage in list(waiting):
                    busy = sum(other.state != "fresh" for other in running.values())
                    above = [results[name] for name in stage.after if name in results]
                    if bad := [result.stage for result in above if not result.good]:
                        waiting.remove(stage)
                        settle(Result(stage.name, "not run", f"needs {', '.join(bad)}"))
                    elif len(above) == len(stage.after) and (busy < jobs or stage.state == "fresh"):
                        waiting.remove(stage)
                        running[pool.submit(run, stage)] = stage
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    del running[future]
                    settle(future.result())
        except BaseException:
            stop()
            raise
    return results


def bring_up_to_date(
    targets: Sequence[str],
    run: Callable[[Planned], Result],
    *,
    jobs: int,
    stop: Callable[[], None],
    on_plan: Callable[[Sequence[Planned]], None] = lambda stages: None,
    on_result: Callable[[Result], None] = lambda result: None,
) -> dict[str, Result]:
    """Plan and execute what `targets` need, stages that always run first: what they find is in the plan of the others.

    Raises `ValueError` where there is something to do and params.yaml is not in order.
    """
    stages = plan(targets)
    on_plan(stages)
    checked = _check_if_needed(stages)
    done = execute(_always_and_above(stages), run, jobs=jobs, stop=stop, on_result=on_result)
    if any(result.outcome != "cached" for result in done.values()):
        stages = plan(targets)
        on_plan(stages)
        if not checked:
            _check_if_needed(stages)
    return execute(stages, run, jobs=jobs, stop=stop, on_result=on_result, done=done)


def _check_if_needed(stages: Sequence[Planned]) -> bool:
    """Check params.yaml, which takes seconds, unless nothing will run but a look; whether it was checked."""
    needed = any(stage.state != "fresh" and not stage.only_looks for stage in stages)
    if needed:
        check_params()
    return needed


def _always_and_above(stages: Sequence[Planned]) -> list[Planned]:
    """The stages that run every time, and what they need."""
    needed: set[str] = set()
    for stage in reversed(stages):
        if stage.always or stage.name in needed:
            needed |= {stage.name, *stage.after}
    return [stage for stage in stages if stage.name in needed]


def check_params() -> None:
    """Check the whole of params.yaml against every stage that reads it, and build what is to be run. Raises
    `ValueError` with all that is wrong.

    In a process of its own: it imports the library, which this one does without.
    """
    checked = subprocess.run(
        [sys.executable, "-m", "sslflow.cli", "check", "--build"], capture_output=True, text=True, check=False
    )
    if checked.returncode:
        raise ValueError(checked.stderr.strip() or f"sslflow check: exit code {checked.returncode}")


def summary(results: Sequence[Result]) -> str:
    """How many stages did what, and after that, what went wrong."""
    counts = {outcome: sum(result.outcome == outcome for result in results) for outcome in get_args(Outcome)}
    lines = [f"{len(results)} stages: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)]
    lines += [f"{result.stage}: {result.outcome}: {result.message}" for result in results if not result.good]
    return "\n".join(lines)


def reported(targets: Sequence[str]) -> bool:
    """Whether a run of these brings the report up to date: without it, the leaderboard that there is says nothing of
    them."""
    return not targets or "report" in targets


def results_text() -> str:
    """The leaderboard and the report's path, where they have been made."""
    board = read_json(paths.LEADERBOARD) if paths.LEADERBOARD.exists() else {}
    parts = [leaderboard_text(board)] if board else []
    page = paths.REPORT / "index.html"
    return "\n".join([*parts, *([f"report: {page}"] if page.exists() else [])])


def raise_on_sigterm() -> None:
    """Make a SIGTERM end this process as Ctrl-C does, by an exception, so that what runs is ended first."""

    def stopped(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stopped)


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that the runner and the flow share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("targets", nargs="*", help="stages or groups of stages, with all that they need (default: all)")
    parser.add_argument("--jobs", type=int, default=0, help="stages side by side (default: cores // compute.threads)")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="time that one stage may take (default: any)")
    return parser


@command
def main(words: Sequence[str] | None = None) -> int:
    """Run the stages named on the command line; exit code 0, 1 (something failed or is wrong) or 130 (stopped)."""
    parser = arguments("Run what is stale, stage by stage, through DVC.")
    parser.add_argument("--pull", action="store_true", help="take what others have pushed to the default DVC remote")
    asked = parser.parse_args(words)
    raise_on_sigterm()
    try:
        with locks.one_run() as held:
            jobs, _ = machine.shares(asked.jobs)
            with Display(jobs, Times(DURATIONS)) as display:
                workspace = Workspace(limit_s=asked.limit, pull=asked.pull, on_line=display.line, hold=[held])

                def run(stage: Planned) -> Result:
                    display.started(stage)
                    return workspace.run(stage)

                results = bring_up_to_date(
                    asked.targets,
                    run,
                    jobs=jobs,
                    stop=workspace.stop,
                    on_plan=display.planned,
                    on_result=lambda result: display.ended(result.stage, result.outcome, result.seconds),
                )
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, and the next run goes on from there", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(summary(list(results.values())))
    good = all(result.good for result in results.values())
    if good and reported(asked.targets):
        print(results_text())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
