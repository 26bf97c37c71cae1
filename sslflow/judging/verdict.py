"""What the curve of a run says about it, in words, without any label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from sslflow.data.formats import any_one, singular
from sslflow.judging.curve import FEWEST, Curve, Row
from sslflow.training.choices import Choices

JUDGED = 0.2
"""Share of the steps before which nothing is said: the learning rate warms up and the curve is still on its way from
where it began."""
MOVED = 0.01
"""Features have moved when a sign differs by more of its start: with a learning rate of almost nothing all stayed
within 0.001, in the shortest of healthy runs one differed by 0.03, in others by 0.1 and more."""
RISEN = 1.5
"""A loss of so many times its start has run away; that of healthy methods with a teacher rose by up to 1.04."""
RISEN_ABOVE_CHANCE = 1.1
"""Where the loss is also above chance level, so much is enough: it is worse than a constant answer, and than random
weights."""
CONSTANT_STD = 0.1
"""Features with less of the spread that they began with hardly differ from image to image; in healthy runs 0.5 and
more is left."""
CONSTANT_RANK = 2.0
"""Features of fewer directions than two lie on a line."""
FEW_DIRECTIONS = 0.3
"""Share of the directions at the start. Healthy runs of eighteen methods kept 0.43 to 1.1 of them."""
FLAT_PROJECTIONS = 0.2
"""Share of the projections' spread at the start: 0.4 and more in healthy runs, 0.03 to 0.12 in collapsed ones."""
PROJECTED_DIRECTIONS = 3.0
"""The projections of collapsed runs use 1 to 3 directions, those of healthy ones 5 and more."""
VANISHED = 0.1
"""A loss below such a share of its start has done its task; whether the features have gained by it is the question."""
UNFINISHED = 0.2
"""A run whose second half brought so much of the loss's whole fall was cut short: in runs that had levelled out it
brought 0.05 to 0.17."""
FALLEN = 0.05
"""A fall of less, as a share of where the loss began, can't be told in halves: batches differ by as much."""
SLOWER = "Try a learning rate 3 to 10 times smaller, a longer warmup, or clip, the largest norm of the gradient."


@dataclass(frozen=True)
class Finding:
    """Something that the curve says."""

    kind: str
    """`chance`, `unchanged`, `flat`, `diverged`, `constant`, `collapse`, `shortcut`; `healthy`, `unfinished`,
    `short`."""
    words: str
    """What was seen, in full sentences."""
    advice: str
    """What to try; nothing where there is nothing to mend."""
    sick: bool


def findings(rows: Sequence[Row], choices: Choices | None, steps: int, unit: str) -> list[Finding]:
    """What the rows of a curve say so far about a run of `steps` steps whose loss chooses among `choices`, and whose
    examples are called `unit`.

    While it runs, only what is sick; at its end also what is well: there is always at least one finding then.
    """
    over = rows[-1]["step"] >= steps
    judged = [row for row in rows[1:] if row["step"] >= JUDGED * steps]
    broken = [*_not_finite(rows)]
    if broken or len(judged) < FEWEST:
        return broken or ([_short(len(judged))] if over else [])
    curve = Curve(rows, judged, choices, over)
    sick = [*_of_the_loss(curve, unit), *_of_the_features(curve, choices, unit)]
    if sick or not over:
        return sick
    return [_healthy(curve, unit), *_unfinished(rows, curve)]


def _not_finite(rows: Sequence[Row]) -> Iterator[Finding]:
    for row in rows:
        names = [name for name, value in row.items() if not math.isfinite(value)]
        if names:
            yield Finding(
                "diverged",
                f"The run has diverged: from step {row['step']:.0f} on not finite are {', '.join(names)}.",
                SLOWER,
                sick=True,
            )
            return


def _of_the_loss(curve: Curve, unit: str) -> Iterator[Finding]:
    start, loss, chance = curve.start["loss"], curve.now["loss"], curve.chance_loss(curve.now)
    stays = curve.stays_at_chance()
    if curve.moved() < MOVED and not _constant(curve):
        yield Finding(
            "unchanged",
            f"Nothing has been learned: the features are those of the random weights that the run started from. The "
            f"loss began at {start:.4g} and is {loss:.4g}.",
            "Try a learning rate 10 times larger.",
            sick=True,
        )
    elif not stays and loss > (RISEN_ABOVE_CHANCE if chance and loss > chance else RISEN) * start > 0:
        yield Finding(
            "diverged",
            f"The loss has run away: it began at {start:.4g} and is {loss:.4g}{_chance(curve)}.",
            SLOWER,
            sick=True,
        )
    elif stays or curve.ends_at_chance():
        yield Finding(
            "chance",
            f"Nothing has been learned: the loss is {loss:.4g}{_chance(curve)}. The same answer for all {unit} "
            "does as well.",
            "Try a learning rate 3 to 10 times smaller; more epochs, if the loss still falls; a lower temperature, or "
            "a higher one if the loss is above chance level; with a teacher or prototypes a lower teacher temperature "
            "or epsilon, so that the targets are not all alike.",
            sick=True,
        )
    elif curve.ends_flat() and not curve.more_right():
        yield Finding(
            "flat",
            f"Nothing has been learned: the loss began at {start:.4g} and is {loss:.4g}, and that is no more of a "
            "change than from row to row.",
            "Try a learning rate 3 to 10 times larger, or smaller, and more epochs.",
            sick=True,
        )


