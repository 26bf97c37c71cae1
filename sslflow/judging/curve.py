"""Where the columns of a run's curve began and where they are now: what is change, what is noise, what is chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

from sslflow.training.choices import Choices

Row = Mapping[str, float]
"""A row of the curve; the first is from before the first update, with the loss of the first batch."""

OF_BATCHES = ("loss", "accuracy", "chance_loss", "chance_accuracy")
"""Columns that scatter from batch to batch. The others are of the same images each time."""
RECENT = 0.2
"""Share of the steps, the last ones, whose mean counts as the present. Of what the features are at the end of a run the
last row alone tells: these are the features that are kept."""
FEWEST = 3
"""Rows without which there is no telling a level from a slope."""
JUMP = 4.0
"""Rows are no longer the present where the last one is so many standard deviations of the noise from their mean."""
ERRORS = 2.0
"""A difference of so many of its standard errors may be noise."""
AT_CHANCE = 0.002
"""A loss so close to chance level, as a share of it, is at chance level: a run that was stuck ended 0.0015 below."""
NEAR_CHANCE = 0.01
"""So close it is where noise may explain it, or where no more answers are right than at chance level: runs on random
labels ended up to 0.007 below. The slowest of healthy short runs (SwAV) was 0.02 away."""
MORE_RIGHT = 0.01
"""Accuracy above chance level that counts."""
FLAT = 0.001
"""Change of the loss, as a share of where it began, that does not count even where there is no noise."""


@dataclass(frozen=True)
class Level:
    """A mean of rows, and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float], noise: float) -> Level:
        return cls(fmean(values), noise / len(values) ** 0.5)


class Curve:
    """A curve by its rows so far; `judged` are those at its end that a verdict is on, `over` says that none follows."""

    def __init__(self, rows: Sequence[Row], judged: Sequence[Row], choices: Choices | None, over: bool) -> None:
        self.start, self.early, self.judged = rows[0], rows[: len(rows) - len(judged)], judged
        late = sum(row["step"] > (1 - RECENT) * judged[-1]["step"] for row in judged)
        self.recent = max(late, FEWEST)
        self.choices = choices if choices and choices.count > 1 else None
        self.over = over
        self.now = {name: self._now(name) for name in self.start}

    @property
    def fall(self) -> float:
        """How far the loss has fallen, as a share of its start; of 1 for a loss that begins near 0."""
        return (self.start["loss"] - self.now["loss"]) / max(abs(self.start["loss"]), 1.0)

    def left(self, name: str) -> float:
        """What is left of a column, as a share of its start."""
        return self.now[name] / max(self.start[name], 1e-9)

    def moved(self) -> float:
        """The largest change of any sign of the features, as a share of its start."""
        signs = [name for name in ("feature_std", "rankme", "alpha_req", "uniformity") if name in self.now]
        return max(abs(self.now[name] - self.start[name]) / max(abs(self.start[name]), 1e-9) for name in signs)

    def apart(self, row: Row) -> float | None:
        """Squared distance of two views of an image, as a share of that of two images; None where there are no two
        views or no two images that differ."""
        if "alignment" not in row or row["feature_std"] < 1e-3:
            return None
        return row["alignment"] / (2 * row["feature_std"] ** 2)

    def chance_loss(self, row: Row) -> float | None:
        """What the best constant answer costs; None where that is not known."""
        return row.get("chance_loss", math.log(self.choices.count) if self.choices else None)

    def chance_accuracy(self, row: Row) -> float | None:
        """The accuracy of the best constant answer; None where that, or the run's own accuracy, is not known."""
        alike = 1 / self.choices.count if self.choices and "chance_loss" not in row else None
        return row.get("chance_accuracy", alike) if "accuracy" in row else None

    def more_right(self) -> bool | None:
        """Whether more answers are right than at chance level; None where that is not known."""
        gains = [row["accuracy"] - chance for row in self.judged if (chance := self.chance_accuracy(row)) is not None]
        if not gains:
            return None
        gain = self._present(gains)
        return gain.mean > max(MORE_RIGHT, ERRORS * gain.error)

    def ends_at_chance(self) -> bool:
        """Whether the run is over, with a loss as high as that of a constant answer, or higher, and no more answers
        right."""
        gain = self._present(gains) if (gains := self._gains()) else None
        return self.over and gain is not None and gain.mean <= self._slack(gain)

    def stays_at_chance(self) -> bool:
        """Whether the loss stays at chance level, rather than passing it on its way, and no more answers are right."""
        gains, half = self._gains(), self.recent // 2
        noise = _noise(gains) if gains else 0.0
        halves = [Level.of(part, noise) for part in (gains[-self.recent : -half], gains[-half:]) if part]
        return bool(halves) and all(abs(gain.mean) <= self._slack(gain) for gain in halves)

    def ends_flat(self) -> bool:
        """Whether the run is over, with a loss that stayed where it began, within noise. What a constant answer costs
        on the same batch is taken off it first, where that is known."""

        def costs(rows: Sequence[Row]) -> list[float]:
            return [row["loss"] - row.get("chance_loss", 0.0) for row in rows]

        judged = costs(self.judged)
        noise, half = _noise(judged), len(judged) // 2
        start = Level.of(costs(self.early), noise)
        return self.over and all(
            abs(level.mean - start.mean)
            <= max(FLAT * abs(self.start["loss"]), ERRORS * math.hypot(level.error, start.error))
            for level in (Level.of(judged[:half], noise), self._present(judged))
        )

    def _gains(self) -> list[float]:
        """By how much the losses are below chance level; nothing where that is not known."""
        return [chance - row["loss"] for row in self.judged if (chance := self.chance_loss(row)) is not None]

    def _slack(self, gain: Level) -> float:
        """Up to which a loss below chance level is at chance level; none where more answers are right."""
        level, right = self.chance_loss(self.now) or 0.0, self.more_right()
        if right is None:
            return max(AT_CHANCE * level, min(ERRORS * gain.error, NEAR_CHANCE * level))
        return -math.inf if right else NEAR_CHANCE * level

    def _now(self, name: str) -> float:
        values = [row[name] for row in self.judged]
        if name in OF_BATCHES:
            return self._present(values).mean
        return values[-1] if self.over else fmean(values[-self.recent :])

    def _present(self, values: Sequence[float]) -> Level:
        """The level of a column in the recent of its values in the judged rows, as far back as the last one agrees."""
        noise, recent = _noise(values), values[-self.recent :]
        while abs(fmean(recent) - recent[-1]) > JUMP * noise and len(recent) > 1:
            recent = recent[1:]
        return Level.of(recent, noise)


def _noise(values: Sequence[float]) -> float:
    """Standard deviation of values about their trend: by medians, so that single jumps don't count."""
    steps = [after - before for before, after in pairwise(values)]
    return 1.4826 * median(abs(step - median(steps)) for step in steps) / 2**0.5
