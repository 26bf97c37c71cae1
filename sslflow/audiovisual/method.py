"""What a method for clips is: a pretraining method whose views are of sound and pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sslflow.audiovisual.views import ClipViews
from sslflow.networks.encoder import Encoder
from sslflow.settings import by_name
from sslflow.training.method import Batch, Method

CHUNK = 4096
"""Pairs at a time."""


class ClipMethod(Method):
    """A `Method` whose `encoder` sees frames. Besides it and `labels`, its constructor may ask for `sound_encoder`, for
    spectrograms of one channel, and `statistics`, the `sound_statistics` of all clips of the run."""

    Views: ClassVar[Callable[..., ClipViews]]  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def encoders(self) -> dict[str, Encoder]:
        """That of pictures, and that of sounds, if it has one."""
        sound = getattr(self, "sound_encoder", None)
        return {"picture": self.encoder} if sound is None else {"picture": self.encoder, "sound": sound}

    def projections(self, features: Tensor) -> Tensor | None:
        """Nothing: what a loss sees of clips is no projection of a frame's features."""
        return None

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """The frames as they are seen, a few of them: `(rows, 3, side, side)`."""
        frames = batch.views[0]
        return {"frame": frames.flatten(1, -4)[:, 0] if frames.ndim > 4 else frames}


class OwnTask(ClipMethod):
    """A method that answers questions about clips which are not whether picture and sound belong together."""

    @abstractmethod
    def answers(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the answers `(m, k)`; the right ones, and which clip of the batch each is about, int64 `(m,)`."""


class PairMethod(ClipMethod):
    """A method that tells how well a picture and a sound belong together, from an embedding of either."""

    sound_encoder: Encoder
    threshold: ClassVar[float | None] = None
    """A pair that scores higher belongs together; None: to be chosen on clips that are not trained on."""
    localises: ClassVar[bool] = True
    """Whether its pictures are single frames, in whose parts the sound can be looked for."""

    wrong: ClassVar[Literal["source", "moment"]] = "source"
    """What its wrong pairs are: sounds of another source, or the sound of another moment of the same clip. For the
    latter its views have `two_starts`."""

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """A frame of each window, and the three frames of the batch that fit the window's sound best."""
        pictures, sounds = (part.flatten(0, 1) if self.wrong == "moment" else part for part in batch.views[:2])
        table = self.table(self.embed_pictures(pictures), self.embed_sounds(sounds))
        nearest = table.topk(min(3, len(table)), dim=0).indices.T
        shown = pictures.flatten(1, -4)[:, 0] if pictures.ndim > 4 else pictures
        return {"frame": shown} | {f"guess {rank + 1}": shown[nearest[:, rank]] for rank in range(nearest.shape[1])}

    @abstractmethod
    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """Embeddings `(n, …)` of what its views show of windows' pictures, `(n, …, 3, side, side)`."""

    @abstractmethod
    def embed_sounds(self, sounds: Tensor) -> Tensor:
        """Embeddings `(n, dim)` of spectrograms `(n, 1, mels, frames)`."""

    @abstractmethod
    def scores(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """How well the embeddings `pictures[i]` and `sounds[i]` belong together, float32 `(n,)`."""

    def table(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """The scores of every picture with every sound, `(n, m)`."""
        rows = torch.arange(len(pictures), device=pictures.device).repeat_interleave(len(sounds))
        columns = torch.arange(len(sounds), device=pictures.device).repeat(len(pictures))
        parts = zip(rows.split(CHUNK), columns.split(CHUNK), strict=True)
        return torch.cat([self.scores(pictures[i], sounds[j]) for i, j in parts]).view(len(pictures), len(sounds))

    def localise(self, pictures: Tensor, sounds: Tensor) -> Tensor:
        """How much each part of the frames `(n, 3, side, side)` speaks for the sounds `(n, 1, mels, frames)`,
        `(n, rows, columns)`: only the order of a map's values means something. Raises `ValueError` for a method without
        `localises`."""
        raise ValueError(f"{type(self).__name__} doesn't tell where a sound comes from; alignment does")


def names() -> list[str]:
    """All methods for clips: the files in `sslflow/methods/clips/`."""
    return by_name.names("sslflow.methods.clips")


def find(name: str) -> type[ClipMethod]:
    """The class in `sslflow/methods/clips/<name>.py`. Raises `ValueError` with a suggestion for an unknown
    name."""
    return by_name.find("sslflow.methods.clips", name, ClipMethod, "method for clips")
