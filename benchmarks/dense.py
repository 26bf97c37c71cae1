"""What pretraining is worth for masks and boxes: `python -m benchmarks.dense --table docs/dense.md`.

Each row is the pipeline's own: the stages pretrain, segment and detect in a folder of its own under
work/benchmarks/dense, with recipes/scenes.yaml but for what `ROWS` says. Pretraining sees the scenes' pool, which
nobody has annotated, segmentation and detection shares of the training scenes; test scenes are looked at once. What has
been measured with the same settings is not measured again; a run that was stopped resumes, stage by stage.
`--rows` and `--seeds` let several processes share the work, `--measured` writes the tables of what is there. With
`--device cuda` all of it is done on a GPU, in folders of its own; what stages cost stands there by the runs on a CPU.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import dense_runs
from benchmarks.dense_runs import DEVICES, FRACTIONS, ROWS, SEEDS, START, Job, code, machine, make_folder, measured, run
from benchmarks.kept import note, other_code
from benchmarks.tables import show
from sslflow.data.dataset import Dataset
from sslflow.evaluation.intervals import Interval, crossed
from sslflow.examination.where.found import Found, Metric, Way
from sslflow.examination.where.gaps import Score, gap, over
from sslflow.reporting.where.localised import read_all

METRICS: dict[Metric, str] = {"miou": "Masks, mIoU", "map": "Boxes, mAP", "map50": "Boxes, mAP50"}
SHOWN = {"miou": ("linear", "frozen", "tuned"), "map": ("frozen", "tuned"), "map50": ("frozen", "tuned")}
TITLES = {"linear": "linear", "frozen": "frozen", "tuned": "fine-tuned"}


@cache
def found(row: str, seeds: tuple[int, ...], device: str) -> Found:
    """What a row's runs predicted, of the seeds that are wholly measured."""
    done = [seed for seed in seeds if measured(Job(row, seed, device))]
    return Found(Dataset(dense_runs.WORK / "prepared"), done, Job(row, 0, device).folder)


