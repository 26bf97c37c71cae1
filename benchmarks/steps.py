"""What the training loop adds to the bare arithmetic, for a method of every family: `python -m benchmarks.steps`.

In one run, in turns, on one thread of a CPU, with the data and the settings of the recipes:

- *bare*: forward passes and loss in plain torch (benchmarks/bare.py), backward pass, optimiser and, where a method has
  one, its teacher's move, on views that are ready;
- *loop*: a step of the real training loop (sslflow/training) on the same views, with all that it reads, draws, looks at
  and writes down;
- *whole*: a step of the real training loop with its own views;
- *views*: these alone.

Ratios are medians over the rounds of the seconds of the processor that a step took, those of the thread that reads
ahead among them: a machine that others use, too, hardly moves these. Losses of bare and real step are compared first.
What has been measured by the same code is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bare import LOSSES
from benchmarks.families import CPU, FAMILIES, WORK, Family, assemble, prepare
from benchmarks.kept import ROOT, code_of, commit, hash_of, note, other_code
from benchmarks.tables import show
from sslflow.data.fields import Fields
from sslflow.runtime.device import compute, laid_out, place
from sslflow.runtime.files import read_json, write_json
from sslflow.training.fit import fit
from sslflow.training.method import Batch
from sslflow.training.optim import make_optimizer

SECONDS, LEAST, MOST = 15.0, 15, 60
"""For each method, and so many rounds."""
EQUAL = 1e-4
"""Relative difference of a bare loss and the method's own: rounding."""


class Ready(nn.Module):
    """Views that have been made; what is read for them is read all the same."""

    def __init__(self, views: tuple[Tensor, ...], made_by: Any) -> None:
        super().__init__()
        self.views, self.read = views, made_by.read

    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return self.views


class Rivals:
    """The four, each with a method of its own, from the same weights."""

    def __init__(self, family: Family) -> None:
        """Raises `SystemExit` where the bare loss is not the method's."""
        made, self.bare_loss = assemble(family), LOSSES[family.method]
        train = {**made.train, "epochs": 100_000}
        self.format, self.clip = train.get("memory_format", "channels_last"), train.get("clip", 0.0)
        self.method, self.views = made.method.train(), made.views
        place(self.method, CPU, self.format)
        size = min(train["batch_size"], len(made.rows))
        self.fields, self.rows = made.dataset.read(made.rows[:size]), torch.arange(size)
        self.ready = self.make_views()
        self._compare(family.method)
        options = (train.get("weight_decay", 1e-4), train.get("momentum", 0.9), train.get("betas", (0.9, 0.999)))
        ways: list[tuple[str, Any]] = [("loop", Ready(self.ready, made.views)), ("whole", made.views)]
        steps: dict[str, Iterator[Any]] = {
            way: fit(copy.deepcopy(made.method), views, made.dataset, CPU, 0, rows=made.rows, **train)
            for way, views in ways
        }
        self.updates = make_optimizer(self.method, train.get("optimizer", "adamw"), 1e-4, *options)
        self.parameters = [p for p in self.method.parameters() if p.requires_grad]
        self.runs: dict[str, Callable[[], Any]] = {
            "bare": self.bare,
            "loop": lambda: next(steps["loop"]),
            "whole": lambda: next(steps["whole"]),
            "views": self.make_views,
        }

    def make_views(self) -> tuple[Tensor, ...]:
        """As the loop has them made."""
        return tuple(laid_out(view, self.format) for view in self.views(self.fields))

    def bare(self) -> None:
        """A step, and no more: as torch is when nothing is asked of it, repeatable or not."""
        torch.use_deterministic_algorithms(False)
        self.updates.zero_grad()
        self.bare_loss(self.method, self.ready, self.rows).backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.updates.step()
        self.method.after_step(0.5)
        torch.use_deterministic_algorithms(True)

    def _compare(self, name: str) -> None:
        one, other = (copy.deepcopy(self.method) for _ in range(2))
        own = float(one.training_step(Batch(self.ready, self.rows, 0.0))["loss"].detach())
        bare = float(self.bare_loss(other, self.ready, self.rows).detach())
        if abs(own - bare) > EQUAL * abs(own):
            raise SystemExit(f"{name}: the bare loss is {bare:.7g}, the method's {own:.7g}")


