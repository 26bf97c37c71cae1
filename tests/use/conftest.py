"""A folder of images, an encoder for them, and reading them in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from use_fixtures import small

from sslflow.ingest.images.examine import Examined, Work, examine
from sslflow.ingest.records import Record, Rejected
from sslflow.networks.saved import save_encoder
from sslflow.use import folder as through


@pytest.fixture
def folder(tmp_path: Path, fashion: tuple[np.ndarray, np.ndarray]) -> Path:
    """22 images in two folders, a broken one, an empty one and a text."""
    root = tmp_path / "images"
    for number, pixels in enumerate(fashion[0][:22, 0]):
        file = root / ("a" if number < 12 else "b/deep") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        colour = np.stack([pixels, pixels.T, 255 - pixels], axis=2)
        Image.fromarray(colour[: 20 + number % 8]).save(file)
    (root / "a" / "05x.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / "b" / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("a note")
    return root


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An encoder for images of 16 pixels."""
    save_encoder(small(), tmp_path / "encoder.safetensors")
    return tmp_path / "encoder.safetensors"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Images are read in this process, in parts of 4; the names of those that were."""
    seen: list[str] = []

    def in_turn(tasks: Iterator[list[Record]], work: Work, *_: int) -> Iterator[Examined | Rejected]:
        for records in tasks:
            for record in records:
                seen.append(record.name)
                yield from examine([record], work)

    monkeypatch.setattr(through, "examine_all", in_turn)
    monkeypatch.setattr(through, "PART", 4)
    return seen
