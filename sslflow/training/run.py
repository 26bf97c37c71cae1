"""One training for every kind of data, which can be stopped and resumed: its checkpoint, its curve, its progress."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from sslflow.features.extract import NotFinite
from sslflow.networks.token_dropout import UnfitTokens
from sslflow.progress import Progress
from sslflow.runtime.checkpoint import Checkpoint, fingerprint
from sslflow.runtime.distributed import from_first, rank, world_size
from sslflow.runtime.energy import Meter, added, watt_hours
from sslflow.runtime.files import write_csv, write_json
from sslflow.settings.params import Count, Positive
from sslflow.training.epochs import UnfitBatch
from sslflow.training.fit import NonFiniteLoss, Readable, Step, fit
from sslflow.training.method import Method
from sslflow.views.images import Views

Row = dict[str, float]

LEFT_OUT = 0.1
"""Share of the examples that an epoch may leave out without a word."""
AT_CHANCE = 0.01
"""A loss so close to chance level, as a share of it, counts as chance."""
JUDGED, ROWS = 0.2, 3
"""Share of the steps before which nothing is said of chance, and rows that must all stand at it."""
SHOWN_EVERY = 5.0
"""Seconds from one time that who looks on is shown the curve to the next."""


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What is written down while a run goes on: a row of the curve every `log_every` steps, with diagnostics of the
    features of `diagnostics` images, and a checkpoint every `checkpoint_seconds`."""

    log_every: Count = 20
    diagnostics: Annotated[int, Ge(2)] = 512
    checkpoint_seconds: Positive = 60


@dataclass(frozen=True)
class Moment:
    """A time at which a row of the curve is due."""

    step: int
    """Steps done; 0 before the first."""
    signs: Row = field(default_factory=dict)
    """Diagnostics of the method as it is now, for the row: the caller fills them in."""


