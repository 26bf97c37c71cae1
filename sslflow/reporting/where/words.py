"""What segmentation and detection say of pretraining, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sslflow.evaluation.intervals import Interval
from sslflow.examination.where.found import Metric, Way
from sslflow.reporting.amounts import percent
from sslflow.reporting.where.rows import SCRATCH, Rows, share, title

Place = tuple[Metric, float]


def sentences(rows: Rows) -> list[str]:
    """Whether pretraining beats training from scratch, and what weights that exist do; then each task with its
    distances; then where frozen and fine-tuned encoders rank the other way round."""
    places: list[Place] = [
        (metric, fraction) for metric in rows.tasks for fraction in rows.fractions() if rows.names(metric)
    ]
    told = [*_told(rows, places), *_other_way_round(rows, places)]
    return [_verdict(rows, places), *told, *other_networks(rows), *_how_sure(rows, places)]


def other_networks(rows: Rows) -> Iterator[str]:
    """That from scratch is another network than some rows are."""
    names = rows.other_networks()
    if names and any(SCRATCH in rows.names(metric) for metric in rows.tasks):
        said = [f"{name} (continued)" if name in rows.continued else name for name in names]
        whose = "has the network of its" if len(said) == 1 else "have the networks of their"
        yield (
            f"From scratch is the network of the setting encoder; {' and '.join(said)} {whose} weights: what is gained "
            "beside from scratch is that of network, weights and training together."
        )


def _verdict(rows: Rows, places: Sequence[Place]) -> str:
    gaps, bests = {}, set()
    for metric, fraction in places:
        way = Way("tuned", fraction)
        best = rows.best_method(metric, way)
        if best and (gap := rows.above_scratch(best, metric, way)):
            gaps[metric, fraction] = gap
            bests.add(best)
    if not gaps:
        asked = "run.segment_volumes" if rows.found.volumes else "run.segment or run.detect"
        return (
            f"Whether pretraining beats training from scratch can't be told: add methods to {asked}, "
            f"and {SCRATCH} to their controls."
        )
    above, below, unsure = ([place for place in gaps if kind(gaps[place])] for kind in (_above, _below, _unsure))
    if len(above) == len(gaps):
        said = f"Pretrained here, the encoder beats training from scratch on the same labels: {_where(rows, above)}."
    elif above:
        said = f"Pretrained here, the encoder beats training from scratch for {_where(rows, above)}"
        said += f"; it may be chance for {_where(rows, unsure)}" if unsure else ""
        said += f"; it is worse for {_where(rows, below)}" if below else ""
        said += "."
    elif below:
        said = f"Pretrained here, the encoder is worse than training from scratch: {_where(rows, below)}"
        said += f"; it may be chance for {_where(rows, unsure)}." if unsure else "."
    else:
        said = f"Pretrained here, the encoder is not surely better than training from scratch: {_where(rows, unsure)}."
    if continued := [name for name in rows.continued if name in bests]:
        go = "goes" if len(continued) == 1 else "go"
        said += f" {' and '.join(continued)} {go} on from weights that exist: another network than from scratch."
    return said + weights(rows, places)


def weights(rows: Rows, places: Sequence[Place]) -> str:
    """What weights that exist do, fine-tuned likewise, beside the best method."""
    kinds: dict[str, list[Place]] = {"better": [], "worse": [], "level": []}
    names = []
    for metric, fraction in places:
        way = Way("tuned", fraction)
        start, best = _best(rows, rows.starts(metric), metric, way), rows.best_method(metric, way)
        if start and best and (gap := rows.gap((start, way), (best, way), metric)):
            names.append(start)
            kinds["better" if _above(gap) else "worse" if _below(gap) else "level"].append((metric, fraction))
    if not names:
        return ""
    who = f"Weights that exist ({', '.join(dict.fromkeys(names))})"
    if kinds["better"]:
        where = "everywhere" if len(kinds["better"]) == len(places) else f"for {_where(rows, kinds['better'])}"
        return f" {who} are better still, {where}: take them, or go on from them."
    compared = "" if len(names) == len(places) else f", compared for {_where(rows, kinds['level'] + kinds['worse'])}"
    if kinds["level"]:
        return f" {who} are nowhere surely better{compared}."
    return f" {who} are worse{compared}: pretraining on one's own {rows.found.dataset.format.unit} pays."


def _told(rows: Rows, places: Sequence[Place]) -> Iterator[str]:
    """For each task and share of labels the best method, and its distances."""
    names = {"miou": "mIoU", "map": "mAP", "map50": "mAP50"}
    for metric, task in rows.tasks.items():
        parts = []
        for fraction in (fraction for own, fraction in places if own == metric):
            way = Way("tuned", fraction)
            best = rows.best_method(metric, way)
            if not best or not (over := rows.over(best, metric, way)):
                continue
            beside = [*(name for name in rows.names(metric) if name == SCRATCH), *rows.starts(metric)]
            gaps = [(name, gap) for name in beside if (gap := rows.gap((best, way), (name, way), metric))]
            told = ", ".join(
                _distance(
                    gap,
                    title(name, rows.methods).removesuffix(", weights that exist"),
                    rows.shared((best, way), (name, way), metric),
                )
                for name, gap in gaps
            )
            said = (
                f"with {share(fraction)} of the labels {best}, fine-tuned, has {percent(over.mean)} % {names[metric]}"
            )
            parts.append(f"{said}{', ' if told else ''}{told}")
        if parts:
            yield f"{task.capitalize()}: {'; '.join(parts)}."


def _other_way_round(rows: Rows, places: Sequence[Place]) -> Iterator[str]:
    """Where the best frozen row is not the best fine-tuned one."""
    for metric, fraction in places:
        frozen, tuned = Way("frozen", fraction), Way("tuned", fraction)
        both = [
            name for name in rows.names(metric) if rows.over(name, metric, frozen) and rows.over(name, metric, tuned)
        ]
        first, last = _best(rows, both, metric, frozen), _best(rows, both, metric, tuned)
        if first == last:
            continue
        gaps = [rows.gap((first, frozen), (last, frozen), metric), rows.gap((last, tuned), (first, tuned), metric)]
        sure = all(gap and gap.sure for gap in gaps)
        a, b = (title(name, rows.methods).removesuffix(", weights that exist") for name in (first, last))
        yield (
            f"The order turns round for {rows.tasks[metric]} with {share(fraction)} of the labels: frozen, {a} is "
            f"above {b}; fine-tuned, {b} is above {a}{'' if sure else ', which may be chance'}."
        )


def _how_sure(rows: Rows, places: Sequence[Place]) -> Iterator[str]:
    most = max(
        len(rows.found.values(name, metric, way))
        for metric, _ in places
        for name in rows.names(metric)
        for way in rows.found.ways(name, metric)
    )
    if most == 1:
        unit = rows.found.dataset.format.unit
        yield f"One seed: the intervals know of test {unit}, and not of how far another training would differ."


def _best(rows: Rows, names: Sequence[str], metric: Metric, way: Way) -> str:
    means = {name: over.mean for name in names if (over := rows.over(name, metric, way))}
    return max(means, key=means.__getitem__, default="")


def _distance(gap: Interval, name: str, seeds: str) -> str:
    """`6.1 points (3.0 to 9.2; 1 of 3 seeds) above from scratch`."""
    low, high = (gap.low, gap.high) if gap.mean >= 0 else (-gap.high, -gap.low)
    aside = (f"; {seeds}" if seeds else "") + ("" if gap.sure else ": may be chance")
    mean, low, high = (f"{round(100 * value, 1) + 0.0:.1f}".replace("-", "−") for value in (abs(gap.mean), low, high))
    size = f"{mean} points ({low} to {high}{aside})"
    return f"{size} {'above' if gap.mean >= 0 else 'below'} {name}"


def _where(rows: Rows, places: Sequence[Place]) -> str:
    """`masks and boxes with 1 % and 10 % of the labels`, `masks with 1 % and 10 % of the labels, boxes with 10 %`."""
    shares = {
        task: [share(fraction) for own, fraction in places if own == metric] for metric, task in rows.tasks.items()
    }
    shares = {task: found for task, found in shares.items() if found}
    if len({tuple(found) for found in shares.values()}) == 1:
        return f"{' and '.join(shares)} with {' and '.join(next(iter(shares.values())))} of the labels"
    told = [f"{task} with {' and '.join(found)}" for task, found in shares.items()]
    return ", ".join([f"{told[0]} of the labels", *told[1:]])


def _above(gap: Interval) -> bool:
    return gap.low > 0


def _below(gap: Interval) -> bool:
    return gap.high < 0


def _unsure(gap: Interval) -> bool:
    return not gap.sure
