"""A small DVC pipeline in a folder of its own, whose stages are shell commands, to test what runs stages."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent

PARAMS = """
run: {methods: [a, b], seeds: [0], launch: python -m}
compute: {device: cpu, threads: 1}
methods:
  a: {lr: 2e-3, widths: [1, 2]}
  b: {lr: 1e-3}
"""

PIPELINE = """
stages:
  prepare:
    cmd: head -c 1 source.txt > prepared
    deps: [source.txt]
    outs: [prepared]
  pretrain:
    matrix: {method: "${run.methods}", seed: "${run.seeds}"}
    cmd: sh pretrain.sh ${item.method} ${item.seed}
    deps: [prepared, pretrain.sh]
    params: ["methods.${item.method}"]
    outs: ["encoders/${item.method}-${item.seed}"]
  report:
    cmd: ls encoders > report.txt
    deps: [encoders]
    outs: [report.txt]
"""

# Before them a stage that runs every time: it lists a folder of which DVC knows nothing, and `prepare` reads the list.
# A list that is as before is not written.
LOOKING = PIPELINE.replace(
    "stages:\n",
    """stages:
  look:
    cmd:
      - echo x >> looked
      - ls raw > list.new
      - if cmp -s list.new list; then rm list.new; else mv list.new list; fi
    always_changed: true
    outs: [list]
""",
).replace("deps: [source.txt]", "deps: [source.txt, list]")

PRETRAIN = """
mkdir -p encoders
echo "training $1"
cat prepared > encoders/$1-$2
"""


def make(folder: Path, pretrain: str = PRETRAIN) -> Path:
    """Write the pipeline into a folder; `pretrain` is the shell script behind its `pretrain@METHOD-0` stages."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (folder / "params.yaml").write_text(PARAMS)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "pretrain.sh").write_text(pretrain)
    (folder / "source.txt").write_text("hello")
    return folder


def commit(folder: Path) -> None:
    """Make the folder a git repository, in which experiments have worktrees of their own, and commit all of it."""
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / ".gitignore").write_text("/work\n/prepared\n/encoders\n/report.txt\n/data\n/.dvc/cache\n/.dvc/tmp\n")
    (folder / ".dvcignore").write_text("/work\n")
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for words in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "as it is"]):
        subprocess.run(["git", *words], cwd=folder, env={**os.environ, **author}, check=True, capture_output=True)


def start(module: str, folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Start `main` of a pipelines module in the folder, less its check of params.yaml, which knows the real stages."""
    return _start(module, folder, words, environment, subprocess.PIPE)


def start_on_terminal(module: str, folder: Path, *words: str) -> tuple[subprocess.Popen[str], Callable[[], str]]:
    """The same on a terminal of 80 columns; and a function that tells all that has been written to it."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    process = _start(module, folder, words, {"TERM": "xterm"}, its)
    os.close(its)
    written = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # its end is an error
            while True:
                written.extend(os.read(ours, 4096))
        os.close(ours)

    threading.Thread(target=read, daemon=True).start()
    return process, lambda: written.decode(errors="replace")


def screen(text: str) -> list[str]:
    """The lines that a terminal shows after `text`, of which it knows no more than the runner may write."""
    lines = [""]
    column = 0
    for part in re.findall(r"\n|\r|\x1b\[\d*[A-Za-z]|[^\r\n\x1b]+", text):
        if part == "\x1b[0m":  # DVC, when it ends: colours as they were
            continue
        if part == "\r":
            column = 0
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part == "\n":
            lines.append("")
            column = 0
        else:
            assert part[0] != "\x1b", part
            lines[-1] = lines[-1][:column].ljust(column) + part + lines[-1][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def _start(
    module: str, folder: Path, words: Sequence[str], environment: Mapping[str, str], output: int
) -> subprocess.Popen[str]:
    code = (
        f"import sys; from pipelines import runner, {module}; runner.check_params = lambda: None; "
        f"sys.argv[1:] = {list(words)!r}; sys.exit({module}.main())"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_in(folder: Path) -> list[str]:
    """Command lines of all processes at work in a folder, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd().startswith(str(folder)):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 120.0, every: float = 0.05) -> bool:
    """Whether `condition()` comes true within some seconds, many, for a machine may be busy. It is
    asked `every` so many."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(every)
    return False