class Run:
    """A training, and what is known of it: `curve`, a row for each moment, `seconds`, and `joules` by kind of device,
    where they are counted; both hold those of earlier processes too. A run that was stopped resumes from its last
    checkpoint and ends with the same bits."""

    def __init__(
        self,
        stage: str,
        name: str,
        seed: int,
        journal: Journal,
        device: torch.device,
        facts: Any,
        *files: Path,
        unit: str,
    ) -> None:
        """`facts` are the settings, and `files` the data, that change the run's bits: another run never resumes from
        this one. How often something is written down is none of them. `unit` is what examples are called in a log."""
        self.name, self.seed, self.journal, self.device = name, seed, journal, device
        self.unit, self.label = unit, f"{stage} {name}-{seed}"
        depends_on = [name, seed, world_size(), str(device), journal.diagnostics, facts]
        self.checkpoint = Checkpoint(stage, fingerprint(depends_on, *files))
        # One disk may hold it, and another not.
        self._state = from_first(self.checkpoint.load() if rank() == 0 else None, device)
        self.curve: list[Row] = self._state["curve"] if self._state else []
        self.seconds: float = self._state["seconds"] if self._state else 0.0
        self.joules: dict[str, float] = {}
        self.noted: dict[str, Any] = self._state["noted"] if self._state else {}
        """What the caller wants a checkpoint to hold besides."""
        self.batch_size = 0

    def train(
        self, method: Method, views: Views, dataset: Readable, rows: np.ndarray, section: str, **settings: Any
    ) -> Iterator[Moment]:
        """Train the method by `fit` with the settings, which stand in `section` of params.yaml, and yield whenever a
        row of the curve is due: before the first step, every `log_every` steps, and after the last. Between moments the
        method is in training mode; with several processes all must go through them.

        Raises `ValueError` for a loss that is not finite.
        """
        state, before = self._state, Moment(0)
        done = state["step"] if state else 0
        if done:
            print(f"{self.label}  resumed from step {done}", flush=True)
        else:
            yield before
        self.batch_size = min(settings["batch_size"], len(rows))
        started = saved = time.monotonic()
        earlier, progress, warned, shown = self.seconds, None, False, -math.inf
        meter, taken = Meter(self.device), state.get("joules", {}) if state else None
        try:
            for step in fit(method, views, dataset, self.device, self.seed, state, rows, **settings):
                moment = None
                if step.number % self.journal.log_every == 0 or step.number == step.steps:
                    yield (moment := Moment(step.number))
                    method.train()
                now = time.monotonic()
                self.seconds = earlier + now - started
                if rank():
                    continue
                if not progress:
                    progress = Progress(self.label, step.steps, "step", done)
                    self._tell_left_out(step, len(rows))
                self.batch_size = step.batch_size
                if step.number == 1:
                    self.curve.append(first_row(step, before.signs))
                if moment:
                    self.curve.append(row(step, moment.signs))
                    speed = (step.number - done) * step.batch_size / (now - started)
                    progress.say(step.number, f"{_words(self.curve[-1])}  {speed:.0f} {self.unit}/s")
                    chance = self._at_chance(method, step)
                    if chance and not warned:
                        progress.note(step.number, chance)
                        warned = True
                    if now - shown > SHOWN_EVERY:
                        self._show(method, step)
                        shown = now
                if now - saved > self.journal.checkpoint_seconds:
                    known = {"curve": self.curve, "seconds": self.seconds, "noted": self.noted}
                    self.checkpoint.save({**step.state(), **known, "joules": added(taken, meter.read())})
                    saved = now
        except UnfitBatch as error:
            raise ValueError(f"{section}.batch_size: {error}") from None
        except UnfitTokens as error:
            raise ValueError(f"{section}: {error}") from None
        except NonFiniteLoss as error:
            raise self._broken(str(error), section) from None
        finally:
            self.joules = added(taken, meter.read())
            meter.stop()
            if progress:
                progress.close()

    def look(self, moment: Moment, watch: Callable[[], Row], section: str) -> None:
        """Fill in the moment's diagnostics, which `watch` gives. Raises `ValueError` with advice where the features are
        not finite: the weights have burst, though no loss has shown it yet."""
        try:
            moment.signs.update(watch())
        except NotFinite as error:
            raise self._broken(f"{error} after step {moment.step}", section) from None

    def _broken(self, what: str, section: str) -> ValueError:
        kept = f"the last good checkpoint is {self.checkpoint.file}"
        kept = kept if self.checkpoint.file.exists() else "no checkpoint was made yet"
        advice = f"try a smaller lr, a longer warmup or clip in {section}"
        return ValueError(f"{self.name}, seed {self.seed}: {what}; {advice}; {kept}")

    def metrics(self, rows: int, what: str) -> Row:
        """The last row of the curve, the run's seconds, its energy where it is known, and how many of the `rows`, which
        are `what`, a second."""
        last = self.curve[-1]
        rate = last["step"] * self.batch_size / max(self.seconds, 1e-9)
        seen = {what: float(rows), f"{what}_per_second": rate}
        return {**last, "seconds": self.seconds, **watt_hours(self.joules), **seen}

    def write_curve(self, file: Path) -> None:
        """The curve as CSV."""
        write_csv(file, list(self.curve[-1]), [list(one.values()) for one in self.curve])

    def _show(self, method: Method, step: Step) -> None:
        """How far it is, and the curve so far, beside the checkpoint, for who looks on."""
        choices, folder = method.choices(step.batch_size), self.checkpoint.file.parent
        facts = {
            "run": self.label,
            "unit": self.unit,
            "step": step.number,
            "steps": step.steps,
            "seconds": self.seconds,
        }
        with contextlib.suppress(OSError):  # a full disk is for the checkpoint to report
            self.write_curve(folder / "curve.csv")
            write_json(folder / "journal.json", {**facts, "choices": choices and asdict(choices)})

    def remove_checkpoint(self) -> None:
        """To be called once all that the run leaves is on the disk."""
        self.checkpoint.remove()

    def _tell_left_out(self, step: Step, count: int) -> None:
        """A line where an epoch is far from all examples: a last batch that isn't full is left out."""
        left = count % step.batch_size
        if left > LEFT_OUT * count:
            print(
                f"{self.label}  each epoch sees {count - left} of {count} ({self.unit}), others each time: it leaves "
                f"out what fills no batch of {step.batch_size}; another batch_size leaves out fewer",
                flush=True,
            )

    def _at_chance(self, method: Method, step: Step) -> str:
        """A line where the loss has stood at chance level for some rows."""
        choices, recent = method.choices(step.batch_size), self.curve[-ROWS:]
        if recent[0]["step"] < JUDGED * step.steps or len(recent) < ROWS:
            return ""
        even = math.log(choices.count) if choices and choices.count > 1 else 0.0
        levels = [one.get("chance_loss", even) for one in recent]
        if any(abs(one["loss"] - level) >= AT_CHANCE * level for one, level in zip(recent, levels, strict=True)):
            return ""
        among = (
            f"among the {choices.count} {choices.among}"
            if choices and "chance_loss" not in recent[-1]
            else "of a constant answer"
        )
        return f"warning: the loss stands at {recent[-1]['loss']:.4g}; chance level {among} is {levels[-1]:.4g}"


def first_row(step: Step, signs: Mapping[str, float]) -> Row:
    """The curve's row before the first update: the first step's loss is that of the weights at the start."""
    return {**row(step, signs), "step": 0, "epoch": 0.0}


def row(step: Step, signs: Mapping[str, float]) -> Row:
    """The curve's row after a step."""
    losses = {name: float(value) for name, value in step.losses.items()}
    return {"step": step.number, "epoch": step.epoch, "loss": losses.pop("loss"), "lr": step.lr, **signs, **losses}


def _words(last: Row) -> str:
    rank_of_features = f"  rank {last['rankme']:.1f}" if "rankme" in last else ""
    return f"loss {last['loss']:.4f}  lr {last['lr']:.1e}{rank_of_features}"
