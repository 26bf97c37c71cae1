"""Weights that a command line names: had, and tried on images, before any work."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sslflow.data.formats import ImageFormat
from sslflow.networks.starts import ELSEWHERE, Start
from sslflow.networks.weights import given
from sslflow.settings.params import load, lookup, read


def start_settings(weights: str, image_size: int, channels: int) -> dict[str, Any] | None:
    """The settings of a start, as a block of `starts` holds them, for images of that format: of the name in `starts` of
    params.yaml, or for `package:…` and `timm:…`. None for anything else, which can only be the file of an encoder of
    ours. Raises `ValueError` for weights that can't be had, or don't fit."""
    if weights in lookup(load(), "starts"):
        section = f"starts.{weights}"
        start = Start(**read({section: Start})[section])
        if not start.weights.startswith(ELSEWHERE):
            start = replace(start, weights=str(Path(start.weights).resolve()))
    elif weights.startswith(ELSEWHERE):
        start = Start(weights=weights)
    else:
        return None
    given(start, ImageFormat(channels, image_size, (0.5,) * channels, (0.25,) * channels))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(start).items() if value}
