"""The table of the GPU's benchmark: its lines, the time they may take, and the files that hold them."""

from __future__ import annotations

import contextlib
import gc
import math
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from sslflow.runtime.files import write_json, write_text

SEED = 0
TOLERANCE = 1e-3
"""Relative difference of loss and gradient norm, GPU to CPU, in fp32."""
BF16_TOLERANCE = 2e-2
"""Of the loss, bf16 on the GPU to fp32 on the CPU; in bf16 on the CPU the worst is 7e-3 off."""
BLOCKS = 5
"""Blocks of steps of which the median counts."""
LEAST = 1.0
"""Seconds for which no line is begun."""
ENDS = {"methods": 0.32, "speed": 0.66, "others": 0.7, "training": 1.0}
"""Share of the whole time at which a part ends at the latest."""
WORDS = {
    "methods": "One step on the device and on the CPU, from the same weights and views, differences relative to the "
    f"CPU's. *Passed*: at most {TOLERANCE:g} for loss and gradient norm in fp32 (TF32 off), at most {BF16_TOLERANCE:g} "
    "for the loss in bf16. The CPU's own difference between two memory formats is what rounding alone can do. "
    "*graphs*: what `compile` compiled. Several lines at a time.",
    "speed": "Steps of the real loop with the real views, in bf16 and channels_last, beside forward and backward alone "
    f"on views that lie on the device, and views alone: medians of {BLOCKS} blocks of steps. An image counts once, "
    "however many views it has. *first step* holds the compiling; *waits*: how often a step waits for the device, by "
    "torch's own count. *lightly*: its loop as its documentation shows it, the same encoder, the same optimiser.",
    "others": "The same work on the device and on the CPU, seconds of the faster of two rounds.",
    "training": "SimCLR in bf16, with the recipe's settings, the whole set kept on the device, and accuracies of "
    "frozen features on the test images.",
}
"""What a part's table shows."""

Outcome = Literal["passed", "failed", "done", "error", "out of time", "left out"]
GOOD: tuple[Outcome, ...] = ("passed", "done", "left out")


class LeftOut(Exception):
    """What a line is about is not to be had here."""


class TimeIsUp(BaseException):
    """The time that a line may take is over; no `Exception`, so that nothing on its way takes it for a failure of its
    own."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise `TimeIsUp` in the body, which the main thread runs, once so many seconds are over. A call into C is not
    interrupted."""
    armed = True

    def ring(*_: Any) -> None:
        if armed:
            raise TimeIsUp

    former = signal.signal(signal.SIGUSR1, ring)
    timer = threading.Timer(
        min(seconds, threading.TIMEOUT_MAX), signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        armed = False
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR1, former)


@dataclass
class Line:
    """A line of the table."""

    part: str
    name: str
    outcome: Outcome = "done"
    values: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    note: str = ""


def measured(part: str, name: str, work: Callable[[Line], None], seconds: float) -> Line:
    """The line that `work` fills in, in at most so many seconds; whatever goes wrong is a line as well."""
    line, started = Line(part, name), time.monotonic()
    if seconds < LEAST:
        line.outcome, line.note = "out of time", "not begun"
    else:
        try:
            with limit(seconds):
                work(line)
        except TimeIsUp:
            line.outcome, line.note = "out of time", f"stopped after {seconds:.1f} s"
        except LeftOut as reason:
            line.outcome, line.note = "left out", str(reason)
        except Exception as error:
            traceback.print_exc()
            line.outcome, line.note = "error", " ".join(f"{type(error).__name__}: {error}".split())[:200]
    line.seconds = time.monotonic() - started
    broken = [key for key, value in line.values.items() if not math.isfinite(value)]
    if broken:
        line.outcome, line.note = "error", f"not finite: {', '.join(broken)}"
        line.values = {key: value for key, value in line.values.items() if key not in broken}
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
    return line


class Report:
    """The table, which is in the folder `out` as soon as a line is added, and the clock: `seconds` for all parts."""

    def __init__(self, out: Path, seconds: float, facts: Mapping[str, Any]) -> None:
        self.out, self.seconds, self.facts = out, seconds, facts
        self.started = time.monotonic()
        self.lines: list[Line] = []

    def left(self, part: str) -> float:
        """Seconds until the part has to end."""
        return self.started + ENDS[part] * self.seconds - time.monotonic()

    def measure(self, part: str, name: str, work: Callable[[Line], None], most: float = math.inf) -> None:
        """Add the line that `work` fills in, in at most `most` seconds and what is left of its part's time."""
        self.add(measured(part, name, work, min(most, self.left(part))))

    def add(self, line: Line) -> None:
        """One more line, printed, and in the files."""
        self.lines.append(line)
        said = ", ".join(f"{key} {number(key, value)}" for key, value in line.values.items())
        print(
            f"{line.part}  {line.name}  {line.outcome} in {line.seconds:.1f} s  {said}  {line.note}".rstrip(),
            flush=True,
        )
        self.write()

    def arrange(self, part: str, names: Sequence[str]) -> None:
        """The lines of a part, which is the last so far, in the order of the names."""
        order = {name: place for place, name in enumerate(names)}
        self.lines.sort(key=lambda line: (line.part == part, order.get(line.name, 0) if line.part == part else 0))
        self.write()

    def value(self, name: str, key: str) -> float | None:
        """A value of a line that is there already."""
        return next((line.values[key] for line in self.lines if line.name == name and key in line.values), None)

    def write(self) -> None:
        """Both files, with the lines so far."""
        taken = time.monotonic() - self.started
        facts = {**self.facts, "seconds": taken, "of": self.seconds}
        write_json(self.out / "results.json", {"facts": facts, "lines": [asdict(line) for line in self.lines]})
        write_text(self.out / "table.md", "\n".join(self.table(facts)) + "\n")

    def table(self, facts: Mapping[str, Any]) -> Iterator[str]:
        """The lines in Markdown, a table for each part."""
        yield f"{facts['machine']}; {facts['date']}. {facts['seconds']:.0f} s of {facts['of']:.0f} s."
        for part in dict.fromkeys(line.part for line in self.lines):
            lines = [line for line in self.lines if line.part == part]
            columns = list(dict.fromkeys(key for line in lines for key in line.values))
            yield f"\n### {part}\n\n{WORDS[part]}\n"
            yield f"| | {' | '.join(['outcome', *columns, 'seconds', 'note'])} |"
            yield "|" + "---|" * (len(columns) + 4)
            for line in lines:
                cells = [number(key, line.values[key]) if key in line.values else "" for key in columns]
                cells = [line.name, line.outcome, *cells, f"{line.seconds:.1f}", line.note.replace("|", "/")]
                yield f"| {' | '.join(cells)} |"


def number(key: str, value: float) -> str:
    """A value of the table as it is printed."""
    if "difference" in key:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
