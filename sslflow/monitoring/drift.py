"""How far an encoder has moved from the weights that it started from, and whether that did any good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.dataset import Dataset
from sslflow.data.splits import NO_LABEL
from sslflow.features.extract import extract
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import MemoryFormat

NEIGHBOURS = 10
TEMPERATURE = 0.1
"""Of the vote among neighbours."""


@dataclass
class Drift:
    """Compares an encoder with itself at step 0, on the training images `rows`, and keeps the best it has been.

    To be called before the first step, then whenever a row of the curve is due. Nothing of test images is looked at.
    """

    encoder: Encoder
    dataset: Dataset[Any]
    rows: np.ndarray
    device: torch.device
    memory_format: MemoryFormat = "channels_last"
    state: dict[str, Any] = field(default_factory=dict)
    """What a checkpoint must hold: the neighbours at step 0, the best encoder so far, its step and its score."""

    @torch.no_grad()
    def __call__(self, step: int) -> dict[str, float]:
        """`agreement`: the share of each image's nearest neighbours that were so at step 0; `train_knn`: how often
        labelled images have the class that their neighbours, themselves left out, vote for."""
        found = extract(self.encoder, self.dataset, self.rows, self.device, memory_format=self.memory_format)
        features = F.normalize(torch.from_numpy(found).to(self.device), dim=1)
        similarity = features @ features.T
        similarity.fill_diagonal_(-torch.inf)
        values, nearest = similarity.topk(min(NEIGHBOURS, len(features) - 1), dim=1)
        before = self.state.setdefault("nearest", nearest.cpu()).to(self.device)
        signs = {"agreement": float((nearest[:, :, None] == before[:, None]).any(dim=2).float().mean())}
        labels = torch.from_numpy(self.dataset.labels[self.rows].astype(np.int64)).to(self.device)
        if (labels != NO_LABEL).any():
            signs["train_knn"] = _vote(values, nearest, labels)
            self._remember(step, signs["train_knn"])
        return signs

    def _remember(self, step: int, score: float) -> None:
        if score > self.state.get("score", -1.0):
            weights = {name: value.detach().cpu().clone() for name, value in self.encoder.state_dict().items()}
            self.state |= {"score": score, "step": step, "weights": weights}

    def restore_best(self) -> int | None:
        """Give the encoder the weights of the best moment; its step. None where nothing tells which that was."""
        if "weights" not in self.state:
            return None
        self.encoder.load_state_dict(self.state["weights"])
        return self.state["step"]


def _vote(values: Tensor, nearest: Tensor, labels: Tensor) -> float:
    """Share of the labelled rows whose class gets most of the weight exp(cosine / `TEMPERATURE`) of its labelled
    neighbours."""
    known = labels[nearest] != NO_LABEL
    weights = ((values - values[:, :1]) / TEMPERATURE).exp() * known
    votes = torch.zeros(len(labels), int(labels.max()) + 1, device=labels.device)
    votes.scatter_add_(1, labels[nearest].clamp_min(0), weights)
    asked = labels != NO_LABEL
    return float((votes.argmax(dim=1) == labels)[asked].float().mean())
