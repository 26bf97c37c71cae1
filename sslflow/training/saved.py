"""A trained method as a file: all its weights and buffers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_file
from torch import nn

from sslflow.runtime.files import replacing

KEY = "sslflow.method"


def save_method(method: nn.Module, file: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write the weights and buffers to one safetensors file, the same bytes for the same values, with `facts`, as JSON,
    beside them. A tensor that has several names, such as those of an encoder within a student, is written once."""
    weights, seen = {}, set()
    for name, tensor in method.state_dict().items():
        place = tensor.data_ptr(), tensor.shape, tensor.stride()
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        weights[name] = tensor.detach().cpu().contiguous()
    with replacing(file) as temporary:
        save_file(weights, temporary, metadata={KEY: json.dumps(facts or {}, sort_keys=True)})


def read_facts(file: Path) -> dict[str, Any]:
    """The facts beside the weights; none in a file that `save_method` did not write. Raises `ValueError` for a file
    that is no safetensors file."""
    try:
        with safe_open(file, framework="pt") as content:
            return json.loads((content.metadata() or {}).get(KEY, "{}"))
    except SafetensorError as error:
        raise ValueError(f"{file}: not a safetensors file: {error}") from None


def load_weights(method: nn.Module, file: Path, stage: str = "pretrain") -> None:
    """Give a method that was built with the same settings the weights of the file that `stage` wrote. Raises
    `ValueError` for any other file."""
    if not file.exists():
        raise ValueError(f"{file}: no trained method here; run `dvc repro {stage}` first")
    try:
        load_model(method, file)
    except (SafetensorError, RuntimeError) as error:
        name = type(method).__name__
        raise ValueError(f"{file} doesn't hold the weights of {name} with these settings: {error}") from None
