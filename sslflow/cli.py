"""`sslflow`: what would run, run it, check settings, compare runs; use what there is on folders of your own."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from sslflow import __version__, methods, paths
from sslflow.commands import arguments
from sslflow.output import command


@command
def main() -> int:
    """Carry out one command; exit code 0, 1 where something is wrong or failed, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="sslflow", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)

    planned = commands.add_parser("plan", help="what would run, and why; runs nothing")
    planned.add_argument(
        "targets", nargs="*", help="stages or groups of stages, with all that they need (default: all)"
    )
    commands.add_parser("run", help="run what is stale (the options of python -m pipelines.runner)", add_help=False)
    reckoned = commands.add_parser("estimate", help="what a run would take: time, memory, disk of each stage")
    reckoned.add_argument("targets", nargs="*", help="as for plan")
    reckoned.add_argument("--jobs", type=int, default=0, help="stages side by side (default: as `sslflow run` does)")
    shown = commands.add_parser("report", help="a report at any time, of what there is: artifacts/report-now")
    shown.add_argument("--now", action="store_true", required=True, help="the whole one is made by `dvc repro report`")
    arguments.of_watching(commands)
    commands.add_parser("methods", help="the methods that there are")
    checked = commands.add_parser("check", help="check the whole of params.yaml")
    checked.add_argument("--params", type=Path, default=Path("params.yaml"), help="another file, such as a recipe")
    checked.add_argument("--build", action="store_true", help="build what is to be run as well, as `sslflow run` does")
    checked.add_argument("--show", metavar="METHOD", help="print all settings of a method, and where they are from")
    begun = commands.add_parser("init", help="write params.yaml for a folder of your own, after a look at it")
    begun.add_argument("folder", type=Path, help="folder of images or videos, at any depth")
    begun.add_argument("--recipe", help="a file of recipes/, without .yaml (default: by what the folder holds)")
    begun.add_argument("--force", action="store_true", help="overwrite a params.yaml that was edited")
    begun.add_argument("--device", default="auto", help="as compute.device (default: auto)")
    cleaned = commands.add_parser("clean", help="remove what methods and seeds that are no longer run have left behind")
    cleaned.add_argument("--yes", action="store_true", help="do it; without, only say what would be removed")

    arguments.of_compare(commands)
    arguments.of_adapt(commands)
    arguments.of_av(commands)
    arguments.of_uses(commands)

    asked, rest = parser.parse_known_args()
    if asked.command == "run":
        return run(rest)
    if rest:
        parser.error(f"unrecognised: {' '.join(rest)}")
    try:
        if asked.command == "plan":
            show_plan(asked.targets)
        elif asked.command == "status":
            show_status(asked.targets, asked.json)
        elif asked.command == "doctor":
            return examine(not asked.quick)
        elif asked.command == "estimate":
            return estimate(asked.targets, asked.jobs)
        elif asked.command == "report":
            report_now()
        elif asked.command == "methods":
            show_methods()
        elif asked.command == "check":
            check(asked.params, asked.show, asked.build)
        elif asked.command == "init":
            begin(asked)
        elif asked.command == "adapt":
            adapt(asked)
        elif asked.command == "av":
            from sslflow.commands.clips import listen

            listen(asked)
        elif asked.command == "compare":
            compare(asked)
        elif asked.command in arguments.USES:
            from sslflow.commands.use import carry_out

            carry_out(asked)
        else:
            clean(asked.yes)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


# The imports below stand where they are used: torch and DVC take seconds to load, and `sslflow --help` needs neither.


def run(arguments: list[str]) -> int:
    """`python -m pipelines.runner` with the arguments given."""
    from pipelines import runner

    return runner.main(arguments)


def show_plan(targets: list[str]) -> None:
    """Print a line for each stage, its reasons after it."""
    from pipelines.plan import plan, text

    for line in text(plan(targets)):
        print(line)


def show_status(targets: list[str], as_json: bool) -> None:
    """Print what runs, where and how far, what waits, and what has failed."""
    from pipelines import status

    for line in (status.as_json if as_json else status.text)(status.status(targets)):
        print(line)


def examine(measure: bool) -> int:
    """Print what of this machine, its programs and settings helps or hinders; 1 where the pipeline can't run."""
    from pipelines import doctor
    from sslflow.commands import doctor as machine

    found = [*machine.findings(measure), *(machine.Finding(*one) for one in doctor.findings())]
    for line in machine.text(found):
        print(line)
    return machine.exit_code(found)


