"""The audit of a method's pseudo-labels: what clusters are like, which images they may be wrong about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow.clustering.groups import silhouettes
from sslflow.clustering.kmeans import assign
from sslflow.clustering.points import prepared
from sslflow.clustering.pseudo import fit
from sslflow.data.dataset import Dataset
from sslflow.data.splits import NO_LABEL, TEST, TRAIN
from sslflow.evaluation.intervals import interval, of_share
from sslflow.evaluation.named import PseudoLabels, names_of, votes
from sslflow.pseudolabels.divisions import divisions
from sslflow.pseudolabels.findings import AuditClusters, Found, Known, class_of, digits
from sslflow.pseudolabels.numbers import beyond, grid, suggested, tried
from sslflow.pseudolabels.stability import Alike, alike
from sslflow.pseudolabels.suspects import margins, suspects, to_label
from sslflow.pseudolabels.trust import calibration_error, reliability, right_by_others, told_apart
from sslflow.runtime.rng import derive, permutation

DISSOLVES = 0.5
"""Overlap with what stands for it in other rounds below which a cluster is one by chance (Hennig 2007)."""
ROUND_ROWS = 10_000
"""Images, at most, on which K-means is fitted in another round, and whose clusters are halved."""


@torch.no_grad()
def audit(
    dataset: Dataset,
    features: Tensor,
    runs: Sequence[PseudoLabels],
    clusters: int,
    settings: Mapping[str, Any],
    seed: int,
    asked: AuditClusters,
) -> Found:
    """Look at the pseudo-labels of the first of `runs`, of a method's seeds: its `features` are `(n, dim)`, there are
    so many `clusters`, and `settings` made them."""
    found, unit = Found(), dataset.format.unit
    good = torch.cat([chunk.isfinite().all(dim=1) for chunk in features.split(4096)]).cpu().numpy()
    fitted = dataset.pretraining_rows[good[dataset.pretraining_rows]]
    found.metrics |= {"seeds": len(runs), "images": len(dataset), "clusters": clusters}
    found.metrics["not_finite"] = int((~good).sum())
    if not good.all():
        found.said.append(
            f"Features of {(~good).sum():,} {unit} are NaN or infinite: they are left out; extract.precision: fp32, or "
            "other weights, may know them."
        )
    if len(fitted) < 2:
        found.said.append(f"There are fewer than two {unit} with features: nothing to look at.")
        return found
    known = Known(dataset, features, good, fitted, runs[0].cluster, clusters, settings.get("metric", "cosine"))
    names, purity = _names(known, runs[0], found)
    sure, elsewhere = margins(known)
    seeds = [alike(known.cluster[good], run.cluster[good], clusters) for run in runs[1:]]
    if not seeds:
        found.said.append("There is one seed: stability is that over rounds of K-means alone; run.seeds takes more.")
    rounds = _rounds(known, settings, seed, asked)
    found.metrics |= _alike("seeds", seeds) | _alike("rounds", rounds)
    stable = np.full(len(dataset), np.nan)
    stable[good] = np.mean([one.agreed for one in (*seeds, *rounds)], axis=0)
    _clusters(known, names, purity, sure, seeds, rounds, seed, asked, found)
    _numbers(known, seed, asked, found)
    _trust(dataset, runs, seed, asked, found)
    suspects(known, names, purity, sure, elsewhere, stable, found)
    to_label(known, seed, asked, found)
    return found


def _names(known: Known, run: PseudoLabels, found: Found) -> tuple[np.ndarray, np.ndarray]:
    """Class number by which the training labels name each cluster, −1 for none, and their share of it."""
    rows = known.dataset.labelled_rows(TRAIN) if known.dataset.classes else np.empty(0, np.int64)
    if not len(rows):
        found.said.append("There are no labels: how many pseudo-labels are right is unknown; see to_label.csv.")
        return np.full(known.clusters, NO_LABEL), np.full(known.clusters, np.nan)
    kinds = np.unique(known.dataset.labels[rows])
    if len(kinds) == 1:
        found.said.append(f"All labels are {known.dataset.classes[kinds[0]]}: they say nothing of the clusters.")
    table = votes(run.cluster[rows], known.dataset.labels[rows], known.clusters, len(known.dataset.classes))
    with np.errstate(invalid="ignore"):
        return names_of(table), table.max(axis=1) / table.sum(axis=1)


def _rounds(known: Known, settings: Mapping[str, Any], seed: int, asked: AuditClusters) -> list[Alike]:
    """K-means as it made the pseudo-labels, from other starts."""
    part = known.features[_some(known, seed)]
    good, found = known.features if known.good.all() else known.features[known.good], []
    for number in range(asked.rounds):
        again, metric = fit(part, derive(seed, "round", number), known.clusters, **{**settings, "clusters": 0})
        other = assign(good, again.centroids, metric)[0].cpu().numpy()
        found.append(alike(known.cluster[known.good], other, known.clusters))
    return found


def _some(known: Known, seed: int) -> np.ndarray:
    """Rows that clusters are made of, so many at most."""
    return np.sort(known.fitted[permutation(len(known.fitted), seed, "rounds").numpy()[:ROUND_ROWS]])


def _alike(over: str, found: Sequence[Alike]) -> dict[str, float]:
    if not found:
        return {}
    return {
        f"agreed_over_{over}": float(np.mean([one.agreed for one in found])),
        f"nmi_over_{over}": float(np.mean([one.nmi for one in found])),
    }


def _clusters(
    known: Known,
    names: np.ndarray,
    purity: np.ndarray,
    sure: np.ndarray,
    seeds: Sequence[Alike],
    rounds: Sequence[Alike],
    seed: int,
    asked: AuditClusters,
    found: Found,
) -> None:
    """A line for each cluster: its size, how it holds together, how it comes again."""
    sizes = np.bincount(known.cluster, minlength=known.clusters)
    filled = sizes[sizes > 0]
    shares = filled / filled.sum()
    even = float(-(shares * np.log(shares)).sum() / np.log(len(filled))) if len(filled) > 1 else 1.0
    rows = known.fitted[permutation(len(known.fitted), seed, "silhouette").numpy()[: asked.sample]]
    cluster = torch.from_numpy(known.cluster.astype(np.int64)).to(known.features.device)
    centre = known.centre
    points = prepared(known.features[rows], known.metric, centre)
    distances = (1 - points @ points.T).clamp_(min=0) if known.metric == "cosine" else torch.cdist(points, points)
    each = silhouettes(distances.fill_diagonal_(0), cluster[rows]).cpu().numpy()
    if len(filled) < 2:
        found.said.append("There is one cluster: neither silhouette nor confidence say anything.")
    some = _some(known, seed)
    apart = divisions(prepared(known.features[some], known.metric, centre), cluster[some], known.clusters, seed)
    same = {number: other for pair in apart.one for number, other in (pair, pair[::-1])}
    for number in range(known.clusters):
        own, mine = known.cluster[rows] == number, known.cluster == number
        over = [
            float(np.mean([one.overlap[number] for one in kind])) if kind and sizes[number] else np.nan
            for kind in (seeds, rounds)
        ]
        said = [
            words
            for words, true in {
                "empty": sizes[number] == 0,
                "two in one?": number in apart.two,
                f"the same as {same.get(number)}?": number in same,
                "not found again": sizes[number] > 0 and over[1] < DISSOLVES,
            }.items()
            if true
        ]
        found.tables["clusters"].append((
            number, int(sizes[number]), digits(sizes[number] / sizes.sum()), class_of(known.dataset, names[number]),
            digits(purity[number]), digits(float(each[own].mean()) if own.any() else np.nan),
            digits(float(np.nanmean(sure[mine])) if np.isfinite(sure[mine]).any() else np.nan), *map(digits, over),
            digits(apart.halves[number]), int(apart.nearest[number]), digits(apart.apart[number]), "; ".join(said),
        ))  # fmt: skip
    found.metrics |= {
        "empty": int((sizes == 0).sum()),
        "largest": int(filled.max()),
        "smallest": int(filled.min()),
        "evenness": even,
        "silhouette": float(each.mean()) if len(filled) > 1 else 0.0,
        "two_in_one": len(apart.two),
        "the_same": len(apart.one),
        "not_found_again": sum("not found again" in line[-1] for line in found.tables["clusters"]),
    }


def _numbers(known: Known, seed: int, asked: AuditClusters, found: Found) -> None:
    unit = known.dataset.format.unit
    rows = known.fitted[permutation(len(known.fitted), seed, "numbers").numpy()[: asked.sample]]
    lines = tried(known.features[rows], grid(len(rows), known.clusters), seed, known.metric)
    found.tables["numbers"] = [
        (one.clusters, digits(one.silhouette), f"{one.calinski_harabasz:.1f}", digits(one.stability)) for one in lines
    ]
    found.metrics["suggested"], suggestion = suggested(lines, unit)
    found.suggestion = f"{suggestion} {beyond(known.clusters, len(rows), len(known.fitted), unit)}".rstrip()


def _trust(dataset: Dataset, runs: Sequence[PseudoLabels], seed: int, asked: AuditClusters, found: Found) -> None:
    """Pseudo-labels named by training labels, on labelled test images: accuracy over seeds, reliability; and what a
    small random sample of labels would have said."""
    train = dataset.labelled_rows(TRAIN) if dataset.classes else np.empty(0, np.int64)
    test = dataset.labelled_rows(TEST) if len(train) else np.empty(0, np.int64)
    if not len(train):
        return
    labels, classes, groups = dataset.labels, len(dataset.classes), dataset.groups
    first = runs[0]
    few = train[permutation(len(train), seed, "few labels").numpy()[: asked.to_label]]
    if len(few) > 1:
        named = right_by_others(first.cluster[few], labels[few], groups[few], int(first.cluster.max()) + 1, classes)
        low, high = interval(named, groups[few])
        found.metrics |= {"few_labels": len(few), "few_accuracy": float(named.mean()), "few_low": low, "few_high": high}
    if not len(test):
        found.said.append(
            f"There are no labelled test {dataset.format.unit}: whether confidence can be trusted is unknown."
        )
        return
    right = np.stack(
        [
            names_of(votes(run.cluster[train], labels[train], int(run.cluster.max()) + 1, classes))[run.cluster[test]]
            == labels[test]
            for run in runs
        ]
    )
    told = of_share(right, groups[test])
    sure = np.concatenate([run.confidence[test] for run in runs])
    bins = reliability(sure, right.ravel(), np.tile(groups[test], len(runs)))
    found.tables["reliability"] = [
        (digits(one.confidence), digits(one.right), digits(one.low), digits(one.high), one.images) for one in bins
    ]
    surest = sure >= np.median(sure)
    found.metrics |= {
        "tested": len(test),
        "accuracy": told.mean,
        "accuracy_low": told.low,
        "accuracy_high": told.high,
        "surest_half": float(right.ravel()[surest].mean()),
        "largest_class": float((labels[test] == np.bincount(labels[train]).argmax()).mean()),
        "calibration_error": calibration_error(bins),
        "told_apart": told_apart(sure, right.ravel()),
    }
