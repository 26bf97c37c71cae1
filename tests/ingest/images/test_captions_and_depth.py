"""Captions and depth maps of the same images: in each row is what belongs to its image, in whatever shard."""

from __future__ import annotations

from pathlib import Path

import annotation_fixtures as made
import numpy as np
import pytest
from annotation_fixtures import SIZE
from data_fixtures import encoded, in_process, write
from PIL import Image

from sslflow.data.captions import captions_of
from sslflow.data.dataset import Dataset
from sslflow.data.splits import POOL, TEST, TRAIN
from sslflow.data.tokens import PAD, load_tokenizer
from sslflow.data.tokens import encoded as as_tokens
from sslflow.ingest import shards
from sslflow.ingest.images import prepare as module

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SIDE = 24


@pytest.fixture(autouse=True)
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "examine_all", in_process)


def prepared(raw: Path, depth: Path, lines: list[str]) -> Dataset:
    captions = f"csv:{write(raw.parent / 'captions.csv', chr(10).join(['path,caption', *lines]).encode())}"
    settings = {"source": "folder", "image_size": SIDE, "channels": 3, "fit": "stretch", "depth_scale": 1.0}
    out = raw.parent / "out"
    module.prepare(out, lambda _: None, path=str(raw), depth=f"png:{depth}", captions=captions, **settings)
    return Dataset(out)


def map_of(number: int) -> bytes:
    return encoded(Image.fromarray(np.full(SIZE[::-1], 100 + number, np.uint16)), "PNG")


def test_rows_hold_what_belongs_to_their_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 images, of which the last two have no caption and the first two no map."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 5 * SIDE**2 * 4)
    raw, depth = made.images(tmp_path / "raw", range(12)), tmp_path / "depth"
    for number in range(2, 12):
        write(depth / f"{number:02}.png", map_of(number))
    lines = [f"{number:02}.png,number {NUMBERS[number]}" for number in range(10)]
    lines += [f"{number:02}.png,seen" for number in range(0, 10, 3)]
    dataset = prepared(raw, depth, lines)
    assert dataset.column("shard").max() > 1
    assert {split: len(dataset.rows(split)) for split in (TRAIN, TEST, POOL)} == {TRAIN: 8, TEST: 2, POOL: 10}
    rows = np.random.default_rng(0).permutation(len(dataset))
    fields, tokenizer, known = dataset.read(rows), load_tokenizer(dataset.folder), captions_of(dataset.folder)
    numbers = [int(Path(name).stem) for name in dataset.column("path", rows)]
    pictures = fields["images"].permute(0, 2, 3, 1).numpy().astype(int)
    for place, (row, number) in enumerate(zip(rows.tolist(), numbers, strict=True)):
        assert fields["depth"][place].unique().tolist() == [0.0 if number < 2 else 100.0 + number]
        said = [f"number {NUMBERS[number]}", *["seen"] * (number % 3 == 0)] if number < 10 else []
        assert known.get(row, []) == said
        tokens = fields["captions"][place].numpy()
        assert np.array_equal(tokens[: len(said)], as_tokens(tokenizer, said, tokens.shape[1]))
        assert (tokens[len(said) :] == PAD).all()
        picture = made.picture(number).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
        off = [np.abs(image - np.asarray(picture)).mean() for image in pictures]
        assert numbers[int(np.argmin(off))] == number
    assert np.array_equal(dataset.column("captions", rows) > 0, np.array(numbers) < 10)
    assert np.array_equal(dataset.column("depth", rows) > 0, np.array(numbers) >= 2)
    pooled = {int(Path(name).stem) for name in dataset.column("path", dataset.pretraining_rows)}
    tested = {int(Path(name).stem) for name in dataset.column("path", dataset.rows(TEST))}
    assert not pooled & tested


def test_an_image_that_is_no_longer_tested_on_is_not_learnt_from_where_it_equals_one_that_is(tmp_path: Path) -> None:
    """Its map can't be used, its twin's can, and either was to be tested on."""
    raw, depth = tmp_path / "raw", tmp_path / "depth"
    for number in range(6):
        place = f"{'test' if number < 3 else 'train'}/{number:02}.png"
        write(raw / place, encoded(made.picture(1 if number == 0 else number), "PNG"))
        write(depth / place, b"" if number == 0 else map_of(number))
    lines = [f"{number:02}.png,number {NUMBERS[number]}" for number in range(6)]
    dataset = prepared(raw, depth, lines)
    assert sorted(dataset.column("path", dataset.rows(TEST))) == ["test/01.png", "test/02.png"]
    assert not set(dataset.column("pixels", dataset.rows(TEST))) & set(
        dataset.column("pixels", dataset.pretraining_rows)
    )
    learnt = [one for row, own in captions_of(dataset.folder).items() if row in dataset.pretraining_rows for one in own]
    assert sorted(learnt) == ["number five", "number four", "number six"]