def estimate(targets: list[str], jobs: int) -> int:
    """Measure for about half a minute, and print what each stage that will run takes; 1 where it can't run as set."""
    from sslflow.commands.estimate import clock

    def tell(line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{line}", end="", file=sys.stderr, flush=True)

    with clock.taking() as planning:
        from pipelines import machine
        from pipelines.plan import plan
        from pipelines.side_by_side import total

        stages = [stage for stage in plan(targets) if stage.state != "fresh" and not stage.only_looks]
    if not stages:
        print("nothing will run: all is up to date")
        return 0
    from sslflow.commands.estimate.startup import startups

    tell("measuring how long a stage takes to start")
    with clock.taking() as all_of_it:
        starts = startups(planning.seconds)
        from sslflow.commands.estimate import cost
        from sslflow.commands.estimate import stages as measured
        from sslflow.reporting.leaderboard import duration

        found, doubts = measured.costs([stage.name for stage in stages], starts, tell)
    at_once, gpus = machine.shares(jobs)
    tell("")
    whole = total(
        stages,
        {name: one.seconds for name, one in found.items()},
        {name: one.work for name, one in found.items()},
        at_once,
        clock.cores(),
    )
    for line in cost.table(found, bool(gpus)):
        print(line)
    print(f"all {len(found)}, {at_once} side by side: about {duration(whole)}", end="")
    print(f"; {cost.size(sum(one.disk for one in found.values()))} of disk")
    busy = all_of_it.wall / all_of_it.seconds
    if busy > 1.15:
        print(
            f"other programs take this machine's processors now: as long as they do, about {busy:.1f} times as long, "
            f"{duration(busy * whole)}"
        )
    for line in (*cost.notes(found), *doubts):
        print(f"- {line}")
    refused = measured.refusals(found, at_once)
    for line in refused:
        print(f"error: {line}", file=sys.stderr)
    return 1 if refused else 0


def report_now() -> None:
    """Make a report of the stages that are up to date, and of how far the others are."""
    from pipelines.at_work import at_work, last_line
    from pipelines.plan import plan
    from sslflow.commands import report_now as now
    from sslflow.reporting.so_far import Line

    stages = plan()
    running = at_work(stages)
    states = {"fresh": "up to date", "stale": "waiting", "pending": "may run"}
    unfinished = [
        Line(stage.name, "running", last_line(stage.name))
        if stage.name in running
        else Line(stage.name, states[stage.state], "; ".join(stage.reasons[:2]))
        for stage in stages
        if stage.name in running or (stage.state != "fresh" and not stage.only_looks)
    ]
    missing = {line.stage for line in unfinished}
    present = [out for stage in stages if stage.name not in missing for out in stage.outs if Path(out).exists()]
    told = now.so_far(len(stages), unfinished)
    page = now.report_now([out for out in present if Path(out) != paths.REPORT], told)
    print(f"{told.done} of {told.stages} stages are up to date; {page}")


def show_methods() -> None:
    """Print, for each kind, the name of each method and the first line of its file: the idea and the source."""
    from sslflow.settings.by_name import names

    found = {kind: names(f"sslflow.methods.{kind}") for kind in names("sslflow.methods")}
    width = max(len(name) for kind in found.values() for name in kind)
    for kind in found:
        print(f"{kind}:")
        for name in found[kind]:
            source = (Path(methods.__path__[0]) / kind / f"{name}.py").read_text(encoding="utf-8")
            first, *_ = (ast.get_docstring(ast.parse(source)) or "").splitlines() or [""]
            print(f"  {name:<{width}}  {first}")


def check(file: Path, method: str | None, build: bool) -> None:
    """Check a file of settings against everything that reads it, or print those of a method. To `build` what is to be
    run finds what only a constructor refuses; it takes as long again."""
    if method:
        from sslflow.commands.show import show

        print(show(method, file), end="")
        return
    from sslflow import paths
    from sslflow.commands import check as settings
    from sslflow.runtime.folders import refuse_links

    if file.resolve() == Path("params.yaml").resolve():
        refuse_links(paths.parents())
    known = ", ".join(f"{len(found)} for {kind}" for kind, found in settings.check(file).items())
    if build:
        from sslflow.commands.build import refuse

        refuse(file)
    asked = ", ".join(settings.to_run(file)) or "no method"
    print(f"{file} is in order; to run: {asked}; methods with settings: {known}")


def begin(asked: argparse.Namespace) -> None:
    """Write params.yaml for a folder, and say what stands in it and why."""
    from sslflow.commands.init import init

    for line in init(asked.folder, asked.recipe, force=asked.force, device=asked.device):
        print(line)


def adapt(asked: argparse.Namespace) -> None:
    """Carry classes over from one folder to another."""
    from pipelines.adapt_folders import adapt_folders
    from sslflow.commands.given import start_settings

    settings = {name: getattr(asked, name) for name in ("method", "epochs", "image_size", "channels", "seed")}
    start = start_settings(asked.encoder, asked.image_size, asked.channels)
    encoder = Path(asked.encoder) if asked.encoder and not start else None
    adapt_folders(asked.source, asked.target, asked.output, encoder=encoder, start=start, **settings)


def compare(asked: argparse.Namespace) -> None:
    """Print runs side by side."""
    from pipelines.revisions import fetch
    from sslflow.commands import compare as command

    print(command.compare(asked.runs, fetch, as_json=asked.json))


def clean(sure: bool) -> None:
    """Print, and where it is `sure` remove, what is no longer in `run.methods` and `run.seeds`."""
    from pipelines import leftovers

    for line in leftovers.clean(sure):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
