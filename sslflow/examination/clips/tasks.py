"""What a method for clips can do, on clips of sources that it has not seen: finding, pointing, its own task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.audiovisual.maps import enlarged
from sslflow.audiovisual.method import OwnTask, PairMethod
from sslflow.audiovisual.views import ClipViews
from sslflow.audiovisual.windows import BATCH, ClipSource, Windows, seen
from sslflow.evaluation.intervals import interval, standard_error
from sslflow.evaluation.retrieval import chance, retrieval
from sslflow.examination.clips import pointing as localisation
from sslflow.runtime.rng import derive
from sslflow.training.method import Batch


@torch.no_grad()
def score_table(method: PairMethod, embedded: tuple[Tensor, Tensor]) -> np.ndarray:
    """The method's score of every window's picture with every window's sound, float64 `(w, w)`."""
    device = next(method.parameters()).device
    pictures, sounds = (part.to(device) for part in embedded)
    return torch.cat([method.table(part, sounds).cpu() for part in pictures.split(BATCH)]).double().numpy()


def finding(table: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`retrieval` both ways in the table of scores `(w, w)`: `picture_…` asks with a picture for sounds, `sound_…` with
    a sound for pictures. `own`: what belongs to the query is the other half of its own window; `class`: whatever has
    its class, of any source, where `labels`, int64 `(w,)`, are not −1. Each beside `…_chance`."""
    known = labels >= 0
    relevances = {"own": (table, np.eye(len(table), dtype=bool))}
    if known.any():
        relevances["class"] = (table[np.ix_(known, known)], labels[known][:, None] == labels[known])
    found = {}
    for name, (scores, relevant) in relevances.items():
        for asked, ranking in (("picture", scores), ("sound", scores.T)):
            found |= {f"{asked}_{name}_{key}": value for key, value in retrieval(ranking, relevant).items()}
        found |= {f"{name}_{key}_chance": value for key, value in chance(relevant).items()}
    return found


@dataclass(frozen=True)
class Maps:
    """Where in the frames of windows a method finds the source of the sound, float32 `(w, rows, columns)` each."""

    own: Tensor
    """With the window's sound."""
    silence: Tensor
    noise: Tensor
    """With white noise as loud as the sound."""


@torch.no_grad()
def sound_maps(
    method: PairMethod, views: ClipViews, clips: ClipSource, chosen: Windows, device: torch.device, seed: int
) -> Maps:
    """Maps of the windows, on the CPU, and those of two controls: an answer that is the same in silence does not come
    from the sound."""
    method.to(device).eval()
    length = round(views.window * views.format.rate)
    numbers = torch.Generator().manual_seed(derive(seed, "noise"))
    found: list[tuple[Tensor, ...]] = []
    first = 0
    for pictures, sounds in seen(views, clips, chosen, device):
        assert sounds is not None
        part = chosen[first : first + len(pictures)]
        first += len(pictures)
        loudness = clips.read(part.rows)["sound"].float().div(32768).square().mean(dim=1, keepdim=True).sqrt()
        noise = torch.randn(len(pictures), length, generator=numbers) * loudness
        heard = sounds, views.log_mel(torch.zeros_like(noise).to(device)), views.log_mel(noise.to(device))
        found.append(tuple(method.localise(pictures, one).float().cpu() for one in heard))
    return Maps(*(torch.cat(part) for part in zip(*found, strict=True)))


def pointed(maps: Maps, boxes: np.ndarray, side: int, sources: np.ndarray, seed: int) -> dict[str, float]:
    """How often a map's maximum lies in the box `(w, 4)`, `hits` with its 95 % interval over sources, beside the same
    with `silence` and `noise` for the sound, the `centre` of the frame, and a place by chance, `random`."""
    hits = localisation.pointing(enlarged(maps.own, side).numpy(), boxes)
    low, high = interval(hits, sources)
    found = {"hits": float(hits.mean()), "low": low, "high": high, "windows": float(len(boxes))}
    for name, control in (("silence", maps.silence), ("noise", maps.noise)):
        found[name] = float(localisation.pointing(enlarged(control, side).numpy(), boxes).mean())
    found["centre"] = float(localisation.centre(boxes).mean())
    return {**found, "random": float(localisation.anywhere(boxes, side).mean())}


@dataclass(frozen=True)
class Answers:
    """What a method answered in its own task."""

    clips: np.ndarray
    """Row of the clip that each answer is about, int64 `(m,)`."""
    given: np.ndarray
    right: np.ndarray
    confidence: np.ndarray
    """Probability of what was answered, float32 `(m,)`."""
    possible: int
    """Number of answers to choose among."""


@torch.no_grad()
def own_task(
    method: OwnTask, views: ClipViews, clips: ClipSource, rows: np.ndarray, device: torch.device, seed: int, times: int
) -> Answers:
    """The answers about the clips given, each asked about `times` times, in windows that are the same in every run."""
    method.to(device).eval()
    views.to(device).eval()
    about, given, right, sure, possible = [], [], [], [], 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive(seed, "own task"))
        for part in np.array_split(np.tile(rows, times), -(-len(rows) * times // BATCH)):
            batch = Batch(views(clips.read(part).to(device)), torch.zeros(len(part), device=device).long(), 1.0)
            logits, answers, clip = method.answers(batch)
            confidence, guess = logits.softmax(dim=1).max(dim=1)
            possible = logits.shape[1]
            about.append(part[clip.cpu().numpy()])
            given.append(guess.cpu().numpy())
            right.append(answers.cpu().numpy())
            sure.append(confidence.cpu().numpy())
    views.train()
    about, given, right, sure = (np.concatenate(column) for column in (about, given, right, sure))
    return Answers(about, given, right, sure, possible)


def own_accuracy(answers: Answers, sources: np.ndarray, seed: int) -> dict[str, float]:
    """`accuracy` with its 95 % interval and its `standard_error` over sources, `sources` int64 of all clips; `chance`,
    what the best constant answer gives on these very questions; `above_chance`, the difference in standard errors.
    Nothing but the number of `questions` where there are none."""
    count = len(answers.right)
    if not count:
        return {"questions": 0.0}
    right, groups = answers.given == answers.right, sources[answers.clips]
    low, high = interval(right, groups)
    error = standard_error(right, groups)
    constant = max(float(np.bincount(answers.right).max()) / count, 1 / answers.possible)
    return {
        "accuracy": float(right.mean()),
        "low": low,
        "high": high,
        "standard_error": error,
        "chance": constant,
        "above_chance": (float(right.mean()) - constant) / error,
        "questions": float(count),
    }
