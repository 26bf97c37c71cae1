"""A network that says what is where, as a file of its own: weights, classes, format, and what rebuilds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sslflow.data.formats import ImageFormat
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import rebuilt
from sslflow.runtime.files import reading, replacing


class Kept(Protocol):
    """What is written of a network, beside its weights."""

    classes: list[str]
    format: ImageFormat
    width: int
    facts: dict[str, Any]

    @property
    def encoder(self) -> Encoder: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...

    def eval(self) -> Any: ...


Network = TypeVar("Network", bound=Kept)


def save_as(key: str, model: Kept | None, file: Path) -> None:
    """Write weights, classes, format, and the settings that rebuild the network, under the `key` of the metadata, to
    one safetensors file, the same bytes for the same content. None: that there is none, since nothing could be
    learnt."""
    described: dict[str, Any] = {}
    if model is not None:
        described = {
            "encoder": model.encoder.settings,
            "width": model.width,
            "classes": model.classes,
            "format": asdict(model.format),
            "facts": {**model.facts, "encoder": model.encoder.facts},
        }
    state = {} if model is None else model.state_dict()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with replacing(file) as temporary:
        save_file(weights, temporary, metadata={key: json.dumps(described, sort_keys=True)})


def load_as(key: str, build: Callable[..., Network], learnt_from: str, file: Path) -> Network:
    """The network that `save_as` wrote, on the CPU, in evaluation mode; `build` takes an encoder, classes, a format and
    a `width`. Raises `ValueError` for any other file, and where there was nothing of what it is `learnt_from`."""
    kind = key.rpartition(".")[2]
    with reading(file), safe_open(file, framework="pt") as content:
        metadata = content.metadata() or {}
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    if key not in metadata:
        raise ValueError(f"{file}: not a {kind} written by sslflow (its metadata lack '{key}')")
    with reading(file):
        described = json.loads(metadata[key])
    if not described:
        raise ValueError(f"{file}: holds no {kind}: there were no {learnt_from} to train one on")
    with reading(file):
        facts = described["facts"]
        form: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in described["format"].items()
        }
        encoder = rebuilt(described["encoder"])
        encoder.facts = facts.pop("encoder")
        model = build(encoder, described["classes"], ImageFormat(**form), width=described["width"])
        model.facts = facts
        model.load_state_dict(weights)
    model.eval()
    return model
