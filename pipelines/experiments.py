"""Experiments side by side, each in a git worktree of its own that shares DVC's cache with this folder:
`python -m pipelines.experiments 'methods.simclr.temperature=0.1,0.5' --at-once 2`.

What one has computed, the others take from the cache, and so does this folder once its params.yaml says the same.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps

from pipelines import processes, runner
from pipelines.workspace import print_line
from sslflow import paths
from sslflow.output import command
from sslflow.reporting.leaderboard import metric_names, order, row_title, shown, title
from sslflow.runtime.files import read_json
from sslflow.settings.params import FILE, load

ROOM = paths.WORK / "experiments"
OWN = (str(FILE), "dvc.lock", "artifacts/")
"""What of the repository a run changes by itself; all else that isn't committed would be left out of an experiment."""
LONGEST = 60


def points(settings: Sequence[str]) -> list[list[str]]:
    """All combinations of settings such as `train.epochs=5,10` and `run.methods=[simclr],[byol]`. Raises `ValueError`
    for what can't be read."""
    try:
        return [list(point[str(FILE)]) for point in get_hydra_sweeps({str(FILE): list(settings)})]
    except Exception as error:  # of Hydra's many kinds
        said = " ".join(str(error.__cause__ or error).split())
        raise ValueError(
            f"{' '.join(settings)}: expected section.key=value or section.key=one,another: {said}"
        ) from None


def name_of(point: Sequence[str]) -> str:
    """A name for a folder and a page: `temperature-0.1`; one that would be long ends in a hash."""
    words = (f"{key.rpartition('.')[2]}-{value}" for key, _, value in (one.partition("=") for one in point))
    name = re.sub(r"[^A-Za-z0-9.,=-]+", "", "_".join(words).replace("_", "-")).strip("-.") or "as-it-is"
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}-{hashlib.sha256(' '.join(point).encode()).hexdigest()[:8]}"
    return name


def base() -> tuple[str, str]:
    """The commit that experiments of this folder run, and the text of its params.yaml, committed or not. Raises
    `ValueError` where code is not committed: an experiment would run without it."""
    top = _git("rev-parse", "--show-toplevel")
    if Path(top).resolve() != Path.cwd().resolve():
        raise ValueError(f"{Path.cwd()}: experiments need the project to be a git repository of its own ({top} is it)")
    changed = [line[3:] for line in _git("status", "--porcelain", strip=False).splitlines()]
    left = [file for file in changed if not file.startswith(OWN)]
    if left:
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise ValueError(
            f"not committed: {', '.join(left[:3])}{more}; experiments run what is committed: commit it first"
        )
    return _git("rev-parse", "HEAD"), FILE.read_text(encoding="utf-8")


def place(point: Sequence[str], revision: str, params: str) -> Path:
    """The folder of an experiment, made or brought to this `revision`, with `params` and the settings of the point.
    Raises `ValueError` for settings or a revision that there are not."""
    folder, settings = ROOM / name_of(point), _overridden(params, point)
    if subprocess.run(["git", "cat-file", "-e", f"{revision}^{{commit}}"], capture_output=True, check=False).returncode:
        _git("fetch", "--quiet", "--all")
    if (folder / ".git").exists():
        _git("-C", str(folder), "checkout", "--quiet", "--force", "--detach", revision)
    else:
        _git("worktree", "prune")
        _git("worktree", "add", "--quiet", "--force", "--detach", str(folder), revision)
    # The one that is committed is of other settings: `report` makes the experiment's own, and till then it has none.
    (folder / paths.LEADERBOARD).unlink(missing_ok=True)
    (folder / FILE).write_text(settings, encoding="utf-8")
    _share_cache(folder)
    _link_raw(folder)
    return folder


