"""A trained method for pairs as files: kept, loaded again, and used to describe clips and to find them."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sslflow.audiovisual.method import ClipMethod, PairMethod, find
from sslflow.audiovisual.views import ClipViews
from sslflow.audiovisual.windows import BATCH, Windows, embed
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.networks.saved import rebuilt
from sslflow.settings.params import ParamsError, checked
from sslflow.training.ingredients import build
from sslflow.training.saved import load_weights, read_facts


def facts_of(
    name: str, method: ClipMethod, format: ClipFormat, settings: dict[str, Any], views: dict[str, Any]
) -> dict[str, Any]:
    """What rebuilds the method `name` and its views, for its file."""
    return {
        "method": name,
        "settings": _plain(settings),
        "views": _plain(views),
        "format": asdict(format),
        **{part: encoder.settings for part, encoder in method.encoders.items()},
    }


def load_method(file: Path) -> tuple[PairMethod, ClipViews]:
    """The method that the stage `pretrain_clips` wrote, on the CPU, and its views, both in evaluation mode. Raises
    `ValueError` for any other file."""
    if not file.exists():
        raise ValueError(f"{file}: there is no such file; run `dvc repro pretrain_clips` first")
    facts = read_facts(file)
    if "method" not in facts:
        raise ValueError(f"{file}: not a method for clips written by sslflow (its metadata name none)")
    kind = find(facts["method"])
    if not issubclass(kind, PairMethod):
        raise ValueError(f"{file}: {facts['method']} does not compare pictures and sounds")
    encoders = {
        "encoder": lambda: rebuilt(facts["picture"]),
        "sound_encoder": lambda: rebuilt(facts["sound"]),
    }
    problems: list[str] = []
    settings = checked({"settings": kind, "views": kind.Views}, facts, problems)
    if problems:
        raise ParamsError(problems, file)
    method = build(kind, encoders, settings["settings"])
    load_weights(method, file, "pretrain_clips")
    views = kind.Views(ClipFormat(**_frozen(facts["format"])), **settings["views"])
    return method.eval(), views.eval()


def every_window(clips: Dataset[ClipFormat], window: float) -> Windows:
    """Windows of all clips side by side, each clip from its start on."""
    count = max(1, int(clips.format.seconds / window + 1e-9))
    starts = torch.arange(count, dtype=torch.float32) * window
    return Windows(np.arange(len(clips)).repeat(count), starts.repeat(len(clips)))


def clip_features(method: PairMethod, views: ClipViews, clips: Dataset[ClipFormat], device: torch.device) -> pa.Table:
    """A row for each window of each clip: `video`, `start` and `end` in seconds of the file, `picture` and `sound`,
    the encoders' features as lists of float32."""
    chosen = every_window(clips, views.window)
    begin = clips.column("start", chosen.rows) + chosen.starts.numpy()
    columns: dict[str, list[np.ndarray]] = {"picture": [], "sound": []}
    method.to(device).eval()
    views.to(device).eval()
    with torch.no_grad():
        for first in range(0, len(chosen), BATCH):
            part = chosen[first : first + BATCH]
            fields, starts = clips.read(part.rows).to(device), part.starts.to(device)
            frames = views.frames(fields, starts + views.window / 2)
            columns["picture"].append(method.encoder(frames).float().cpu().numpy())
            columns["sound"].append(method.sound_encoder(views.sounds(fields, starts)).float().cpu().numpy())
    return pa.table(
        {
            "video": clips.column("path", chosen.rows),
            "start": begin,
            "end": begin + views.window,
            **{name: _lists(np.concatenate(parts)) for name, parts in columns.items()},
        }
    )


@torch.no_grad()
def search(
    method: PairMethod,
    views: ClipViews,
    clips: Dataset[ClipFormat],
    device: torch.device,
    *,
    sound: Tensor | None = None,
    image: Tensor | None = None,
    top: int = 10,
) -> pa.Table:
    """The windows whose picture fits best to `sound`, samples `(n,)` at the clips' rate, int16 or float in [−1, 1], or
    whose sound fits best to `image`, uint8 `(3, height, width)`: `video`, `start`, `end`, `score`, the best first.

    A sound that is longer than a window is looked for by all its windows, and the best of them counts; one that is
    shorter is followed by silence. Raises `ValueError` unless just one of the two is asked for, or for a method that
    needs several frames.
    """
    if (sound is None) == (image is None):
        raise ValueError("search by a sound or by an image: one of the two")
    chosen = every_window(clips, views.window)
    pictures, sounds = embed(method, views, clips, chosen, device)
    views.eval()
    if sound is not None:
        asked = method.embed_sounds(views.log_mel(_cut(sound, views).to(device))).cpu()
        scores = torch.cat([method.table(part.to(device), asked.to(device)).cpu() for part in pictures.split(BATCH)])
        scores = scores.amax(dim=1)
    else:
        assert image is not None
        if not method.localises:
            raise ValueError(
                "this method compares sounds with several frames in a row: search by an image with another"
            )
        side = views.format.side
        fitted = torch.nn.functional.interpolate(
            image[None].float(), size=(side, side), mode="bilinear", antialias=True, align_corners=False
        )
        asked = method.embed_pictures(views.normalise(fitted.to(device)))
        scores = torch.cat([method.table(asked, part.to(device))[0].cpu() for part in sounds.split(BATCH)])
    order = scores.argsort(descending=True, stable=True)[:top]
    rows, starts = chosen.rows[order.numpy()], chosen.starts[order].numpy()
    begin = clips.column("start", rows) + starts
    return pa.table(
        {
            "video": clips.column("path", rows),
            "start": begin,
            "end": begin + views.window,
            "score": scores[order].numpy(),
        }
    )


def _cut(sound: Tensor, views: ClipViews) -> Tensor:
    """Windows side by side, `(windows, samples)`, float."""
    length = round(views.window * views.format.rate)
    sound = sound if sound.is_floating_point() else sound.float() / 32768
    if len(sound) < length:
        sound = torch.nn.functional.pad(sound, (0, length - len(sound)))
    return sound[: len(sound) // length * length].view(-1, length)


def _lists(rows: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), rows.shape[1])


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Dataclasses as mappings, for JSON."""
    return {name: asdict(value) if is_dataclass(type(value)) else value for name, value in settings.items()}


def _frozen(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that they were."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
