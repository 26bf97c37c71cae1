"""An encoder that takes image files, by any name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.ingest.images.raster import SixteenBit
from sslflow.ingest.records import Picture
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder
from sslflow.networks.starts import Start, file_of
from sslflow.networks.weights import given, ours, suited, tensors
from sslflow.runtime.files import sha256
from sslflow.settings.params import closest
from sslflow.training.provenance import how_images_are
from sslflow.use.images import Images, OfImages, images_of

NOT_STATED = "not stated"
"""The licence of weights that were trained here from random ones: it is for those to say whose images they are."""


class ImageEncoder(OfImages):
    """Images, shares of white, to features `(n, dim)`.

    `start` is what it was opened by, `name` its weights: a file, `package:NAME` or `timm:NAME`; `sha256` the hash of
    its file (of timm's weights, of the tensors), `licence` what is known of the weights' licence."""

    def __init__(self, encoder: Encoder, images: Images, start: Start, sha256: str, licence: str) -> None:
        super().__init__(images, start.weights)
        self.encoder = encoder.eval().requires_grad_(False)
        self.start, self.sha256, self.licence = start, sha256, licence

    def forward(self, images: Tensor) -> Tensor:
        """Features `(n, dim)`."""
        return self.encoder(self.normalised(images))

    def features_and_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and the last map before they are made of it, `(n, map_dim, rows, columns)`. Raises `ValueError` for
        the few networks that have none."""
        return self.encoder.features_and_map(self.normalised(images))

    @torch.no_grad()
    def embed(self, pictures: Sequence[Picture | str]) -> Tensor:
        """Features `(n, dim)`, float32 on the CPU, of image files of any kind and size. Raises `ValueError` for one
        that can't be used, with the reason."""
        return self(self.shares([self.read(picture) for picture in pictures])).cpu()

    def described(self) -> dict[str, Any]:
        """Name, hash and licence of the weights, the network, and what images must be, as plain values."""
        return {
            "encoder": str(Path(self.name).resolve()) if Path(self.name).is_file() else self.name,
            "sha256": self.sha256,
            "licence": self.licence,
            "network": self.encoder.settings["name"],
            "asked_network": self.start.network,
            "asked_side": self.start.side,
            "dim": self.encoder.dim,
            "images": asdict(self.images),
        }


def open_encoder(name: str, *, side: int = 0, network: str = "", sixteen_bit: SixteenBit | None = None) -> ImageEncoder:
    """An encoder by what it is called: a run such as `simclr-0`, whose encoder lies in artifacts/encoders; a file that
    sslflow wrote; `timm:NAME`; `package:NAME`; or a file of plain tensors, with timm's name of their `network`.

    `side`: pixels of the images for weights from elsewhere, 0: as many as they were trained on. `sixteen_bit` stands
    instead of what the encoder was trained with. Raises `ValueError` for what can't be had or used.
    """
    if side < 0:
        raise ValueError(f"--side: expected pixels, 0 or more, found {side}")
    start = Start(weights=_place(name), network=network, side=side)
    file = file_of(start)
    if file and ours(file):
        if side or network:
            raise ValueError(
                f"{file} knows its network and the size of its images: leave out --side and --network, which are for "
                "weights from elsewhere"
            )
        encoder = load_encoder(file)
        if encoder.kind != Encoder.kind:
            raise ValueError(f"{file} is an encoder of {encoder.kind}, and these commands are for images")
        images = _images(encoder, file)
        digest, licence = sha256(file), licence_of(encoder)
    else:
        if file and not network and ":" not in start.weights:
            tensors(file)
            raise ValueError(
                f"{file} holds plain tensors: say by --network what timm calls their network, such as resnet50"
            )
        format = suited(start)
        encoder = given(start, format)
        assert encoder.given
        images = Images(format.size, format.channels, format.mean, format.std)
        digest, licence = encoder.given.sha256, encoder.given.licence
    if sixteen_bit:
        images = replace(images, sixteen_bit=sixteen_bit)
    return ImageEncoder(encoder, images, start, digest, licence)


def _place(name: str) -> str:
    """The file of a run, or else the name itself."""
    if ":" in name or Path(name).is_file():
        return name
    run = paths.ARTIFACTS / "encoders" / f"{name}.safetensors"
    if run.is_file():
        return str(run)
    known = sorted(file.stem for file in run.parent.glob("*.safetensors"))
    if re.fullmatch(r"[\w.]+-\d+", name) and not name.endswith((".safetensors", ".pth", ".pt")):
        mend = closest(name, known) if known else "; `sslflow run` trains those of params.yaml"
        raise ValueError(f"{run}: there is no encoder of that run{mend}")
    raise ValueError(
        f"{name}: there is no such file of weights, nor run; name a file, a run such as simclr-0, timm:NAME or "
        "package:NAME"
    )


def _images(encoder: Encoder, file: Path) -> Images:
    """What images must be for an encoder of ours. Raises `ValueError` where nobody knows."""
    known = encoder.facts.get("images")
    if known is None and file.parent.resolve() == (paths.ARTIFACTS / "encoders").resolve():
        known = _prepared(encoder)
    if known is None and encoder.given:
        known = {"mean": encoder.given.data_mean, "std": encoder.given.data_std}
    if known is None:
        raise ValueError(
            f"{file} doesn't say how its images are normalised: it is of sounds, or an earlier version of sslflow "
            "wrote it, and `dvc repro pretrain` writes it anew"
        )
    return images_of(encoder.image_size, encoder.channels, known)


def _prepared(encoder: Encoder) -> dict[str, Any] | None:
    """What images are in data/prepared, from which an earlier version trained the encoder, if they fit it."""
    if not (paths.PREPARED / "dataset.json").exists():
        return None
    prepared = Dataset[ImageFormat](paths.PREPARED)
    fits = (prepared.format.channels, prepared.format.size) == (encoder.channels, encoder.image_size)
    return how_images_are(prepared, prepared.format) if fits else None


def licence_of(encoder: Encoder) -> str:
    """What is known of the licence of weights that were trained here: that of those they started from."""
    parts = [encoder.facts.get(part, {}).get("licence") for part in ("start", "teacher")]
    parts += [encoder.given.licence] if encoder.given else []
    return ", ".join(dict.fromkeys(filter(None, parts))) or NOT_STATED
