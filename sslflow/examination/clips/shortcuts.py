"""What must not tell whether a picture and a sound belong together: how they were recorded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sslflow.audiovisual.views import chosen_frames, cut_sounds
from sslflow.audiovisual.windows import BATCH, Windows
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.evaluation.intervals import interval
from sslflow.evaluation.linear import fit_linear

BLACK = 24
"""Level up to which a pixel is black: video's black is 16, and compression spreads it."""
POWER = 0.99
"""Share of the power of a sound that lies within its bandwidth."""
STRENGTHS = (0.1, 0.01, 0.001)
AT_MOST = 4000
"""Pairs to learn from."""


def conditions(clips: Dataset[ClipFormat], chosen: Windows, seconds: float) -> tuple[Tensor, Tensor]:
    """How windows of so many seconds were recorded. What a picture shows of that, float32 `(w, 5)`: its file's frame
    rate, and its `borders`. What a sound does, `(w, 3)`: its file's rate, its loudness in dB of full scale, and its
    bandwidth in Hz."""
    seen, heard = [], []
    for first in range(0, len(chosen), BATCH):
        part = chosen[first : first + BATCH]
        fields = clips.read(part.rows)
        seen.append(borders(chosen_frames(fields, clips.format, part.starts + seconds / 2)))
        heard.append(_loudness_and_bandwidth(cut_sounds(fields, clips.format, part.starts, seconds), clips.format))
    fps, rate = (
        torch.from_numpy(np.nan_to_num(clips.column(name, chosen.rows).astype(np.float32)))[:, None]
        for name in ("fps", "rate")
    )
    return torch.cat([fps, torch.cat(seen)], dim=1), torch.cat([rate, torch.cat(heard)], dim=1)


def borders(frames: Tensor) -> Tensor:
    """How wide the black borders of frames, uint8 `(n, 3, side, side)`, are on the left, the right, at the top and at
    the bottom, as shares of the side, float32 `(n, 4)`."""
    black = frames.amax(dim=1) <= BLACK
    columns, rows = black.all(dim=1), black.all(dim=2)
    edges = torch.stack([columns, columns.flip(1), rows, rows.flip(1)], dim=1)
    return edges.long().cumprod(dim=2).float().mean(dim=2)


def _loudness_and_bandwidth(sound: Tensor, format: ClipFormat) -> Tensor:
    """Of int16 `(n, samples)`, float32 `(n, 2)`."""
    wave = sound.float() / 32768
    loudness = 10 * (wave.square().mean(dim=1) + 1e-10).log10()
    power = torch.fft.rfft(wave, dim=1).abs().square().cumsum(dim=1)
    within = (power < POWER * power[:, -1:]).sum(dim=1)
    return torch.stack([loudness, within * format.rate / wave.shape[1]], dim=1)


def told_by(
    train: Tensor,
    train_same: Tensor,
    train_groups: np.ndarray,
    test: Tensor,
    test_same: Tensor,
    test_groups: np.ndarray,
    seed: int,
) -> dict[str, float]:
    """Accuracy, with its 95 % interval, of a linear classifier that sees only `train`, features `(n, dim)` of pairs,
    and learns from them whether they belong together, bool `(n,)`; on the pairs `test` `(m, dim)`. Groups are the
    sources of either, int `(n,)` and `(m,)`: by the first its strength is chosen, by the second the interval.

    Features that are the same for all pairs give just one half: the answer is then always the same.
    """
    step = -(-len(train) // AT_MOST)
    chosen = train[::step].float(), train_same[::step].long()
    fitted = fit_linear(*chosen, 2, seed, torch.from_numpy(train_groups[::step].copy()), regularisation=STRENGTHS)
    right = (fitted.predict(test.float()).bool() == test_same).cpu().numpy()
    low, high = interval(right, test_groups)
    return {"accuracy": float(right.mean()), "low": low, "high": high}


def likely_from(scores: Tensor, same: Tensor) -> float:
    """The score from which on a pair rather belongs together than not, where a logistic regression of the `scores`
    `(n,)` on that, bool `(n,)`, with as many of either kind, says one half (Platt's calibration).

    Of few sources this changes less than the threshold that is right most often. The mean, where higher scores do not
    speak for belonging together.
    """
    from sklearn.linear_model import LogisticRegression  # a second to load, which no check of settings needs

    values = scores.double().cpu().numpy()
    middle, spread = values.mean(), values.std() or 1.0
    fitted = LogisticRegression(C=1e3).fit((values[:, None] - middle) / spread, same.cpu().numpy())
    slope = fitted.coef_[0, 0]
    return float(middle - spread * fitted.intercept_[0] / slope if slope > 0 else middle)


def ranked(scores: Tensor, same: Tensor) -> float:
    """Area under the ROC curve: how often of two pairs, one that belongs together and one that does not, the right one
    scores higher; equal scores count one half. One half where a kind is missing."""
    right, wrong = scores[same], scores[~same].sort().values
    if not len(right) or not len(wrong):
        return 0.5
    below = torch.searchsorted(wrong, right, side="left").double()
    upto = torch.searchsorted(wrong, right, side="right").double()
    return float(((below + upto) / 2).mean() / len(wrong))
