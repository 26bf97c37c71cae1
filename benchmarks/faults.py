"""What a small run survives: `python -m benchmarks.faults --seconds 400`, again and again until there are enough.

A project of its own in work/benchmarks/faults (320 images, one method, 48 steps, from raw files to a probe) is run once
undisturbed. Each trial copies it, harms it at a moment drawn from the trial's number, lets it go on as a user would,
and compares hashes of the encoder, curve, features and metrics. Trials are appended to trials.jsonl, so that a call
goes on where the last one ended; `--table` writes docs/faults.md's. Linux; `full disk` needs root (a tmpfs), `clock
jumps` libfaketime (`--faketime FILE.so`); without them these are left out, and a line says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.faults_kinds import KINDS
from benchmarks.faults_project import ROOT, build, processes_in
from benchmarks.faults_trial import WORK, Lost, Trial
from benchmarks.tables import show

DONE = WORK / "trials.jsonl"
DOC = ROOT / "docs" / "faults.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="no trial begins after so many")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help="only these")
    parser.add_argument("--faketime", default="", help="libfaketime.so.1, for `clock jumps`")
    parser.add_argument("--table", action="store_true", help="write docs/faults.md's table of the trials so far")
    parser.add_argument("--lost-again", action="store_true", help="make those trials anew that were lost")
    parser.add_argument("--again", action="store_true", help="forget all trials, and the undisturbed run")
    asked = parser.parse_args()
    if asked.again:
        shutil.rmtree(WORK, ignore_errors=True)
    if asked.lost_again:
        DONE.write_text("".join(f"{json.dumps(one)}\n" for one in trials() if not one["lost"]))
    if asked.table:
        show(table(), DOC, "faults")
        return
    started = time.monotonic()
    build(WORK)
    for kind, number in rounds(asked.kinds, asked.faketime):
        if time.monotonic() - started > asked.seconds:
            break
        attempt(Trial(kind, number, asked.faketime))


def rounds(kinds: Sequence[str], faketime: str) -> Iterator[tuple[str, int]]:
    """Trials that haven't been made, round by round."""
    made = {(one["kind"], one["number"]) for one in trials()}
    left_out = {"full disk"} if os.geteuid() else set()
    left_out |= set() if faketime else {"clock jumps"}
    for kind in left_out & set(kinds):
        print(f"{kind}: left out: {'no root, for a tmpfs' if kind == 'full disk' else 'no --faketime'}")
    wanted: Counter[str] = Counter()
    while True:
        for kind in kinds:
            for _ in range(0 if kind in left_out else KINDS[kind][1]):
                wanted[kind] += 1
                if (kind, wanted[kind]) not in made:
                    yield kind, wanted[kind]


def attempt(trial: Trial) -> None:
    started = time.monotonic()
    lost = ""
    try:
        KINDS[trial.kind][0](trial)
        trial.no_litter()
    except Lost as error:
        lost = str(error)
    finally:
        for process in processes_in(trial.folder, ids=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
    if not lost:
        shutil.rmtree(trial.folder, ignore_errors=True)
    found = {"kind": trial.kind, "number": trial.number, "lost": lost, "notes": trial.notes}
    with DONE.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**found, "seconds": round(time.monotonic() - started, 1)}) + "\n")
    print(f"{trial.kind} {trial.number}  {lost or 'survived'}  ({'; '.join(trial.notes)})", flush=True)


def trials() -> list[dict[str, Any]]:
    """All trials so far."""
    return [json.loads(line) for line in DONE.read_text().splitlines()] if DONE.exists() else []


def table() -> list[str]:
    """A row a kind: trials in which something was done, how often, and what came of it. A process that ended before it
    could be killed shows nothing, and isn't counted."""
    rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in trials():
        if injected(one):
            rows[one["kind"]].append(one)
    lines = ["| what was done | trials | injected | survived | lost | minutes |", "|---|---|---|---|---|---|"]
    for kind in (*(kind for kind in KINDS if kind in rows), "all"):
        own = [one for each in rows.values() for one in each] if kind == "all" else rows[kind]
        lost = sum(bool(one["lost"]) for one in own)
        minutes = sum(one["seconds"] for one in own) / 60
        times = sum(map(injected, own))
        lines.append(f"| {kind} | {len(own)} | {times} | {len(own) - lost} | {lost} | {minutes:.1f} |")
    return lines


def injected(trial: dict[str, Any]) -> int:
    """How often something was done in a trial."""
    notes = trial["notes"]
    kills = notes.count("killed")
    return kills if kills or "ended before" in notes else 1


if __name__ == "__main__":
    main()
