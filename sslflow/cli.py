"""`sslflow`: what would run and why, run it, list methods, check settings, clear away leftovers; and to use what there
is on folders of your own."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from sslflow import __version__, methods

MARKS = {"fresh": " ", "stale": "*", "pending": "?"}
SAID = {"fresh": "up to date", "stale": "will run", "pending": "may run"}


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
    commands.add_parser("methods", help="the methods that there are")
    checked = commands.add_parser("check", help="check the whole of params.yaml")
    checked.add_argument("--params", type=Path, default=Path("params.yaml"), help="another file, such as a recipe")
    checked.add_argument("--build", action="store_true", help="build what is to be run as well, as `sslflow run` does")
    checked.add_argument("--show", metavar="METHOD", help="print all settings of a method, and where they are from")
    cleaned = commands.add_parser("clean", help="remove what methods and seeds that are no longer run have left behind")
    cleaned.add_argument("--yes", action="store_true", help="do it; without, only say what would be removed")

    adapted = commands.add_parser(
        "adapt", help="give each image of a folder a class of another folder, which has labels, or the word unknown"
    )
    adapted.add_argument("--source", type=Path, required=True, help="folder with a folder of images for each class")
    adapted.add_argument("--target", type=Path, required=True, help="folder of images without labels")
    adapted.add_argument("--output", type=Path, default=Path("predictions.parquet"), help="table that is written")
    adapted.add_argument("--method", default="gated_dance", help="a method of the section adapt_methods of params.yaml")
    adapted.add_argument(
        "--encoder",
        default="",
        help="what to start from: file of an encoder, package:efficientnet-lite0, timm:NAME, or a name in starts of "
        "params.yaml (default: pretrain on both folders)",
    )
    adapted.add_argument("--epochs", type=int, default=0, help="of that pretraining (default: as in params.yaml)")
    adapted.add_argument(
        "--image-size", type=int, default=64, help="pixels; an encoder's file has its own (default: 64)"
    )
    adapted.add_argument("--channels", type=int, default=3, choices=(1, 3), help="likewise (default: 3)")
    adapted.add_argument("--seed", type=int, default=0)

    heard = commands.add_parser("av", help="features of videos, a search in them, how well a model tells their sounds")
    uses = heard.add_subparsers(dest="use", metavar="use", required=True)
    embedded = uses.add_parser("embed", help="features of every second of every video of a folder, with its time")
    searched = uses.add_parser("search", help="the moments of a folder's videos that fit a sound or an image best")
    told = uses.add_parser("score", help="how well a model tells own sounds from others in videos new to it")
    for used in (embedded, searched, told):
        used.add_argument("folder", type=Path, help="folder with videos, at any depth")
        used.add_argument("--model", type=Path, help="file of artifacts/clips/methods (default: of alignment)")
    embedded.add_argument("--output", type=Path, default=Path("features.parquet"), help="table that is written")
    wanted = searched.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--sound", type=Path, help="file with a sound")
    wanted.add_argument("--image", type=Path, help="file with an image")
    searched.add_argument("--top", type=int, default=10, help="so many moments (default: 10)")

    asked, rest = parser.parse_known_args()
    if asked.command == "run":
        return run(rest)
    if rest:
        parser.error(f"unrecognised: {' '.join(rest)}")
    try:
        if asked.command == "plan":
            show_plan(asked.targets)
        elif asked.command == "methods":
            show_methods()
        elif asked.command == "check":
            check(asked.params, asked.show, asked.build)
        elif asked.command == "adapt":
            adapt(asked)
        elif asked.command == "av":
            listen(asked)
        else:
            clean(asked.yes)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


# The imports below stand where they are used: torch and DVC take seconds to load, and `sslflow --help` needs neither.


def run(arguments: list[str]) -> int:
    """`python -m pipelines.runner` with the arguments given."""
    from pipelines import runner

    return runner.main(arguments)


def show_plan(targets: list[str]) -> None:
    """Print a line for each stage, its reasons after it."""
    from pipelines.plan import plan

    stages = plan(targets)
    width = max((len(stage.name) for stage in stages), default=0)
    for stage in stages:
        why = f"  {stage.reasons[0]}" if stage.reasons else ""
        more = f" (and {len(stage.reasons) - 1} more)" if len(stage.reasons) > 4 else ""
        print(f"{MARKS[stage.state]} {stage.name:<{width}}  {SAID[stage.state]:<10}{why}{more}".rstrip())
        for reason in stage.reasons[1:] if not more else ():
            print(f"  {'':<{width}}  {'':<10}  {reason}")
    counts = [f"{sum(stage.state == state for stage in stages)} {said}" for state, said in SAID.items()]
    print(f"{len(stages)} stages: {', '.join(counts)}")


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
    print(f"{file} is in order: {len(settings.stage_names())} stages; methods: {known}")


def adapt(asked: argparse.Namespace) -> None:
    """Carry classes over from one folder to another."""
    from pipelines.adapt_folders import adapt_folders
    from sslflow.commands.given import start_settings

    settings = {name: getattr(asked, name) for name in ("method", "epochs", "image_size", "channels", "seed")}
    start = start_settings(asked.encoder, asked.image_size, asked.channels)
    encoder = Path(asked.encoder) if asked.encoder and not start else None
    adapt_folders(asked.source, asked.target, asked.output, encoder=encoder, start=start, **settings)


def listen(asked: argparse.Namespace) -> None:
    """Describe the videos of a folder, search in them, or score a model on them."""
    from sslflow.commands import clips as use

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    device = use.chosen_device()
    if asked.use == "embed":
        rows = use.embed_folder(asked.folder, asked.model, asked.output, device, tell)
        print(f"{asked.output}: {rows} rows")
        return
    if asked.use == "score":
        told = use.score_folder(asked.folder, asked.model, device, tell)
        share, low, high = (f"{100 * value:.1f}" for value in (told.share, told.low, told.high))
        print(f"{share} % of {told.windows} windows fit their own sound better than that of another {told.wrong}")
        over = f"over {told.videos} videos" if told.videos > 1 else "of this one video; others may be different"
        print(f"95 % interval {low} to {high} {over}; chance 50")
        return
    wanted = {"sound": asked.sound, "image": asked.image, "top": asked.top}
    found = use.search_folder(asked.folder, asked.model, device, tell, **wanted)
    for row in found.to_pylist():
        print(f"{row['score']:6.3f}  {row['start']:8.2f} s  {row['video']}")


def clean(sure: bool) -> None:
    """Print, and where it is `sure` remove, what is no longer in `run.methods` and `run.seeds`."""
    from pipelines import leftovers, locks

    with locks.one_run():
        found = leftovers.find()
        for leftover in found:
            print(f"{leftover.stage}: {', '.join(map(str, leftover.files)) or 'only its entry in dvc.lock'}")
        if not found:
            print("nothing is left over")
        elif sure:
            leftovers.remove(found)
            print(f"removed {len(found)} (DVC's cache keeps them until `dvc gc`)")
        else:
            print(f"{len(found)} left over; `sslflow clean --yes` removes them")


if __name__ == "__main__":
    sys.exit(main())
