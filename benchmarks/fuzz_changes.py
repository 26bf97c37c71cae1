"""Samples changed by Hypothesis, and what a reader makes of them."""

from __future__ import annotations

import contextlib
import struct
import time

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.fuzz_kinds import TARGETS, file

LONGEST = 10.0
"""Seconds of processor time that a reader may take."""
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