def _of_the_features(curve: Curve, choices: Choices | None, unit: str) -> Iterator[Finding]:
    loss = f"The loss went from {curve.start['loss']:.4g} to {curve.now['loss']:.4g}"
    one, rank, started = singular(unit), curve.now["rankme"], curve.start["rankme"]
    directions = f"the features use {rank:.1f} directions (RankMe), {started:.1f} at the start"
    views = curve.apart(curve.start), curve.apart(curve.now)
    if _constant(curve):
        yield Finding(
            "constant",
            f"The output is constant: features hardly differ from {one} to {one}; {directions}.",
            "Try a learning rate 10 times smaller and less weight_decay; then whatever the method has against "
            "collapse: its variance term, predictor, stopped gradient, centre, negatives.",
            sick=True,
        )
    elif curve.left("rankme") < FEW_DIRECTIONS and curve.now["loss"] > curve.start["loss"] / 2:
        yield Finding(
            "collapse",
            f"Dimensional collapse: {directions}; the rest no longer tells {unit} apart.",
            "Try a learning rate 3 to 10 times smaller, and a larger weight of the term that keeps dimensions "
            "different from each other.",
            sick=True,
        )
    elif curve.left("rankme") < FEW_DIRECTIONS:
        enough = choices is not None and rank >= choices.count - 1
        yield Finding(
            "shortcut",
            f"{loss}, but {directions}: "
            + ("they keep little beyond the answers." if enough else "the task is being solved by a shortcut."),
            "Try a smaller learning rate, stronger augmentation, or a task that asks for more.",
            sick=not enough,
        )
    elif _head_collapsed(curve):
        spread = curve.left("projection_std")
        yield Finding(
            "collapse",
            f"Collapse behind the encoder: the projections, all that the loss sees of the features, use "
            f"{curve.now['projection_rankme']:.1f} directions ({curve.start['projection_rankme']:.1f} at the start) "
            f"and have {100 * spread:.0f} % of their spread left. {loss} without a reason to tell {unit} apart.",
            "Give the method back what it has against collapse: the weight of its redundancy, variance or covariance "
            "term, its predictor, stopped gradient, centre or negatives. The features follow the projections later.",
            sick=True,
        )
    elif views[0] and views[1] and views[1] >= views[0] and 0 < curve.now["loss"] < VANISHED * curve.start["loss"]:
        yield Finding(
            "shortcut",
            f"{loss}, but two views of {any_one(unit)} lie no closer in the features: at {views[1]:.2f} of the "
            f"squared distance of two {unit}, {views[0]:.2f} at the start. Something behind the encoder does the work.",
            "Try what the method has against collapse, and a smaller network between features and loss.",
            sick=True,
        )


def _head_collapsed(curve: Curve) -> bool:
    if "projection_rankme" not in curve.now:
        return False
    # A head may be too narrow ever to have used more.
    few = min(PROJECTED_DIRECTIONS, curve.start["projection_rankme"] / 2)
    return curve.now["projection_rankme"] < few or curve.left("projection_std") < FLAT_PROJECTIONS


def _constant(curve: Curve) -> bool:
    """Whether features hardly differ from image to image."""
    return curve.left("feature_std") < CONSTANT_STD or curve.now["rankme"] < CONSTANT_RANK


def _chance(curve: Curve) -> str:
    """Chance level, and the accuracy beside its own."""
    loss, accuracy = curve.chance_loss(curve.now), curve.chance_accuracy(curve.now)
    if loss is None:
        return ""
    told = f"{loss:.4g}"
    if curve.choices and "chance_loss" not in curve.now:
        told = f"ln {curve.choices.count} = {loss:.4g}, for {curve.choices.count} {curve.choices.among}"
    told = f" (chance level: {told})"
    if accuracy is None:
        return told
    return f"{told}, the accuracy {100 * curve.now['accuracy']:.1f} % (chance level: {100 * accuracy:.1f} %)"


def _healthy(curve: Curve, unit: str) -> Finding:
    said = [
        f"Healthy: the loss went from {curve.start['loss']:.4g} to {curve.now['loss']:.4g}{_chance(curve)}",
        f"the features use {curve.now['rankme']:.1f} directions (RankMe), {curve.start['rankme']:.1f} at the start",
    ]
    before, after = curve.apart(curve.start), curve.apart(curve.now)
    if before and after and after < before:
        said.append(
            f"two views of {any_one(unit)} lie at {after:.2f} of the squared distance of two {unit}, {before:.2f} at "
            "the start"
        )
    return Finding("healthy", "; ".join(said) + ".", "", sick=False)


def _unfinished(rows: Sequence[Row], curve: Curve) -> Iterator[Finding]:
    middle = [row for row in rows[1:] if 0.4 <= row["step"] / rows[-1]["step"] <= 0.6]
    whole = curve.start["loss"] - curve.now["loss"]
    if not middle or curve.fall < FALLEN:
        return
    share = (fmean(row["loss"] for row in middle) - curve.now["loss"]) / whole
    if share > UNFINISHED:
        yield Finding(
            "unfinished",
            f"Cut short: {100 * share:.0f} % of all that the loss has fallen it fell in the second half of the run, "
            "while the learning rate was already going down.",
            "Try more epochs.",
            sick=False,
        )


def _short(rows: int) -> Finding:
    return Finding(
        "short",
        f"Too short to be judged: the curve has {rows} rows after the first fifth of the run, and a verdict takes "
        f"{FEWEST}.",
        "Try more epochs, or a smaller pretrain.log_every.",
        sick=False,
    )
