"""What an encoder sees, and what people see, of each kind of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.formats import AnyFormat, ClipFormat, ImageFormat, TextFormat, VolumeFormat, described
from sslflow.data.seen import Seen
from sslflow.data.tokens import decoded, encoded
from sslflow.drawing.passage import passages
from sslflow.drawing.stills import stills
from sslflow.ingest.shards import COLUMNS, ShardWriter
from sslflow.ingest.tokenizing import train_tokenizer
from sslflow.runtime.files import write_json

MEAN, STD = (0.5,), (0.25,)
NUMBERS = np.random.default_rng(0)


def prepared(folder: Path, format: AnyFormat, examples: list[dict[str, np.ndarray]]) -> Dataset[Any]:
    """A data set of these examples, all to train on."""
    folder.mkdir()
    kinds = {name: (value.dtype.str, value.shape) for name, value in examples[0].items()}
    measured = next(iter(kinds))
    with ShardWriter(folder, kinds, (), measured=measured) as writer:
        for number, example in enumerate(examples):
            columns = {"path": str(number), "split": "train", "label": -1, "group": str(number)}
            writer.add(example, {name: columns[name] for name, _ in COLUMNS if name in columns})
    write_json(folder / "dataset.json", described(format, ()))
    return Dataset(folder)


def test_images_volumes_and_clips_are_normalised() -> None:
    image = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8)
    expected = (image.float() - 127.5) / 63.75
    assert torch.equal(Seen(ImageFormat(1, 2, MEAN, STD))(Fields(images=image)), expected)
    volume = image[:, :, None].expand(1, 1, 3, 2, 2)
    seen = Seen(VolumeFormat(1, 2, MEAN, STD))
    assert torch.equal(seen(Fields(volumes=volume)), expected[:, :, None].expand(1, 1, 3, 2, 2))
    assert torch.equal(seen.restore(seen(volume)), volume)
    frames = torch.stack([image, image + 1, image + 2], dim=1).expand(1, 3, 3, 2, 2)
    clips = ClipFormat(3, 2, 1.0, 8000, 3.0, (0.5,) * 3, (0.25,) * 3)
    middle = Seen(clips)(Fields(frames=frames, sound=torch.zeros(1, 24000)))
    assert torch.equal(middle, (frames[:, 1].float() - 127.5) / 63.75)


def test_channels_of_volumes_have_their_own_mean() -> None:
    volume = torch.full((2, 2, 3, 3, 3), 255, dtype=torch.uint8)
    found = Seen(VolumeFormat(2, 3, (1.0, 0.0), (1.0, 0.5)))(volume)
    assert found[:, 0].abs().max() < 1e-6
    torch.testing.assert_close(found[:, 1], torch.full((2, 3, 3, 3), 2.0))


def test_tokens_are_seen_as_they_are() -> None:
    tokens = torch.tensor([[2, 9, 3, 0]], dtype=torch.int32)
    seen = Seen(TextFormat(4, 10))
    found = seen(Fields(tokens=tokens, following=tokens, groups=torch.zeros(1)))
    assert found.dtype == torch.int64
    assert torch.equal(seen.restore(found), tokens.long())


def test_stills_of_images_and_volumes(tmp_path: Path) -> None:
    volumes = [NUMBERS.integers(0, 256, (1, 4, 4, 4)).astype(np.uint8) for _ in range(3)]
    form = VolumeFormat(1, 4, MEAN, STD)
    dataset = prepared(tmp_path / "volumes", form, [{"volumes": one} for one in volumes])
    middles = [volumes[row][..., 2] for row in (2, 0)]  # right, front, up: the front above, the right on the right
    upright = np.stack([one.swapaxes(1, 2)[:, ::-1] for one in middles])
    assert np.array_equal(stills(dataset, np.array([2, 0])), upright)
    images = [NUMBERS.integers(0, 256, (3, 4, 4)).astype(np.uint8) for _ in range(2)]
    form = ImageFormat(3, 4, MEAN * 3, STD * 3)
    dataset = prepared(tmp_path / "images", form, [{"images": one} for one in images])
    assert np.array_equal(stills(dataset, np.array([1])), images[1][None])


def test_a_still_of_text_is_a_page_with_it() -> None:
    short, long, empty = passages(["one", "many words " * 40, ""], 96)
    assert (empty == 255).all()
    ink = [(page < 128).sum() for page in (short, long)]
    assert 0 < ink[0] < 100 < ink[1]
    assert np.array_equal(short, passages(["one"], 96)[0])
    assert (long[0, -1] == 255).all(), "no line is cut in two"


def test_tokens_come_back_as_text() -> None:
    tokenizer = train_tokenizer(["Red apples, and green ones.", "a red house"] * 4, 60)
    found = encoded(tokenizer, ["red apples", "", "red apples and green ones"], 8)
    assert found.shape == (3, 8)
    assert found[1].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]
    assert found[:, 0].tolist() == [2, 2, 2]
    texts = decoded(tokenizer, found)
    assert texts[:2] == ["red apples", ""]
    assert texts[2].startswith("red apples and")