def measure(family: Family) -> dict[str, Any]:
    """Seconds of the processor, medians; and ratios to bare, medians over the rounds."""
    runs = Rivals(family).runs
    names, rounds, began = list(runs), [], time.monotonic()
    for number in range(MOST):
        found: dict[str, tuple[float, float]] = {}
        # Each after each other one in turn: what one leaves in the caches, no other always finds.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.process_time(), time.perf_counter()
            runs[name]()
            found[name] = time.process_time() - started[0], time.perf_counter() - started[1]
        if number > 1:
            rounds.append(found)
        if len(rounds) >= LEAST and time.monotonic() - began > SECONDS:
            break
    middle = {name: statistics.median(one[name][0] for one in rounds) for name in names}
    ratios = {name: [one[name][0] / one["bare"][0] for one in rounds] for name in ("loop", "whole")}
    low, _, high = statistics.quantiles(ratios["loop"], n=4)
    return {
        "seconds": middle,
        "loop": statistics.median(ratios["loop"]),
        "quartiles": [low, high],
        "whole": statistics.median(ratios["whole"]),
        "wall": statistics.median(one["loop"][1] / one["bare"][1] for one in rounds),
        "rounds": len(rounds),
    }


def code(family: Family) -> dict[str, str]:
    """What a family's numbers come from."""
    stage = "pretrain_clips" if family.of_clips else "pretrain"
    own = {name: hash_of(ROOT / f"benchmarks/{name}.py") for name in ("bare", "families", "steps")}
    return code_of([stage], f"sslflow.methods.{family.kind}.{family.method}") | own


def table(families: list[Family]) -> Iterator[str]:
    """What has been measured, in Markdown."""
    found = [(one, read_json(file)) for one in families if (file := result(one)).exists()]
    yield (
        f"{platform.machine()}, one thread, Python {platform.python_version()}, torch {torch.__version__}; "
        f"{datetime.date.today()}. Medians of {min(of['rounds'] for _, of in found)} rounds or more."
    )
    yield ""
    yield "| | method | bare, ms | loop : bare | quartiles | by the clock | views, ms | whole : bare |"
    yield "|---|---|---|---|---|---|---|---|"
    others = {one.name: [other_code(of, code(one))] for one, of in found}
    for one, of in found:
        mark = " ‡" if any(others[one.name]) else ""
        low, high = of["quartiles"]
        yield (
            f"| {one.name}{mark} | {one.method} | {1e3 * of['seconds']['bare']:.0f} | {of['loop']:.3f} | "
            f"{low:.3f} to {high:.3f} | {of['wall']:.3f} | {1e3 * of['seconds']['views']:.0f} | {of['whole']:.2f} |"
        )
    yield from note(others)


def result(family: Family) -> Path:
    """Where it is kept."""
    return WORK / "results" / f"{family.method}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(LOSSES), help="some of them only")
    parser.add_argument("--again", action="store_true", help="measure again what has been measured by this code, too")
    parser.add_argument("--measured", action="store_true", help="measure nothing, show what there is")
    parser.add_argument("--table", type=Path, help="write the table to this file, between its marks")
    asked = parser.parse_args()
    compute(device="cpu", threads=1)
    for family in FAMILIES:
        if asked.measured or (asked.methods and family.method not in asked.methods):
            continue
        now, file = code(family), result(family)
        if not asked.again and file.exists() and read_json(file)["code"] == now:
            continue
        prepare(family)
        found = {**measure(family), "commit": commit(), "code": now}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, found)
        print(f"{family.method:17} loop : bare {found['loop']:.3f}, whole : bare {found['whole']:.2f}", flush=True)
    show(table(list(FAMILIES)), asked.table, "steps")


if __name__ == "__main__":
    main()
