"""Whatever stands in a file from outside, it is read or refused in words: `python -m benchmarks.fuzz --seconds 600`.

Real files of each kind are changed (bytes turned, cut out, doubled, numbers replaced by extreme ones, words put in that
hurt) and given to what reads them: half of the time by Hypothesis, half by atheris, which is led by the code that is
reached, where it is installed (`pip install atheris`). Anything but a result or the reader's own refusal is a fault,
and so is a crash of the process (each kind has one of its own), more than 10 seconds, or 2 GiB. Runs add up in
work/benchmarks/fuzz.jsonl; `--table` writes docs/security.md's.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import io
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.fuzz_changes import tried
from benchmarks.fuzz_kinds import ROOT, TARGETS, folder
from benchmarks.tables import show

DOC = ROOT / "docs" / "security.md"
DONE = ROOT / "work" / "benchmarks" / "fuzz.jsonl"
MEMORY = 2 * 2**30
COUNT = re.compile(r"number_of_executed_units:\s*(\d+)")
FAULT = re.compile(r"Uncaught Python exception: ===\n(.*)|ERROR: (libFuzzer.*)")


def one_kind(target: str, seconds: float) -> None:
    """In a process of its own: a JSON line with how many were tried, and the first fault."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
    deadline, batch, count, fault = time.monotonic() + seconds, 50, 0, ""
    number = int(time.time())
    while time.monotonic() < deadline and not fault:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                tried(target, batch, number + count)
        except BaseException as error:
            fault = f"{type(error).__name__}: {error}"[:300]
        count += batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if not fault and peak > MEMORY:
        fault = f"{peak / 2**30:.1f} GiB of memory"
    print(json.dumps({"count": count, "fault": fault, "last": str(folder() / "last")}), flush=True)


def by_hypothesis(target: str, seconds: float) -> dict[str, Any]:
    """How many changed files of a kind were tried, and the first fault."""
    done = _run("benchmarks.fuzz", "--seconds", str(seconds), "--alone", target)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"count": 0, "fault": f"the process ended with {done.returncode}: {done.stderr[-300:]}"}


def by_atheris(target: str, seconds: float) -> dict[str, Any]:
    """Likewise."""
    done = _run("benchmarks.fuzz_guided", target, str(seconds))
    count, fault = COUNT.search(done.stderr), FAULT.search(done.stderr)
    what = " ".join(filter(None, fault.groups())) if fault else done.stderr[-300:]
    return {"count": int(count[1]) if count else 0, "fault": what[:300] if done.returncode else ""}


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, errors="replace", check=False)


def table() -> Iterator[str]:
    """A row a kind, of all runs so far."""
    found = [json.loads(line) for line in DONE.read_text().splitlines()]
    yield "| what is read | changed by Hypothesis | by atheris | minutes | faults |"
    yield "|---|---|---|---|---|"
    for target in (*TARGETS, "all"):
        own = [one for one in found if target in (one["kind"], "all")]
        by = {how: sum(one["count"] for one in own if one["by"] == how) for how in ("Hypothesis", "atheris")}
        faults = "; ".join(dict.fromkeys(one["fault"] for one in own if one["fault"])) or "none"
        minutes = sum(one["seconds"] for one in own) / 60
        yield f"| {target} | {by['Hypothesis']:,} | {by['atheris']:,} | {minutes:.1f} | {faults} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="for all kinds together")
    parser.add_argument("--kinds", nargs="*", default=list(TARGETS), help="only these")
    parser.add_argument("--table", action="store_true", help="put the table of all runs so far into docs/security.md")
    parser.add_argument("--again", action="store_true", help="forget the runs so far")
    parser.add_argument("--alone", default="", help="one kind by Hypothesis, in this process")
    asked = parser.parse_args()
    if asked.alone:
        one_kind(asked.alone, asked.seconds)
        return
    if asked.again:
        DONE.unlink(missing_ok=True)
    if asked.table:
        show(table(), DOC, "fuzz")
        return
    ways = {"Hypothesis": by_hypothesis}
    if importlib.util.find_spec("atheris"):
        ways["atheris"] = by_atheris
    else:
        print("atheris: not installed (there are wheels for Linux and Python 3.11): Hypothesis alone")
    DONE.parent.mkdir(parents=True, exist_ok=True)
    seconds = asked.seconds / len(asked.kinds) / len(ways)
    for target in asked.kinds:
        for name, way in ways.items():
            found = {"kind": target, "by": name, "seconds": round(seconds, 1), **way(target, seconds)}
            print(found, flush=True)
            with DONE.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
