"""The images of a folder that fit a text best, by a model that was trained on captions."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sslflow import paths
from sslflow.data.tokens import UNKNOWN
from sslflow.ingest.images.decode import MAX_PIXELS
from sslflow.ingest.images.examine import Examined, Work, cores, examine_all
from sslflow.ingest.images.folders import images
from sslflow.ingest.images.kinds import READ
from sslflow.ingest.records import Record, escape
from sslflow.networks.matcher import Matcher, load_matcher
from sslflow.runtime.device import place
from sslflow.settings.params import closest
from sslflow.use.images import OfImages, images_of
from sslflow.use.search import Hit

BATCH = 64


class ImageMatcher(OfImages):
    """Images, shares of white, to vectors of length 1, `(n, dim)`, that texts have as well."""

    def __init__(self, matcher: Matcher, file: Path) -> None:
        """Raises `ValueError` for weights that are no numbers, and a file that doesn't say how images were read."""
        if not all(weights.isfinite().all() for weights in matcher.state_dict().values()):
            raise ValueError(f"{file}: its weights are not finite numbers: damaged")
        encoder = matcher.encoder
        super().__init__(images_of(encoder.image_size, encoder.channels, matcher.facts["images"]), str(file))
        self.matcher = matcher.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.matcher.images(self.normalised(images))


def open_matcher(name: str = "") -> ImageMatcher:
    """The model of a run such as `clip-0`, which lies in artifacts/matched, or of a file; without a name the one that
    there is. Raises `ValueError` for what can't be had or used."""
    kept = sorted((paths.ARTIFACTS / "matched").glob("*/matcher.safetensors"))
    runs = {file.parent.name: file for file in kept}
    train = "`sslflow run` makes them of the methods in run.match of params.yaml that compare images and texts: clip"
    if not name and len(runs) != 1:
        said = f"there are {', '.join(runs)}: say which by --model" if runs else f"there is none; {train}"
        raise ValueError(f"--text needs a model that was trained on captions, and {said}")
    file = runs.get(name) or (Path(name) if name else kept[0])
    if not file.is_file():
        mend = closest(name, list(runs)) if runs and re.fullmatch(r"[\w.]+-\d+", name) else f"; {train}"
        raise ValueError(f"{name}: there is no such model of images and texts{mend}")
    return ImageMatcher(load_matcher(file), file)


@torch.no_grad()
def search_by_text(
    texts: Sequence[str],
    folder: Path,
    model: ImageMatcher,
    device: torch.device,
    tell: Callable[[str], None],
    *,
    top: int = 10,
    workers: int = 0,
) -> list[list[Hit]]:
    """For each text the `top` images below `folder`, at any depth, that fit it best, best first, with their cosine.
    No more than some dozen images are in memory. Raises `ValueError` for a text without a word that the model knows,
    and a folder without an image that can be used."""
    if top < 1:
        raise ValueError(f"--top: expected 1 or more, found {top}")
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of images, found {'a file' if folder.exists() else 'nothing'}")
    place(model, device, "contiguous")
    for text in texts:
        _refuse_unknown(text, model)
    asked = model.matcher.of_texts(texts)
    scores, names, unusable = torch.empty(len(texts), 0), [], 0
    for found, bad in _vectors(folder, model, workers):
        unusable += bad
        names += [name for name, _ in found]
        if found:
            scores = torch.cat([scores, asked @ torch.stack([vector for _, vector in found]).T], dim=1)
    if not names:
        raise ValueError(
            f"{folder}: there is no image here that can be used ({', '.join(READ)}); {unusable} can't be read"
        )
    if unusable:
        tell(f"{unusable} of {len(names) + unusable} images can't be used: left out")
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :top]
    return [
        [Hit(float(own[number]), names[number]) for number in order.tolist()]
        for own, order in zip(scores, best, strict=True)
    ]


def _refuse_unknown(text: str, model: ImageMatcher) -> None:
    from tokenizers import Tokenizer  # takes long to load

    tokenizer = Tokenizer.from_str(model.matcher.tokenizer)
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    if not tokenizer.decode([token for token in tokens if token != UNKNOWN]).strip():
        raise ValueError(f"--text: '{text}' has no letter that the model's captions had; it knows nothing of it")


def _vectors(folder: Path, model: ImageMatcher, workers: int) -> Iterator[tuple[list[tuple[str, Tensor]], int]]:
    """Names and vectors of some images at a time, and how many of these can't be used."""

    def tasks() -> Iterator[list[Record]]:
        waiting: list[Record] = []
        for item in images(folder):
            if isinstance(item, Record):
                waiting.append(item)
            if len(waiting) == BATCH:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def batch(items: list[Examined]) -> list[tuple[str, Tensor]]:
        if not items:
            return []
        vectors = model(model.shares([item.decoded.pixels for item in items])).cpu()
        return [(escape(item.name), vector) for item, vector in zip(items, vectors, strict=True)]

    seen = examine_all(tasks(), Work(model.images.decoder), workers or cores(), MAX_PIXELS)
    waiting: list[Examined] = []
    with contextlib.closing(seen):
        for item in seen:
            if not isinstance(item, Examined):
                yield [], 1
                continue
            waiting.append(item)
            if len(waiting) == BATCH:
                yield batch(waiting), 0
                waiting = []
    yield batch(waiting), 0
