"""A trained method for clips, examined on the test clips: scores, a control, and tables that a report draws from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sslflow.audiovisual.ingredients import needs_sound
from sslflow.audiovisual.method import ClipMethod, OwnTask, PairMethod
from sslflow.audiovisual.views import ClipViews
from sslflow.audiovisual.windows import BATCH, Windows, chosen_rows, embed, windows
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.data.splits import TEST
from sslflow.evaluation.linear import fit_linear
from sslflow.examination.clips.pairs import Pairs, accuracies, by_conditions, paired, scored
from sslflow.examination.clips.pointing import known_boxes
from sslflow.examination.clips.shortcuts import conditions, likely_from
from sslflow.examination.clips.tasks import finding, own_accuracy, own_task, pointed, score_table, sound_maps
from sslflow.networks.batch_norm import fresh_statistics
from sslflow.networks.encoder import Encoder
from sslflow.runtime.rng import derive
from sslflow.settings.params import Count

Both = tuple[Tensor, Tensor]


HELD = 4
"""Windows of a clip that chooses the threshold, for each window of one that is tested on, as long as few clips are held
out."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """How much is looked at: at most `clips` clips to test on, and as many to choose a threshold on and to train
    the control and probes on; `windows` of each, one for retrieval and localisation; the first `shown` results of each
    query are written down."""

    clips: Count = 2000
    windows: Count = 2
    shown: Count = 5


@dataclass
class Findings:
    """What was found."""

    metrics: dict[str, float] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)

    def add(self, prefix: str, metrics: dict[str, float]) -> None:
        """Metrics under names that begin with the prefix."""
        self.metrics |= {f"{prefix}_{name}" if prefix else name: value for name, value in metrics.items()}


@dataclass(frozen=True)
class Exam:
    """A method, its views and the clips that it is examined on."""

    method: ClipMethod
    views: ClipViews
    clips: Dataset[ClipFormat]
    train: np.ndarray
    """Rows to train the control and probes on, int64."""
    held: np.ndarray
    """Rows to choose a threshold on: of the training split, and not trained on, or there are too few sources for
    that."""
    device: torch.device
    seed: int
    size: Examination

    def findings(self) -> Findings:
        """All that the method can be asked, on the clips of the test split; nothing of what needs more than there is:
        sources, labels, boxes."""
        found = Findings()
        rows = self.clips.rows(TEST)
        if needs_sound(type(self.method)):
            rows = rows[self.clips.column("audible", rows)]
        test = chosen_rows(rows, self.size.clips, self.seed)
        train = chosen_rows(self.train, self.size.clips, self.seed)
        found.metrics |= {
            "test_clips": float(len(test)),
            "test_sources": float(len(np.unique(self.clips.groups[test]))),
        }
        if not len(test):
            return found
        if isinstance(self.method, PairMethod):
            self._pairs(self.method, train, test, found)
        elif isinstance(self.method, OwnTask):
            self._own_task(self.method, test, found)
        return found

    def _own_task(self, method: OwnTask, test: np.ndarray, found: Findings) -> None:
        times = self.size.windows
        answers = own_task(method, self.views, self.clips, test, self.device, self.seed, times)
        found.add("", own_accuracy(answers, self.clips.groups, self.seed))
        columns = {
            "clip": answers.clips,
            "given": answers.given,
            "right": answers.right,
            "confidence": answers.confidence,
        }
        found.tables["decisions"] = pa.table(columns)

    def _pairs(self, method: PairMethod, train: np.ndarray, test: np.ndarray, found: Findings) -> None:
        moments = method.wrong == "moment"
        held = chosen_rows(self.held, self.size.clips, self.seed)
        more = max(1, min(HELD, self.size.clips // max(1, len(held))))
        chosen = [
            windows(self.views, rows, derive(self.seed, part), each * self.size.windows, two=moments)
            for part, rows, each in (("train", train, 1), ("test", test, 1), ("held", held, more))
        ]
        embedded = [embed(method, self.views, self.clips, one, self.device) for one in chosen]
        recorded = [conditions(self.clips, one, self.views.window) for one in chosen[:2]]
        sources = [self.clips.groups[one.rows] for one in chosen]
        kinds = {"": "moment", "source": "source"} if moments else {"": "source"}
        for prefix, wrong in kinds.items():
            pairs = [paired(wrong, of, self.seed) for of in sources]
            if not all(len(one.same) for one in pairs):
                continue
            scores = [scored(method, one, pairs_of) for one, pairs_of in zip(embedded, pairs, strict=True)]
            threshold = likely_from(scores[2], pairs[2].same) if method.threshold is None else method.threshold
            labels = self.clips.labels[chosen[1].rows]
            found.add(prefix, accuracies(scores[1], pairs[1], threshold, sources[1], labels, self.seed))
            found.add(prefix, {"threshold": threshold, "pairs": float(len(pairs[1].same))})
            controlled = by_conditions(recorded, pairs[:2], sources[:2], self.seed)
            found.add(f"{prefix}_control_conditions" if prefix else "control_conditions", controlled)
            found.tables[f"{prefix}_decisions" if prefix else "decisions"] = _decisions(
                chosen[1], pairs[1], scores[1], threshold
            )
        self._finding(method, chosen[1], embedded[1], found)
        if method.localises:
            self._localising(method, _first(chosen[1]), found)

    def _finding(self, method: PairMethod, chosen: Windows, embedded: Both, found: Findings) -> None:
        first = _first_of_each(chosen)
        chosen, embedded = Windows(chosen.rows[first], chosen.starts[first]), (embedded[0][first], embedded[1][first])
        table, labels = score_table(method, embedded), self.clips.labels[chosen.rows]
        found.add("retrieval", finding(table, labels))
        shown = min(self.size.shown, len(table))
        rows: list[dict[str, Any]] = []
        for asked, ranking in (("picture", table), ("sound", table.T)):
            best = np.argsort(-ranking, axis=1, kind="stable")[:, :shown]
            for query, items in enumerate(best):
                rows += [
                    {
                        "asked": asked,
                        "clip": int(chosen.rows[query]),
                        "start": float(chosen.starts[query]),
                        "rank": rank,
                        "found": int(chosen.rows[item]),
                        "found_start": float(chosen.starts[item]),
                        "score": float(ranking[query, item]),
                        "own": bool(item == query),
                        "same_class": bool(labels[item] == labels[query] >= 0),
                    }
                    for rank, item in enumerate(items.tolist(), start=1)
                ]
        found.tables["retrieval"] = pa.Table.from_pylist(rows)

    def _localising(self, method: PairMethod, chosen: Windows, found: Findings) -> None:
        maps = sound_maps(method, self.views, self.clips, chosen, self.device, self.seed)
        boxes = known_boxes(self.clips, chosen.rows)
        found.maps = {
            "own": maps.own,
            "silence": maps.silence,
            "noise": maps.noise,
            "clip": torch.from_numpy(chosen.rows.copy()),
            "start": chosen.starts.clone(),
            "box": torch.from_numpy(np.ascontiguousarray(boxes)).float(),
        }
        known = np.isfinite(boxes).all(axis=1)
        if known.any():
            some = type(maps)(*(part[torch.from_numpy(known)] for part in (maps.own, maps.silence, maps.noise)))
            sources = self.clips.groups[chosen.rows][known]
            found.add("localisation", pointed(some, boxes[known], self.clips.format.side, sources, self.seed))


def probe(exam: Exam, encoder: Encoder, sound: bool, settled: bool = True) -> dict[str, float]:
    """Accuracy of a linear classifier on an encoder's features of a frame, or with `sound` of the sound, of one window
    of each labelled clip, its strength chosen on sources that it is not fitted on: nothing without labels. An encoder
    that is not `settled` gets the means and variances of these inputs for its BatchNorm layers first."""
    parts = []
    for name, rows in (("train", exam.train), ("test", exam.clips.rows(TEST))):
        rows = rows[exam.clips.labels[rows] >= 0]
        rows = rows[exam.clips.column("audible", rows)] if sound else rows
        if not len(rows):
            return {}
        rows = chosen_rows(rows, exam.size.clips, exam.seed)
        inputs = [part.cpu() for part in _inputs(exam, windows(exam.views, rows, derive(exam.seed, name)), sound)]
        features = _features(encoder.to(exam.device), inputs, exam.device, name == "train" and not settled)
        parts.append((features, *(torch.from_numpy(of[rows]) for of in (exam.clips.labels, exam.clips.groups))))
    (x_train, y_train, sources), (x_test, y_test, _) = parts
    fitted = fit_linear(x_train, y_train, len(exam.clips.classes), derive(exam.seed, "probe"), sources)
    return {"accuracy": float((fitted.predict(x_test) == y_test).float().mean()), "windows": float(len(y_test))}


@torch.no_grad()
def _features(encoder: Encoder, inputs: list[Tensor], device: torch.device, settling: bool) -> Tensor:
    if settling:
        with fresh_statistics(encoder):
            for part in inputs:
                encoder(part.to(device))
    encoder.eval()
    return torch.cat([encoder(part.to(device)).float().cpu() for part in inputs])


@torch.no_grad()
def _inputs(exam: Exam, chosen: Windows, sound: bool) -> Iterator[Tensor]:
    """The frame in each window's middle, or its spectrogram, in batches."""
    views = exam.views.to(exam.device).eval()
    for first in range(0, len(chosen), BATCH):
        part = chosen[first : first + BATCH]
        fields, starts = exam.clips.read(part.rows).to(exam.device), part.starts.to(exam.device)
        yield views.sounds(fields, starts) if sound else views.frames(fields, starts + views.window / 2)
    views.train()


def _decisions(chosen: Windows, pairs: Pairs, scores: Tensor, threshold: float) -> pa.Table:
    pictures, sounds, starts = pairs.pictures.numpy(), pairs.sounds.numpy(), chosen.starts.numpy()
    return pa.table(
        {
            "clip": chosen.rows[pictures],
            "start": starts[pictures],
            "sound_clip": chosen.rows[sounds],
            "sound_start": starts[sounds],
            "same": pairs.same.numpy(),
            "score": scores.numpy(),
            "right": ((scores > threshold) == pairs.same).numpy(),
        }
    )


def _first_of_each(chosen: Windows) -> np.ndarray:
    """The number of the first window of each clip."""
    return np.unique(chosen.rows, return_index=True)[1]


def _first(chosen: Windows) -> Windows:
    first = _first_of_each(chosen)
    return Windows(chosen.rows[first], chosen.starts[first])
