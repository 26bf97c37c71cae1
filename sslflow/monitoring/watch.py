"""The curve of a pretraining run: what is looked at, row by row."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslflow.data.fields import Fields, Readable
from sslflow.data.seen import Seen
from sslflow.features.extract import extract
from sslflow.monitoring.diagnostics import alignment, alpha_req, feature_std, rankme, uniformity
from sslflow.networks.batch_norm import batch_norms, fresh_statistics
from sslflow.runtime.device import MemoryFormat, laid_out, place
from sslflow.runtime.rng import derive
from sslflow.training.method import Method
from sslflow.views.images import Views

VIEWED = 256
"""Images of which two views are made: a mean over so many pairs hardly moves with more."""


@dataclass(frozen=True)
class Watch:
    """Diagnostics of a method's encoder as it is now, always on the same images, or frames of clips, and on the same
    two views of them.

    Nothing of the run is touched but the mode, which is evaluation afterwards: neither its random numbers nor
    BatchNorm's running statistics. With several processes all must look.
    """

    method: Method
    views: Views | None
    """None where they hold no two pictures of an image: those of clips."""
    dataset: Readable
    rows: np.ndarray
    device: torch.device
    seed: int
    memory_format: MemoryFormat = "channels_last"

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """Of the images: `feature_std`, `rankme` and `alpha_req` of their features; `projection_std` and
        `projection_rankme` of what the loss sees of these, where a method has projections: a collapse begins there. Of
        two views of them: `alignment` and `uniformity`, where the views hold two pictures of an image.

        Raises `ValueError` for features that are not finite.
        """
        place(self.method, self.device, self.memory_format)
        with self._own_numbers(), self._own_statistics():
            found = extract(self.method.encoder, self.dataset, self.rows, self.device, memory_format=self.memory_format)
            features = torch.from_numpy(found).to(self.device)
            signs = {"feature_std": feature_std(features), "rankme": rankme(features), "alpha_req": alpha_req(features)}
            projections = self.method.projections(features)
            if projections is not None:
                signs |= {"projection_std": feature_std(projections), "projection_rankme": rankme(projections)}
            both = self._two_views()
            if both:
                za, zb = map(self._features, both)
                signs |= {"alignment": alignment(za, zb), "uniformity": (uniformity(za) + uniformity(zb)) / 2}
        return signs

    def _two_views(self) -> list[Tensor]:
        """Two views of the images, or nothing where the views are of another kind."""
        if self.views is None:
            return []
        read = self._read()
        self.views.to(self.device)
        whole = self._seen(read).shape
        shown = [view for view in self.views.shown(self.views(read)) if view.shape == whole]
        return [self._seen(view) for view in shown[:2]] if len(shown) > 1 else []

    def _features(self, view: Tensor) -> Tensor:
        return self.method.encoder(laid_out(view, self.memory_format)).float()

    def _read(self) -> Fields:
        return self.dataset.read(self.rows[:VIEWED]).to(self.device)

    def _seen(self, examples: Fields | Tensor) -> Tensor:
        return Seen(self.dataset.format).to(self.device)(examples)

    @contextlib.contextmanager
    def _own_numbers(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive(self.seed, "diagnostics", "views"))
            yield

    @contextlib.contextmanager
    def _own_statistics(self) -> Iterator[None]:
        """Evaluation mode, in which BatchNorm's means and variances are those of the images that are looked at: those
        of a run lag behind its weights, are of nothing at its start, and of tiles or small crops in some methods."""
        kept = [(norm, copy.deepcopy(norm.state_dict())) for norm in batch_norms(self.method)]
        try:
            with fresh_statistics(self.method):
                self.method.projections(self._features(self._seen(self._read())))
            yield
        finally:
            for norm, state in kept:
                norm.load_state_dict(state)
