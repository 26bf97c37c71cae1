"""An encoder that takes image files: with all that is known of how it wants them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.ingest.images.decode import Background, Decoded, Fit, decode
from sslflow.ingest.images.files import Refused
from sslflow.ingest.images.raster import SixteenBit
from sslflow.ingest.records import Picture
from sslflow.networks.encoder import Encoder, load_encoder
from sslflow.networks.starts import Start, file_of
from sslflow.networks.weights import given, ours, suited, tensors
from sslflow.runtime.files import sha256
from sslflow.settings.params import closest
from sslflow.training.provenance import how_images_are

NARROWEST = 1 / 255
"""A standard deviation: images of one colour have no spread to divide by."""
NOT_STATED = "not stated"
"""The licence of weights that were trained here from random ones: it is for those to say whose images they are."""


@dataclass(frozen=True)
class Images:
    """What images must be for an encoder."""

    side: int
    """Pixels: they are squares."""
    channels: int
    mean: tuple[float, ...]
    """Of each channel, as shares of white."""
    std: tuple[float, ...]
    fit: Fit = "crop"
    background: Background = "white"
    sixteen_bit: SixteenBit = "full"

    def decode(self, picture: Picture) -> Decoded:
        """An image file, or its bytes, or pixels, as the encoder wants it. Raises `Refused` with the reason."""
        return self.decoder(picture)

    @property
    def decoder(self) -> partial[Decoded]:
        """`decode` as worker processes can be given it."""
        kept: dict[str, Any] = {"fit": self.fit, "background": self.background, "sixteen_bit": self.sixteen_bit}
        return partial(decode, size=self.side, channels=self.channels, **kept)


class ImageEncoder(nn.Module):
    """Images of `images.side` pixels, shares of white `(n, channels, side, side)`, to features `(n, dim)`: an encoder
    in evaluation mode, after the normalisation that it was trained with.

    `start` is what it was opened by, `sha256` the hash of its file (of timm's weights, of the tensors), `licence` what
    is known of the weights' licence."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, images: Images, start: Start, sha256: str, licence: str) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.images = replace(images, std=tuple(max(value, NARROWEST) for value in images.std))
        self.start, self.sha256, self.licence = start, sha256, licence
        self.register_buffer("mean", torch.tensor(self.images.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.images.std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features `(n, dim)`."""
        return self.encoder((images - self.mean) / self.std)

    def features_and_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and the last map before they are made of it, `(n, map_dim, rows, columns)`. Raises `ValueError` for
        the few networks that have none."""
        return self.encoder.features_and_map((images - self.mean) / self.std)

    @property
    def name(self) -> str:
        """What it was opened by: a file, `package:NAME` or `timm:NAME`."""
        return self.start.weights

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.mean.device

    @torch.no_grad()
    def embed(self, pictures: Sequence[Picture | str]) -> Tensor:
        """Features `(n, dim)`, float32 on the CPU, of image files of any kind and size. Raises `ValueError` for one
        that can't be used, with the reason."""
        return self(self.shares([self.read(picture) for picture in pictures])).cpu()

    def read(self, picture: Picture | str) -> np.ndarray:
        """An image file as uint8 pixels `(channels, side, side)`. Raises `ValueError` for one that can't be used."""
        place = Path(picture) if isinstance(picture, str) else picture
        try:
            return self.images.decode(place).pixels
        except Refused as reason:
            shown = f"{place}: " if isinstance(place, Path) else ""
            raise ValueError(f"{shown}can't be used: {reason}") from None

    def shares(self, pixels: Sequence[np.ndarray]) -> Tensor:
        """uint8 pixels `(channels, side, side)` as a batch of shares of white, where the encoder computes."""
        return torch.from_numpy(np.stack(pixels)).to(self.device).float() / 255

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
        images = _images(encoder, file)
        digest, licence = sha256(file), _licence(encoder)
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
    kept: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return Images(encoder.image_size, encoder.channels, **kept)


def _prepared(encoder: Encoder) -> dict[str, Any] | None:
    """What images are in data/prepared, from which an earlier version trained the encoder, if they fit it."""
    if not (paths.PREPARED / "dataset.json").exists():
        return None
    prepared = Dataset[ImageFormat](paths.PREPARED)
    fits = (prepared.format.channels, prepared.format.size) == (encoder.channels, encoder.image_size)
    return how_images_are(prepared, prepared.format) if fits else None


def _licence(encoder: Encoder) -> str:
    """What is known of the licence of weights that were trained here: that of those they started from."""
    parts = [encoder.facts.get(part, {}).get("licence") for part in ("start", "teacher")]
    parts += [encoder.given.licence] if encoder.given else []
    return ", ".join(dict.fromkeys(filter(None, parts))) or NOT_STATED
