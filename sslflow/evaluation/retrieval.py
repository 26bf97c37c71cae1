"""How high what belongs to a query stands in a ranking, with ties counted as chance would have them."""

from __future__ import annotations

import numpy as np

DEPTH = 30
DEPTHS = (1, 5, 10)


def retrieval(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Of `scores` `(queries, items)`, higher for what fits better, and of what is `relevant`, bool of the same shape:

    - `r1`, `r5`, `r10`: share of the queries with a relevant item among the first 1, 5, 10, where there are more items
      than that: among all of them there always is one;
    - `mrr`: mean of 1 / rank of the first relevant item;
    - `ndcg30`: normalised discounted cumulative gain of the first 30, gains 0 and 1, discount log₂(rank + 1).

    Items with equal scores stand in every order with the same probability, and each number is the mean over these: a
    model that gives one score to everything is as good as chance. Queries without a relevant item are left out; without
    any query there are no numbers. Raises `ValueError` for scores that are not finite.
    """
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite")
    asked = relevant.any(axis=1)
    found = [_query(row, wanted) for row, wanted in zip(scores[asked], relevant[asked], strict=True)]
    if not found:
        return {}
    names = (*(f"r{depth}" for depth in DEPTHS), "mrr", "ndcg30")
    means = dict(zip(names, map(float, np.mean(found, axis=0)), strict=True))
    return {name: mean for name, mean in means.items() if name not in {f"r{d}" for d in DEPTHS if d >= scores.shape[1]}}


def per_query(scores: np.ndarray, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Of each query, `(queries,)` each: `r1`, `r5`, `r10`, the probability that a relevant item is among the first so
    many, and `rank`, the mean rank of the first relevant one, over the orders that equal scores may stand in. Raises
    `ValueError` for scores that are not finite, and for a query without a relevant item."""
    if not np.isfinite(scores).all() or not relevant.any(axis=1).all():
        raise ValueError("expected finite scores, and for each query something relevant")
    found = [_ranks(row, wanted) for row, wanted in zip(scores, relevant, strict=True)]
    hits = {f"r{depth}": np.array([first[ranks <= depth].sum() for ranks, first in found]) for depth in DEPTHS}
    return {**hits, "rank": np.array([(ranks * first).sum() for ranks, first in found])}


def chance(relevant: np.ndarray) -> dict[str, float]:
    """What `retrieval` gives on average where the order is chance."""
    return retrieval(np.zeros(relevant.shape), relevant)


def _query(scores: np.ndarray, relevant: np.ndarray) -> tuple[float, ...]:
    ranks, first = _ranks(scores, relevant)
    hits = [float(first[ranks <= depth].sum()) for depth in DEPTHS]
    return *hits, float((first / ranks).sum()), _ndcg(scores, relevant)


def _ranks(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks that the first relevant item may have, and the probability of each."""
    best = scores[relevant].max()
    above, tied = int((scores > best).sum()), scores == best
    first = _first_of(int(relevant[tied].sum()), int(tied.sum()))
    return above + 1 + np.arange(len(first)), first


def _first_of(wanted: int, count: int) -> np.ndarray:
    """The probability that of `count` items in an order by chance, `wanted` of which are looked for, the first of those
    is at place 0, 1, …: `(count - wanted + 1,)`."""
    # At place k: none of those looked for is among the k before it, and one is there.
    none_before = np.concatenate([[1.0], np.cumprod(1 - wanted / (count - np.arange(count - wanted)))])
    here = wanted / (count - np.arange(count - wanted + 1))
    return none_before * here


def _ndcg(scores: np.ndarray, relevant: np.ndarray) -> float:
    discounts = np.zeros(len(scores))
    depth = min(DEPTH, len(scores))
    discounts[:depth] = 1 / np.log2(np.arange(depth) + 2)
    order = np.argsort(-scores, kind="stable")
    # Each place of a tie holds a relevant item as often as any other of it.
    _, group = np.unique(-scores[order], return_inverse=True)
    gains = np.bincount(group, weights=relevant[order]) / np.bincount(group)
    return float((gains[group] * discounts).sum() / discounts[: int(relevant.sum())].sum())
