"""Answers about test images beside what is known: scores of each image and each text, means, and what to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sslflow.evaluation.retrieval import per_query
from sslflow.examination.captions.answers import Answers, by_own_captions, told_f1
from sslflow.examination.captions.questions import Questions
from sslflow.runtime.about import about
from sslflow.runtime.files import replacing

FOUND_TEXTS, FOUND_IMAGES = 5, 8
"""Texts of each image, and images of each text, that are kept: the first that were found."""
HITS = ("r1", "r5", "r10", "rank")
Table = dict[str, list]


def right_classes(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the class with the highest of `scores` `(n, classes)` is the right one, of `labels` `(n,)`: of several
    with the same score each is answered as often, so that it may be a share. Float64 `(n,)`."""
    best = scores == scores.max(axis=1, keepdims=True)
    return best[np.arange(len(labels)), labels] / best.sum(axis=1)


def judged(asked: Questions, answers: Answers) -> tuple[Table, Table]:
    """A row for each test image, and one for each text. Of images: `row`, `group`, `told` and `told_f1`; `class`, the
    class that fits best, empty where several do, and `right`, where classes are known, NaN where not; `found`, texts,
    the best first. Of texts: `text`, `group`, and `found`, rows. Of both `r1`, `r5`, `r10` and `rank`, as `per_query`
    has them."""
    labelled = asked.labelled
    right, named = np.full(len(asked.rows), np.nan), np.full(len(asked.rows), "", object)
    if len(labelled):
        right[labelled] = right_classes(answers.classes[labelled], asked.labels[labelled])
        sure = (answers.classes == answers.classes.max(axis=1, keepdims=True)).sum(axis=1) == 1
        named = np.where(sure, np.array(asked.classes, object)[answers.classes.argmax(axis=1)], "")
    images = {
        "row": asked.rows.tolist(),
        "group": asked.groups.tolist(),
        "told": answers.told,
        "told_f1": told_f1(answers.told, asked).tolist(),
        "class": named.tolist(),
        "right": right.tolist(),
        "found": [[asked.texts[place] for place in own] for own in _first(answers.texts, FOUND_TEXTS)],
        **{name: values.tolist() for name, values in per_query(answers.texts, asked.relevant).items()},
    }
    texts = {
        "text": asked.texts,
        "group": asked.text_groups.tolist(),
        "found": [asked.rows[own].tolist() for own in _first(answers.texts.T, FOUND_IMAGES)],
        **{name: values.tolist() for name, values in per_query(answers.texts.T, asked.relevant.T).items()},
    }
    return images, texts


def means(asked: Questions, images: Table, texts: Table) -> dict[str, float]:
    """The numbers of a row: `told_f1`; `zero_shot`, the share of right classes, and `zero_shot_balanced`, the mean of
    that over classes, where these are known; of finding texts for images, `texts_…`, and images for texts, `images_…`:
    `r1`, `r5`, `r10` and the median `rank`."""
    found = {"told_f1": float(np.mean(images["told_f1"]))}
    for what, table in (("texts", images), ("images", texts)):
        found |= {f"{what}_{name}": float(np.mean(table[name])) for name in HITS[:3]}
        found[f"{what}_rank"] = float(np.median(table["rank"]))
    if len(labelled := asked.labelled):
        right = np.array(images["right"])[labelled]
        found |= {"zero_shot": float(right.mean()), "zero_shot_balanced": _balanced(right, asked.labels[labelled])}
    return found


def chance(asked: Questions) -> dict[str, float]:
    """What `means` would be of answers by chance; of classes also the share of the commonest one, and what the known
    captions of the test images tell of them by their words."""
    nothing = np.zeros(asked.relevant.shape, np.float32)
    found: dict[str, float] = {}
    for what, scores, relevant in (("texts", nothing, asked.relevant), ("images", nothing.T, asked.relevant.T)):
        by_chance = per_query(scores, relevant)
        found |= {f"{what}_{name}_chance": float(by_chance[name].mean()) for name in HITS[:3]}
        found[f"{what}_rank_chance"] = float(np.median(by_chance["rank"]))
    if len(labelled := asked.labelled):
        labels = asked.labels[labelled]
        right = right_classes(by_own_captions(asked)[labelled], labels)
        found |= {
            "zero_shot_chance": 1 / len(asked.classes),
            "zero_shot_commonest": float(np.bincount(labels).max() / len(labels)),
            "zero_shot_by_captions": float(right.mean()),
        }
    return found


def write_answers(folder: Path, tables: Mapping[str, tuple[Table, Table]], tested: np.ndarray) -> None:
    """`images.parquet` and `texts.parquet`: the tables of each way to answer, one below the other, with the way in the
    column `way`. They say that they are about the data set whose test images with captions are `tested`."""
    for place, name in enumerate(("images", "texts")):
        parts = [pa.table({"way": [way] * len(both[place]["rank"]), **both[place]}) for way, both in tables.items()]
        whole = pa.concat_tables(parts) if parts else pa.table({"way": pa.array([], pa.string())})
        with replacing(folder / f"{name}.parquet") as temporary:
            pq.write_table(whole.replace_schema_metadata(about(tested)), temporary)


def _first(scores: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def _balanced(right: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
