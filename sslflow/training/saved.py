"""A trained method as a file: all its weights and buffers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sslflow.runtime.files import reading, replacing

KEY = "sslflow.method"


def save_method(method: nn.Module, file: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write the weights and buffers to one safetensors file, the same bytes for the same values, with `facts`, as JSON,
    beside them. A tensor that has several names, such as those of an encoder within a student, is written once."""
    weights, seen = {}, set()
    for name, tensor in method.state_dict().items():
        if _place(tensor) not in seen:
            weights[name] = tensor.detach().cpu().contiguous()
            seen |= {_place(tensor)} if tensor.numel() else set()
    with replacing(file) as temporary:
        save_file(weights, temporary, metadata={KEY: json.dumps(facts or {}, sort_keys=True)})


def read_facts(file: Path) -> dict[str, Any]:
    """The facts beside the weights; none in a file that `save_method` did not write. Raises `ValueError` for a file
    that is no safetensors file."""
    with reading(file), safe_open(file, framework="pt") as content:
        return json.loads((content.metadata() or {}).get(KEY, "{}"))


def load_weights(method: nn.Module, file: Path, stage: str = "pretrain") -> None:
    """Give a method that was built with the same settings the weights of the file that `stage` wrote. Raises
    `ValueError` for any other file."""
    if not file.exists():
        raise ValueError(f"{file}: no trained method here; run `dvc repro {stage}` first")
    own = method.state_dict()
    with reading(file):
        weights = load_file(file)
    try:
        written = {_place(own[name]): weights[name] for name in weights if name in own and own[name].numel()}
        others = {name: written[_place(tensor)] for name, tensor in own.items() if _place(tensor) in written}
        method.load_state_dict(others | weights)
    except RuntimeError as error:
        name = type(method).__name__
        raise ValueError(f"{file} doesn't hold the weights of {name} with these settings: {error}") from None


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Where in memory it lies: the same for all names of a tensor."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()
