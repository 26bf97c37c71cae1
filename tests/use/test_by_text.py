"""`sslflow search --text`: the images of a folder that fit a text best."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sslflow import cli
from sslflow.ingest.images.examine import Examined, Work, examine
from sslflow.ingest.records import Record, Rejected
from sslflow.ingest.tokenizing import train_tokenizer
from sslflow.networks.encoder import Encoder
from sslflow.networks.matcher import Matcher, save_matcher
from sslflow.networks.text import TextEncoder
from sslflow.use import by_text
from sslflow.use.by_text import open_matcher, search_by_text

CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of a run, in the folder in which the test works."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["red bus", "blue bird", "green tree"], 60)
    text = TextEncoder(tokenizer.get_vocab_size(), 8, dim=16, depth=1, heads=2)
    image = Encoder(3, 16, name="resnet10", width=8, stem_stride=2)
    made = Matcher(image, text, nn.Linear(image.dim, 6, bias=False), nn.Linear(16, 6, bias=False)).eval()
    made.tokenizer, made.facts = tokenizer.to_str(), {"images": {"mean": [0.5] * 3, "std": [0.2] * 3}}
    save_matcher(made, tmp_path / "artifacts/matched/clip-0/matcher.safetensors")
    return tmp_path / "artifacts/matched/clip-0/matcher.safetensors"


@pytest.fixture(autouse=True)
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(tasks: Iterator[list[Record]], work: Work, *_: int) -> Iterator[Examined | Rejected]:
        for records in tasks:
            yield from examine(records, work)

    monkeypatch.setattr(by_text, "examine_all", read)
    monkeypatch.setattr(by_text, "BATCH", 5)


def test_what_fits_best_comes_first(model: Path, folder: Path) -> None:
    said: list[str] = []
    opened = open_matcher("clip-0")
    found = search_by_text(["red bus", "a tree"], folder, opened, CPU, said.append, top=99)
    assert said == ["2 of 24 images can't be used: left out"]
    files = sorted(file for file in folder.rglob("*.png") if file.stat().st_size)
    with torch.no_grad():
        vectors = opened(opened.shares([opened.read(file) for file in files]))
        texts = opened.matcher.of_texts(["red bus", "a tree"])
    for text, hits in zip(texts, found, strict=True):
        scores = (vectors @ text).numpy()
        order = np.argsort(-scores, kind="stable")
        assert [hit.path for hit in hits] == [str(files[place].relative_to(folder)) for place in order]
        np.testing.assert_allclose([hit.score for hit in hits], scores[order], atol=1e-5)


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sslflow", *map(str, words)])
    code = cli.main()
    said = capsys.readouterr()
    return code, said.out, said.err


def height_of(file: str) -> int:
    with Image.open(file) as image:
        return image.height


def test_as_it_is_typed(
    model: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("search", "--text", "red bus", "--folder", folder, "--device", "cpu", "--top", 3, "--sheet", "found.png")
    code, out, _ = call(capsys, monkeypatch, *words)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[-1] == "wrote found.png"
    low = height_of("found.png")
    code, out, _ = call(capsys, monkeypatch, *words, "--text", "blue bird", "--model", model)
    assert code == 0
    assert [line for line in out.splitlines() if line.endswith(":")] == ["red bus:", "blue bird:"]
    assert height_of("found.png") > 1.5 * low


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name images to look for in a table"),
        (("a.png", "--text", "red bus"), "name images to look for in a table"),
        (("--text", "red bus"), "say by --folder in which images"),
        (("--text", "red bus", "--folder", "nowhere"), "expected a folder of images, found nothing"),
        (("--text", "赤", "--folder", "images"), "'赤' has no letter that the model's captions had"),
        (("--text", "", "--folder", "images"), "has no letter that the model's captions had"),
        (("--text", "red", "--folder", "images", "--model", "clip-1"), "did you mean 'clip-0'"),
        (("--text", "red", "--folder", "images", "--top", "0"), "--top: expected 1 or more"),
        (("--text", "red", "--folder", "artifacts"), "there is no image here"),
    ],
)
def test_mistakes_are_told_in_a_line(
    model: Path,
    folder: Path,
    words: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, _, err = call(capsys, monkeypatch, "search", *words, "--device", "cpu")
    assert code == 1
    assert said in err


def test_without_a_model_it_is_said_how_to_get_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"there is none; `sslflow run` makes them of the methods in run\.match"):
        open_matcher()


def test_of_several_models_one_is_named(model: Path) -> None:
    other = model.parents[1] / "clip-1" / model.name
    other.parent.mkdir()
    other.write_bytes(model.read_bytes())
    with pytest.raises(ValueError, match="there are clip-0, clip-1: say which by --model"):
        open_matcher()
    assert open_matcher("clip-1").name.endswith("clip-1/matcher.safetensors")


def test_a_damaged_model_is_refused(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"damaged.*dvc repro match"):
        open_matcher()
