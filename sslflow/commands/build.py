"""What is to be run, built once with the settings and no data: what a constructor refuses is said before any work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sslflow.audiovisual import method as clip_method
from sslflow.audiovisual.plan import Plan
from sslflow.commands.check import ASKED, BLOCKS
from sslflow.data.depth import DepthFacts
from sslflow.data.formats import AnyFormat, ClipFormat, ImageFormat, TextFormat, VolumeFormat
from sslflow.ingest.text.prepare import LENGTH, VOCABULARY
from sslflow.ingest.videos.cut import Grid
from sslflow.ingest.volumes.prepare import prepare as prepare_volumes
from sslflow.networks.encoder import Encoder, leave_out
from sslflow.networks.saved import AnyEncoder, new_encoder
from sslflow.settings.params import FILE, ParamsError, Schemas, checked, load, lookup, schema
from sslflow.settings.sections import data_kind
from sslflow.stages import pretrain, pretrain_clips
from sslflow.training import method
from sslflow.training.ingredients import build

LABELS = 4
"""Made-up examples: what is built depends on no number of them."""
TOKENS = TextFormat(32, 1000)
"""Made-up captions."""


def refuse(file: Path = FILE) -> None:
    """Raises `ParamsError` for methods that are to be run and that can't be built with the settings of a file, which
    have been checked."""
    content = load(file)
    problems: list[str] = []
    for kind, look in (("data", _examples), ("clips", _clips)):
        for name in lookup(content, "run").get(ASKED[kind].partition(".")[2]) or ():
            with _noted(f"{BLOCKS[kind]}.{name}", problems):
                look(name, content)
    if problems:
        raise ParamsError(list(dict.fromkeys(problems)), file)


@contextlib.contextmanager
def _noted(place: str, problems: list[str]) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, MemoryError) as error:  # the last two, where its own layers find no memory
        problems.append(f"{place}: {' '.join(str(error).split())[:300]}")


def _examples(name: str, content: Mapping[str, Any]) -> None:
    settings = _settings(pretrain.schemas(name), content)
    block, form = f"methods.{name}", _format(content)
    words, kind = settings.get(f"{block}.text_encoder", {}), method.find(name)
    given = {
        "encoder": lambda: _new(form, settings["encoder"]),
        "labels": lambda: torch.arange(LABELS) % 2,
        "images": lambda: LABELS,
        "teacher": lambda: _new(form, settings["encoder"]),
        "tokens": lambda: form if isinstance(form, TextFormat) else TOKENS,
        "text_encoder": lambda: _new(TOKENS, words),
        "depth": lambda: DepthFacts(0.0, 1.0),
        "depth_encoder": lambda: _new(replace(form, channels=1), settings["encoder"]),
    }
    leave_out(build(kind, given, settings[block]), settings[f"{block}.train"].get("token_dropout", 0.0))
    kind.Views(form, **settings[f"{block}.views"])


def _format(content: Mapping[str, Any]) -> AnyFormat:
    """What the examples will have in common, as far as settings say it."""
    data = lookup(content, "data")
    if data_kind(content) == TextFormat.kind:
        size = data.get("vocabulary", VOCABULARY)
        return TextFormat(data.get("length", LENGTH), size, (1,) * size)
    if data_kind(content) == VolumeFormat.kind:
        return VolumeFormat(1, data.get("side", schema(prepare_volumes)["side"].default), (0.5,), (0.25,))
    return ImageFormat(data["channels"], data["image_size"], (0.5,) * data["channels"], (0.25,) * data["channels"])


def _new(form: AnyFormat, settings: Mapping[str, Any]) -> AnyEncoder:
    with torch.device("meta"):
        return new_encoder(form, settings)


def _clips(name: str, content: Mapping[str, Any]) -> None:
    settings = _settings(pretrain_clips.schemas(name), content)
    block, chosen = f"clip_methods.{name}", Plan(**settings["pretrain_clips"]).clips
    own = {"seconds": 3.0, "fps": 12, "side": 96, "rate": 16_000, **lookup(content, f"clips.{chosen}")}
    grid = Grid(float(own["seconds"]), own["fps"], own["side"], own["rate"])
    form = ClipFormat(grid.frames, grid.side, grid.fps, grid.rate, grid.seconds, (0.5,) * 3, (0.25,) * 3)
    kind = clip_method.find(name)
    given = {
        "encoder": lambda: _encoder(3, form.side, settings["clip_encoders.picture"]),
        "sound_encoder": lambda: _encoder(1, 64, settings["clip_encoders.sound"]),
        "labels": lambda: torch.arange(LABELS) % 2,
        "statistics": lambda: torch.zeros(LABELS, LABELS),
    }
    _ = grid.samples
    kind.Views(form, **settings[f"{block}.views"])
    leave_out(build(kind, given, settings[block]), settings[f"{block}.train"].get("token_dropout", 0.0))


def _encoder(channels: int, size: int, settings: Mapping[str, Any]) -> Encoder:
    """Without memory for its weights."""
    with torch.device("meta"):
        return Encoder(channels, size, **settings)


def _settings(schemas: Schemas, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    problems: list[str] = []
    found = checked(schemas, content, problems)
    assert not problems, "a file that has been checked"
    return found