class Tables:
    """The tables in Markdown of what has been measured on a device."""

    def __init__(self, seeds: Sequence[int], device: str = "cpu") -> None:
        self.seeds, self.device = tuple(seeds), device
        self.rows = [row for row in ROWS if self.found(row).seeds]

    def found(self, row: str) -> Found:
        """What a row's runs predicted."""
        return found(row, self.seeds, self.device)

    def lines(self) -> Iterator[str]:
        """All of them."""
        now = datetime.datetime.now(datetime.UTC).date()
        machines = {one.get("machine", machine("cpu")) for row in self.rows for one in self._results(row)}
        yield f"{' and '.join(sorted(machines))}; {now}. In %, on the 500 test scenes."
        for metric in METRICS:
            for fraction in FRACTIONS:
                yield from ("", *self.table(metric, fraction))
        yield from ("", *self.pointing(), "", *self.costs())
        yield from note({row: [other_code(one, code(ROWS[row])) for one in self._results(row)] for row in self.rows})

    def table(self, metric: Metric, fraction: float) -> Iterator[str]:
        """One metric with one share of the labels, and what it says."""
        shown = SHOWN[metric]
        heads = [f"{METRICS[metric]}, {100 * fraction:g} % of the labels", "seeds", *(TITLES[one] for one in shown)]
        heads += ["fine-tuned above the same network from scratch", f"above {START}"]
        heads += [f"linear above {START}"] if "linear" in shown else []
        yield f"| {' | '.join(heads)} |"
        yield "|---" * len(heads) + "|"
        for row in self.rows:
            cells = [self._spread(row, metric, Way(one, fraction)) for one in shown]
            tuned = Way("tuned", fraction)
            beside = [(ROWS[row].scratch, tuned), (START, tuned)]
            beside += [(START, Way("linear", fraction))] if "linear" in shown else []
            cells += [self._beside(row, other, metric, way) for other, way in beside]
            yield f"| {row}{self._mark(row)} | {len(self.found(row).seeds)} | {' | '.join(cells)} |"
        yield ""
        for other in ("it", START):
            told = {
                row: self.gap(row, START if other == START else ROWS[row].scratch, metric, Way("tuned", fraction))
                for row in self.rows
                if ROWS[row].method
            }
            kinds = {
                f"above {other}": [row for row, one in told.items() if one and one.low > 0],
                f"below {other}": [row for row, one in told.items() if one and one.high < 0],
                "may be chance": [row for row, one in told.items() if one and not one.sure],
            }
            parts = [f"{kind}: {'; '.join(rows)}" for kind, rows in kinds.items() if rows]
            if parts:
                beside = "the same network from scratch" if other == "it" else other
                yield f"- Fine-tuned, beside {beside}: {'. '.join(parts)}."

    def gap(self, row: str, other: str, metric: Metric, way: Way) -> Interval | None:
        """By how much a row is above another, on the seeds that both have; None where there is nothing to compare."""
        if row == other or not other:
            return None
        ours, theirs = self.scores(row, metric, way), self.scores(other, metric, way)
        both = [seed for seed in ours if seed in theirs]
        groups = self.found(row).groups(metric)
        return gap([ours[seed] for seed in both], [theirs[seed] for seed in both], groups) if both else None

    def _beside(self, row: str, other: str, metric: Metric, way: Way) -> str:
        told = self.gap(row, other, metric, way)
        ours, theirs = (self.scores(one, metric, way).keys() if told else set() for one in (row, other))
        return signed(told, len(ours & theirs), len(ours))

    def scores(self, row: str, metric: Metric, way: Way) -> dict[int, Score]:
        """Seed → score."""
        return self.found(row).scores(ROWS[row].name, metric, way)

    def pointing(self) -> Iterator[str]:
        """How often a thing is where a map stands out most, beside the image's centre and the pixels themselves."""
        read = {row: read_all(self.found(row), ROWS[row].name) for row in self.rows}
        read = {row: one for row, one in read.items() if one}
        if not read:
            return
        first = next(iter(next(iter(read.values())).values()))
        groups = self.found(self.rows[0]).dataset.groups[first.rows]
        heads = ["Localised without a label", "seeds", "hits", "above the centre", "above the pixels"]
        heads.append("above random weights")
        yield f"| {' | '.join(heads)} |"
        yield "|---" * len(heads) + "|"
        random = read.get("random weights", {})
        for row, runs in read.items():
            cells = []
            for kind, others in (
                ("centre", runs),
                ("pixels", runs),
                ("hit", random if row != "random weights" else {}),
            ):
                both = [seed for seed in runs if seed in others]
                gaps = [runs[seed].found["hit"] - others[seed].found[kind] for seed in both]
                cells.append(signed(crossed(np.stack(gaps), groups) if gaps else None, len(both), len(runs)))
            hits = np.mean([one.found["hit"].mean() for one in runs.values()])
            yield f"| {row}{self._mark(row)} | {len(runs)} | {100 * hits:.1f} | {' | '.join(cells)} |"

    def costs(self) -> Iterator[str]:
        """How long the stages take on a CPU: runs that share a GPU tell of one another."""
        timed = {row: one for row in ROWS if (one := self._results(row, "cpu"))}
        if not timed:
            return
        yield "| Seconds, one thread of a CPU | pretrain | segment | detect |"
        yield "|---|---|---|---|"
        for row, results in timed.items():
            took = [one["seconds"] for one in results]
            cells = [
                f"{statistics.fmean(one[name] for one in took):.0f}" if name in took[0] else "–"
                for name in ("pretrain", "segment", "detect")
            ]
            yield f"| {row} | {' | '.join(cells)} |"

    def _results(self, row: str, device: str = "") -> list[dict[str, Any]]:
        return [one for seed in self.seeds if (one := measured(Job(row, seed, device or self.device)))]

    def _mark(self, row: str) -> str:
        return " ‡" if any(other_code(one, code(ROWS[row])) for one in self._results(row)) else ""

    def _spread(self, row: str, metric: Metric, way: Way) -> str:
        scores = list(self.scores(row, metric, way).values())
        if not scores:
            return "–"
        groups = self.found(row).groups(metric)
        values = [100 * float(score(np.ones((1, len(groups))))[0]) for score in scores]
        told = over(scores, groups)
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{100 * told.mean:.1f}{spread}"


def signed(told: Interval | None, pairs: int, seeds: int) -> str:
    """`+4.1 (+1.0 to +7.2)`, in bold where it leaves out 0; with the number of pairs, where not all seeds have one."""
    if told is None:
        return "–"
    mean, low, high = (f"{round(100 * value, 1) + 0.0:+.1f}" for value in (told.mean, told.low, told.high))
    words = f"{mean} ({low} to {high}{f'; {pairs} of {seeds} seeds' if pairs < seeds else ''})"
    return f"**{words}**" if told.sure else words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--device", choices=DEVICES, default=DEVICES[0])
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    parser.add_argument("--measured", action="store_true", help="measure nothing: tables of what is there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for job in [Job(row, seed, asked.device) for seed in asked.seeds for row in asked.rows if not asked.measured]:
        make_folder(job)
        if measured(job) is None:
            try:
                run(job)
            except RuntimeError as error:
                failed += 1
                print(error, flush=True)
    show(Tables(asked.seeds, asked.device).lines(), asked.table, "dense")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
