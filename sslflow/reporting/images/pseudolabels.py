"""What the audit of pseudo-labels has found: how many are right, whether they come again, what stands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sslflow import paths
from sslflow.drawing.embedded import Picture, sheet
from sslflow.pseudolabels.criteria import CRITERIA
from sslflow.reporting.curves import line_chart
from sslflow.runtime.files import read_csv, read_json

SIDE, EDGE = 260, 34
"""The reliability diagram, and what stands left of it and below."""


@dataclass(frozen=True)
class Shown:
    """Of one method."""

    method: str
    sentences: list[str]
    """The verdict first."""
    charts: list[tuple[str, str, Markup]]
    """Title, explanation and drawing of each criterion for the number of clusters."""
    suggestion: str
    reliability: Markup | None
    clusters: list[dict[str, str]]
    """Those with something found, as in the table."""
    sheet: Picture | None


def section(methods: Sequence[str], best: str, unit: str) -> list[Shown]:
    """The methods whose pseudo-labels have been looked at, the best method first."""
    found = []
    for method in sorted(methods, key=lambda name: name != best):
        folder, measured = paths.clusters(method), paths.metrics("audit_clusters", method)
        if not (measured.exists() and (folder / "audit.json").exists()):
            continue
        facts, metrics = read_json(folder / "audit.json"), read_json(measured)
        tables = {name: read_csv(folder / f"{name}.csv") for name in ("clusters", "numbers", "reliability")}
        found.append(
            Shown(
                method,
                [*sentences(method, metrics, unit), *facts["said"]],
                _criteria(method, tables["numbers"]),
                facts["suggestion"],
                _reliability(tables["reliability"]) if tables["reliability"] else None,
                [line for line in tables["clusters"] if line["found"]],
                sheet(folder / "suspects.png"),
            )
        )
    return found


def sentences(method: str, metrics: Mapping[str, float], unit: str = "images") -> list[str]:
    """How far the pseudo-labels can be trusted, in plain words."""
    said = []
    if "accuracy" in metrics:
        low, high = metrics["accuracy_low"], metrics["accuracy_high"]
        said.append(
            f"{_percent(metrics['accuracy'])} ({100 * low:.0f} to {_percent(high)}) of the pseudo-labels of {method} "
            f"are right, on {metrics['tested']:,.0f} test {unit}, when training labels name the clusters; "
            f"that of the largest class, for all of them, is right on {_percent(metrics['largest_class'])}. Of the "
            f"surest half {_percent(metrics['surest_half'])} are right. A right one is surer than a wrong one in "
            f"{_percent(metrics['told_apart'])} of pairs (chance: 50 %); confidence and share that is right differ by "
            f"{100 * metrics['calibration_error']:.0f} points on average."
        )
    else:
        said.append(f"How many pseudo-labels of {method} are right nobody can say without labels of test {unit}.")
    if "few_accuracy" in metrics:
        said.append(
            f"From {metrics['few_labels']:,.0f} labels alone, at random and naming the clusters for one another, "
            f"one would have said {_percent(metrics['few_accuracy'])} ({100 * metrics['few_low']:.0f} to "
            f"{_percent(metrics['few_high'])})."
        )
    for over, words in (("seeds", "of another seed's encoder"), ("rounds", "of K-means from another start")):
        if f"agreed_over_{over}" in metrics:
            said.append(
                f"{_percent(metrics[f'agreed_over_{over}'])} of the {unit} are in the same cluster {words} "
                f"(NMI {metrics[f'nmi_over_{over}']:.2f})."
            )
    if "largest" in metrics:
        empty = f", {metrics['empty']:,.0f} of them empty" if metrics["empty"] else ""
        said.append(
            f"{metrics['clusters']:,.0f} clusters{empty}, of {metrics['smallest']:,.0f} to {metrics['largest']:,.0f} "
            f"{unit} (evenness {metrics['evenness']:.2f}, 1 is all the same); mean silhouette "
            f"{metrics['silhouette']:.2f}."
        )
    if "suspects" in metrics:
        said.append(
            f"{metrics['suspects']:,.0f} of {metrics['images']:,.0f} {unit} are suspected: "
            f"{metrics['nearer_to_another']:,.0f} nearer to another cluster, {metrics['another_label']:,.0f} with "
            f"another label than most of their cluster, {metrics['unsure']:,.0f} halfway between two, "
            f"{metrics['unstable']:,.0f} elsewhere in most other clusterings. All of them are in "
            f"artifacts/clusters/{method}/suspects.csv."
        )
    return said


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _criteria(method: str, lines: Sequence[Mapping[str, str]]) -> list[tuple[str, str, Markup]]:
    if len(lines) < 2:
        return []
    return [
        (f"{called[0].upper()}{called[1:]}", meaning, line_chart(
            {0: [(float(line["clusters"]), float(line[name])) for line in lines]}, f"{called} by clusters, {method}"
        ))
        for name, (called, meaning) in CRITERIA.items()
    ]  # fmt: skip


def _reliability(lines: Sequence[Mapping[str, str]]) -> Markup:
    """Share that is right by confidence, with 95 % intervals, beside the diagonal on which both are the same."""

    def place(x: float, y: float) -> tuple[float, float]:
        inner = SIDE - EDGE - 8
        return EDGE + x * inner, 8 + (1 - y) * inner

    points = [(float(line["confidence"]), *(float(line[key]) for key in ("right", "low", "high"))) for line in lines]
    said = "; ".join(f"confidence {one[0]:.2f}: {100 * one[1]:.0f} % right" for one in points)
    parts = [f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="Reliability: {said}">']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        (x, bottom), (left, y) = place(tick, 0), place(0, tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{SIDE - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{tick:g}</text>')
    (x1, y1), (x2, y2) = place(0, 0), place(1, 1)
    parts.append(f'<line class="axis" stroke-dasharray="3 3" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    path = " ".join("{:.1f},{:.1f}".format(*place(x, right)) for x, right, _, _ in points)
    bars = "".join(
        f"M{place(x, low)[0]:.1f} {place(x, low)[1]:.1f}V{place(x, high)[1]:.1f}" for x, _, low, high in points
    )
    parts.append(f'<polyline class="line s0" points="{path}"/><path class="line s0" style="opacity:.5" d="{bars}"/>')
    dots = (place(x, right) for x, right, _, _ in points)
    parts += [f'<circle class="dot s0" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in dots]
    return Markup("".join([*parts, "</svg>"]))  # all of it numbers
