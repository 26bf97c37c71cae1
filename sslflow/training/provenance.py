"""What an encoder's file says of how it was made, so that it can be used, and judged, without anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.networks.starts import RANDOM
from sslflow.runtime.files import read_json, sha256


def how_images_are(dataset: Dataset, format: ImageFormat) -> dict[str, Any]:
    """What images must be for an encoder of the data set: how their files were read, and by what they are
    normalised."""
    read = read_json(dataset.folder / "dataset.json").get("read", {})
    return {**read, "mean": list(format.mean), "std": list(format.std)}


def how_examples_are(dataset: Dataset[Any]) -> dict[str, Any]:
    """The same as an encoder's file says it; nothing of data that is no images."""
    return {"images": how_images_are(dataset, dataset.format)} if isinstance(dataset.format, ImageFormat) else {}


def made_by(method: str, seed: int, settings: Mapping[str, Any], dataset: Dataset, count: int) -> dict[str, Any]:
    """Method, seed and settings of a run, and what it saw: `count` examples of a data set, whose manifest, with a hash
    of each file, has the hash given."""
    plain = json.loads(json.dumps(settings, default=asdict))
    data = {"sha256": sha256(dataset.folder / "manifest.parquet"), "examples": count}
    return {"run": {"method": method, "seed": seed, "settings": plain}, "data": data}


def weights_of(**named: str) -> dict[str, Any]:
    """What is known of the weights that a run begins from or learns from, `start=` and `teacher=`, by their names in
    the section `starts`; nothing of those that are random."""
    return {part: read_json(paths.start(name)) for part, name in named.items() if name != RANDOM}
