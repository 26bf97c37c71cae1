"""A command whose reader goes ends as shells expect it, whatever it was about to print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslflow.output import READER_GONE
from tests import tiny

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(tiny.ROOT)}
WORKS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from sslflow.output import command

@command
def main():
    try:
        with ThreadPoolExecutor(1) as pool:
            {line}
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0

sys.exit(main())
"""


def unread(*command: str, folder: Path = tiny.ROOT) -> tuple[int, str]:
    """Exit code and messages of a Python command whose standard output nobody reads."""
    read, written = os.pipe()
    os.close(read)
    with os.fdopen(written, "wb") as output:
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=ENVIRONMENT, stdout=output, stderr=subprocess.PIPE, check=False
        )
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize(
    "line",
    [
        "print('the last line, which is written at the end')",
        "print('a line', flush=True)",
        "print('x' * 1_000_000)",
        "pool.submit(print, 'of a thread', flush=True).result()",
        "print('x'); sys.exit(3)",
    ],
)
def test_it_ends_without_a_word_whoever_prints(line: str) -> None:
    assert unread("-c", WORKS.format(line=line)) == (READER_GONE, "")


@pytest.mark.parametrize("words", [["status"], ["plan"], ["methods"], ["--help"]])
def test_commands_of_sslflow(words: list[str], tmp_path: Path) -> None:
    assert unread("-m", "sslflow.cli", *words, folder=tiny.make(tmp_path / "project")) == (READER_GONE, "")


@pytest.mark.parametrize("module", ["runner", "experiments", "flows", "sweeps"])
def test_commands_of_pipelines(module: str) -> None:
    assert unread("-m", f"pipelines.{module}", "--help") == (READER_GONE, "")


def test_a_run_whose_reader_goes_ends_its_stages(tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "project", "while true; do echo at work; sleep 0.1; done")
    run = tiny.start("runner", folder, "pretrain@a-0")
    assert run.stdout is not None
    while "at work" not in (line := run.stdout.readline()):
        assert line, "it has ended"
    run.stdout.close()
    assert run.wait(60) == READER_GONE
    assert tiny.wait_until(lambda: not tiny.processes_in(folder), 30)


def test_who_is_read_to_the_end_ends_as_ever() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORKS.format(line="print('all')")], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"all\n", b"")