def _overridden(params: str, point: Sequence[str]) -> str:
    """The text of a params.yaml with the settings of the point; beside the project, since they may be refused."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / FILE.name
        file.write_text(params, encoding="utf-8")
        try:
            apply_overrides(file, list(point))
        except DvcException as error:
            said = " ".join(str(error.__cause__ or error).split())
            raise ValueError(f"{' '.join(point)}: {said}") from None
        return file.read_text(encoding="utf-8")


def _share_cache(folder: Path) -> None:
    """Let an experiment use this folder's cache, and its remotes."""
    local = Path(".dvc/config.local")
    if local.exists():
        shutil.copy(local, folder / local)
    with Repo() as here:
        cache = Path(here.cache.local.path).parents[1]
    with Repo(str(folder)) as there, there.config.edit("local") as config:
        cast(dict[str, Any], config)["cache"]["dir"] = str(cache)


def _link_raw(folder: Path) -> None:
    """Files and folders that settings name and that git doesn't hold, raw images above all, lie where they did."""
    for word in {str(paths.LISTINGS.parent / "raw"), *_words(load(folder / FILE))}:
        path = Path(word.partition(":")[2] or word)
        ours, link = Path.cwd() / path, folder / path
        if "/" in word and not path.is_absolute() and ours.exists() and not (link.exists() or link.is_symlink()):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(ours)


def _words(content: Any) -> Iterator[str]:
    if isinstance(content, Mapping):
        for value in content.values():
            yield from _words(value)
    elif isinstance(content, list):
        for value in content:
            yield from _words(value)
    elif isinstance(content, str):
        yield content


def scores(folder: Path) -> list[dict[str, str]]:
    """The leaderboard of an experiment, a row for each of its rows; none where it has none yet."""
    file = folder / paths.LEADERBOARD
    board = read_json(file) if file.exists() else {}
    return [
        {
            "experiment": folder.name,
            "row": row_title(board, name),
            **{title(metric): shown(metric, board[name].get(metric)) for metric in metric_names(board)},
        }
        for name in order(board)
    ]


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows below a heading, in columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([row.get(name, "–") for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _git(*words: str, strip: bool = True) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"git {' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip() if strip else done.stdout


@command
def main() -> int:
    """Run all points of a sweep, without Prefect; exit code 0, 1 (something failed or is wrong) or 130 (stopped)."""
    parser = runner.arguments("Run experiments side by side, each in a worktree that shares DVC's cache.")
    parser.add_argument("--set", action="append", dest="settings", required=True, metavar="SECTION.KEY=VALUE[,VALUE]")
    parser.add_argument("--at-once", type=int, default=1, help="experiments side by side (default: 1)")
    asked = parser.parse_args()
    runner.raise_on_sigterm()
    stop = processes.Stop()
    options = [*asked.targets, "--jobs", str(asked.jobs), *(["--limit", str(asked.limit)] if asked.limit else [])]

    def run(folder: Path) -> processes.Ended:
        command = [sys.executable, "-m", "pipelines.runner", *options]
        log = paths.WORK / "logs" / f"experiment-{folder.name}.log"
        return processes.run(command, log, stop, on_line=partial(print_line, folder.name), folder=folder)

    try:
        revision, params = base()
        folders = [place(point, revision, params) for point in points(asked.settings)]
        with ThreadPoolExecutor(max(1, asked.at_once)) as pool:
            try:
                ended = list(pool.map(run, folders))
            except BaseException:
                stop()
                raise
    except KeyboardInterrupt:
        print("stopped; what was finished is kept, and the next run goes on from there", file=sys.stderr)
        return runner.INTERRUPTED
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    rows = [row for folder in folders for row in scores(folder)]
    for line in table(rows) if rows else ["no scores: the stage report makes the leaderboard"]:
        print(line)
    failed = [folder.name for folder, how in zip(folders, ended, strict=True) if how.code]
    if failed:
        print(f"{len(failed)} of {len(folders)} failed: {', '.join(failed)}", file=sys.stderr)
    elif len(folders) > 1:
        print(f"side by side, with intervals: sslflow compare {' '.join(map(str, folders))}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
