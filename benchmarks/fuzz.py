"""Whatever stands in a file from outside, it is read or refused in words: `python -m benchmarks.fuzz --seconds 600`.

Real files of each kind are changed by Hypothesis (bytes turned, cut out, doubled, numbers replaced by extreme ones,
words put in that hurt) and given to what reads them. Anything but a result or the reader's own refusal is a
fault, and so is a crash of the process (each kind has one of its own), more than 10 seconds, or 2 GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.fuzz_kinds import ROOT, TARGETS, file, folder
from benchmarks.tables import show

DOC = ROOT / "docs" / "security.md"
LONGEST, MEMORY = 10.0, 2 * 2**30
NASTY = (
    "<script>",
    "../..",
    "/etc/passwd",
    "\0",
    "\ufeff",
    "; rm -rf /",
    "$(x)",
    "*" * 50,
    "9" * 400,
    "\ud800",
    "é",
    "",
    "NaN",
    "-1",
    "1e999",
    '"',
    ",",
    "\n",
    "[" * 300,
    "&a ",
    "*a",
    "!!python/object:os.system",
    "{",
    "}",
    "null",
)


class Slow(AssertionError):
    """A reader took too long."""


@st.composite
def changed(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """One of the samples, a few of its bytes otherwise."""
    content = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(1, 6))):
        place = (
            draw(st.integers(0, max(0, min(len(content), 400) - 1)))
            if draw(st.booleans())
            else draw(st.integers(0, max(0, len(content) - 1)))
        )  # headers are short, and matter most
        how = draw(st.integers(0, 5))
        if how == 0:
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif how == 1:
            del content[place : place + draw(st.integers(1, 64))]
        elif how == 2:
            content[place:place] = content[place : place + draw(st.integers(1, 64))]
        elif how == 3:
            number = draw(st.sampled_from((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**16, 255)))
            kind = draw(st.sampled_from(("<I", ">I")))
            content[place : place + 4] = struct.pack(kind, number)
        elif how == 4:
            content[place:place] = draw(st.sampled_from(NASTY)).encode("utf-8", "surrogatepass")
        else:
            del content[place:]
    return bytes(content)


def tried(target: str, count: int, number: int) -> None:
    """Give `count` changed samples to a reader. Raises what the reader raises besides its refusal, with the sample."""
    samples, read, refusal = TARGETS[target]

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        phases=(Phase.generate, Phase.shrink),
    )
    @given(changed(samples()))
    def attempt(content: bytes) -> None:
        file("last", content)
        start = time.process_time()
        with contextlib.suppress(refusal):
            read(content)
        if time.process_time() - start > LONGEST:
            raise Slow(f"{time.process_time() - start:.0f} s")

    attempt()


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


def lines(seconds: float, targets: list[str]) -> Iterator[str]:
    """The table, a row a kind as it comes."""
    yield "| what is read | changed files | faults |"
    yield "|---|---|---|"
    for target in targets:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--seconds", str(seconds / len(targets)), "--alone", target]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            found = json.loads(done.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            found = {"count": "?", "fault": f"the process ended with {done.returncode}: {done.stderr[-300:]}"}
        print(target, found, file=sys.stderr, flush=True)
        yield f"| {target} | {found['count']:,} | {found['fault'] or 'none'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="for all kinds together")
    parser.add_argument("--kinds", nargs="*", default=list(TARGETS), help="only these")
    parser.add_argument("--table", action="store_true", help="put the table into docs/security.md")
    parser.add_argument("--alone", default="", help="one kind, in this process")
    asked = parser.parse_args()
    if asked.alone:
        one_kind(asked.alone, asked.seconds)
    else:
        show(lines(asked.seconds, asked.kinds), DOC if asked.table else None, "fuzz")


if __name__ == "__main__":
    main()
