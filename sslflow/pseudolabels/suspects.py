"""Images whose pseudo-label may be wrong, and a random sample of images to label."""

from __future__ import annotations

import numpy as np
import torch

from sslflow.clustering.points import prepared
from sslflow.data.splits import NO_LABEL
from sslflow.pseudolabels.findings import AuditClusters, Found, Known, class_of, digits
from sslflow.runtime.rng import permutation

UNSURE = 0.05
"""Confidence below which an image is suspected."""
UNSTABLE = 0.5
"""Share of the other clusterings that an image must agree with, or it is suspected."""
CLEAR = 0.5
"""Share of a cluster's training labels that are of its class, from which on another label is suspicious."""


def margins(known: Known) -> tuple[np.ndarray, np.ndarray]:
    """How much nearer the mean of each row's own cluster is than the nearest other one, as a share of the larger, in
    [−1, 1], `(n,)`, NaN where features are not finite; and the other one's number."""
    centre = known.centre
    sizes = np.bincount(known.cluster[known.fitted], minlength=known.clusters)
    own = torch.from_numpy(known.cluster.astype(np.int64)).to(known.features.device)
    means = torch.zeros(known.clusters, known.features.shape[1], device=known.features.device)
    for rows in np.array_split(known.fitted, -(-len(known.fitted) // 4096)):
        means.index_add_(0, own[rows], prepared(known.features[rows], known.metric, centre))
    means /= torch.from_numpy(np.maximum(sizes, 1)).to(means)[:, None]
    if known.metric == "cosine":
        means = torch.nn.functional.normalize(means, dim=1)
    there = torch.from_numpy(sizes > 0).to(means.device)
    margins, others = [], []
    for chunk, mine in zip(known.features.split(4096), own.split(4096), strict=True):
        points = prepared(chunk, known.metric, centre)
        table = (1 - points @ means.T).clamp_(min=0) if known.metric == "cosine" else torch.cdist(points, means)
        distance = table.gather(1, mine[:, None])[:, 0]
        table = table.masked_fill(~there, torch.inf).scatter(1, mine[:, None], torch.inf)
        nearest, other = table.min(dim=1)
        larger = torch.maximum(distance, nearest).clamp_min(1e-12)
        margins.append(torch.where(nearest.isinf(), 0.0, (nearest - distance) / larger))
        others.append(other)
    margin = torch.cat(margins).cpu().numpy()
    return np.where(known.good, margin, np.nan), torch.cat(others).cpu().numpy()


def suspects(
    known: Known,
    names: np.ndarray,
    purity: np.ndarray,
    sure: np.ndarray,
    elsewhere: np.ndarray,
    stable: np.ndarray,
    found: Found,
) -> None:
    """Images whose cluster may be wrong, for whatever reason: what is nearer to another one first, then those with
    another label, then by rising confidence."""
    labels, cluster = known.dataset.labels, known.cluster
    name, clear = names[cluster], purity[cluster] >= CLEAR
    nearer = known.good & (sure < 0)
    unsure = known.good & (sure >= 0) & (sure < UNSURE) & (found.metrics["clusters"] - found.metrics["empty"] > 1)
    other = known.good & (labels != NO_LABEL) & (name != NO_LABEL) & (labels != name) & clear
    wanders = stable < UNSTABLE
    places = np.flatnonzero(nearer | unsure | other | wanders)
    order = np.lexsort((np.nan_to_num(sure[places]), ~other[places], ~nearer[places]))
    paths, splits = (known.dataset.column(column, places) for column in ("path", "split"))
    for at in order.tolist():
        row = int(places[at])
        reasons = {
            f"nearer to cluster {elsewhere[row]}": nearer[row],
            "its label is another": other[row],
            "unsure": unsure[row],
            "unstable": wanders[row],
        }
        found.tables["suspects"].append((
            row, paths[at], splits[at], class_of(known.dataset, labels[row]), int(cluster[row]),
            class_of(known.dataset, name[row]), digits(sure[row]), digits(stable[row]),
            "; ".join(reason for reason, true in reasons.items() if true),
        ))  # fmt: skip
    found.metrics |= {
        "suspects": len(places),
        "nearer_to_another": int(nearer.sum()),
        "unsure": int(unsure.sum()),
        "another_label": int(other.sum()),
        "unstable": int(wanders.sum()),
    }


def to_label(known: Known, seed: int, asked: AuditClusters, found: Found) -> None:
    """Random images, in random order, whose labels would tell how many pseudo-labels are right; test images are none of
    them, and of all others each is as likely as another."""
    rows = known.dataset.pretraining_rows
    chosen = rows[permutation(len(rows), seed, "to label").numpy()[: asked.to_label]]
    given = [class_of(known.dataset, label) for label in known.dataset.labels[chosen].tolist()]
    names = known.dataset.column("path", chosen)
    found.tables["to_label"] = list(zip(names, given, known.cluster[chosen].tolist(), strict=True))
