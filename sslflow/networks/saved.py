"""Encoders of all kinds of data: made with random weights, written to files, and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file

from sslflow.data.formats import AnyFormat, ImageFormat, TextFormat, VolumeFormat
from sslflow.networks.encoder import Encoder
from sslflow.networks.given import Given
from sslflow.networks.text import TextEncoder
from sslflow.networks.volumes import VolumeEncoder
from sslflow.runtime.files import reading, replacing

AnyEncoder = Encoder | TextEncoder | VolumeEncoder
ENCODERS: dict[str, type[AnyEncoder]] = {one.kind: one for one in (Encoder, TextEncoder, VolumeEncoder)}
"""By kinds of data; the keyword-only parameters of each are the section `encoder` of params.yaml."""


def new_encoder(format: AnyFormat, settings: Mapping[str, Any]) -> Any:
    """An encoder of data of the format, with random weights. Raises `ValueError` for settings that don't fit."""
    if isinstance(format, TextFormat):
        return TextEncoder(format.vocabulary, format.length, **settings)
    if isinstance(format, ImageFormat):
        return Encoder(format.channels, format.size, **settings)
    if isinstance(format, VolumeFormat):
        return VolumeEncoder(format.channels, format.side, **settings)
    raise ValueError(f"there is no encoder of {format.kind}")


def suits(encoder: AnyEncoder, format: AnyFormat) -> bool:
    """Whether an encoder was made for data of the format."""
    if isinstance(format, TextFormat):
        own = {"vocabulary": format.vocabulary, "length": format.length}
    elif isinstance(format, ImageFormat):
        own = {"channels": format.channels, "image_size": format.size}
    else:
        own = {name: getattr(format, name) for name in ("channels", "side")}
    return encoder.kind == format.kind and {name: encoder.settings.get(name) for name in own} == own


def save_encoder(encoder: AnyEncoder, file: Path) -> None:
    """Write the weights, the settings that rebuild the encoder and its facts to one safetensors file, the same bytes
    for the same content: its metadata are one entry, since safetensors puts several in any order."""
    kind = {} if isinstance(encoder, Encoder) else {"kind": encoder.kind}
    described = json.dumps({**encoder.settings, **kind, "facts": encoder.facts}, sort_keys=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    with replacing(file) as temporary:
        save_file(weights, temporary, metadata={"sslflow.encoder": described})


def load_encoder(file: Path) -> Any:
    """The encoder that `save_encoder` wrote, of whatever kind of data, on the CPU, in evaluation mode. Raises
    `ValueError` for any other file."""
    with reading(file), safe_open(file, framework="pt") as content:
        metadata = content.metadata() or {}
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    if "sslflow.encoder" not in metadata:
        raise ValueError(f"{file}: not an encoder written by sslflow (its metadata lack 'sslflow.encoder')")
    with reading(file):
        described = json.loads(metadata["sslflow.encoder"])
        facts = described.pop("facts", {})
        encoder = rebuilt(described)
        encoder.facts = facts
        encoder.load_state_dict(weights)
    return encoder.eval()


def rebuilt(settings: Mapping[str, Any]) -> Any:
    """The encoder with these `settings`, as they come back from JSON; its weights are the caller's to fill in."""
    own = dict(settings)
    kind = own.pop("kind", Encoder.kind)
    if kind not in ENCODERS:
        raise ValueError(f"expected an encoder of {' or '.join(ENCODERS)}, found one of {kind}")
    if kind != Encoder.kind:
        return ENCODERS[kind](**own)
    facts: dict[str, Any] = dict(own.get("given") or {})
    facts |= {name: tuple(value) for name, value in facts.items() if isinstance(value, list)}
    return Encoder(**{**own, "given": Given(**facts) if facts else None})
