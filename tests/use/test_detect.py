"""Boxes of a folder: in pixels of each image, in a file that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from use_fixtures import detector

from sslflow import cli, paths
from sslflow.dense.boxes.detector import save_detector
from sslflow.ingest.images.geometry import placement
from sslflow.runtime.files import read_csv
from sslflow.use.detect import detect_folder
from sslflow.use.folder import Done
from sslflow.use.models import open_detector

CPU = torch.device("cpu")


@pytest.fixture(params=["crop", "pad"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save_detector(detector(request.param), tmp_path / "detector.safetensors")
    return tmp_path / "detector.safetensors"


def made(folder: Path, model: Path, out: Path, said: list[str] | None = None, **settings: Any) -> tuple[Done, int]:
    tell = (said if said is not None else []).append
    return detect_folder(folder, open_detector(str(model)), out, CPU, tell, **{"batch": 4, **settings})


def test_a_file_of_boxes_is_read_by_pycocotools(folder: Path, model: Path, tmp_path: Path, decoded: list[str]) -> None:
    with Image.open(folder / "a" / "04.png") as image:
        image.resize((90, 31)).save(folder / "a" / "wide.png")
    said: list[str] = []
    out = tmp_path / "found.json"
    done, things = made(folder, model, out, said, least=0.5)
    assert done == Done(23, 2, 1, 0)
    assert things > 100
    assert [row["path"] for row in read_csv(tmp_path / "found.quarantine.csv")] == ["a/05x.jpg", "b/empty.png"]
    network = open_detector(str(model))
    assert any("nothing is found there" in line for line in said) == (network.images.fit == "crop")
    coco = COCO(str(out))
    again = coco.loadRes(json.loads(out.read_text())["annotations"])
    assert len(again.getAnnIds()) == things
    assert [one["name"] for one in coco.loadCats([1, 2])] == ["cat", "dog"]
    assert len(coco.getImgIds()) == 23
    counted = 0
    for one in coco.loadImgs(coco.getImgIds()):
        with Image.open(folder / one["file_name"]) as image:
            assert image.size == (one["width"], one["height"])
        boxes: list[Any] = coco.loadAnns(coco.getAnnIds(imgIds=one["id"]))
        (found,) = network.detect([folder / one["file_name"]], 0.5)
        assert len(boxes) == len(found.scores)
        own = [
            (*box, label + 1, score) for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True)
        ]
        for box in boxes:
            left, top, width, height = box["bbox"]
            told = (left, top, left + width, top + height, box["category_id"], box["score"])
            assert min(np.abs(np.asarray(own) - told).max(axis=1)) < 2e-3
            assert box["score"] >= 0.5
            assert width > 0
            assert height > 0
            assert left + width <= one["width"] + 2e-3
            assert top + height <= one["height"] + 2e-3
            counted += 1
    assert counted == things


def test_boxes_of_an_image_are_those_of_its_square(folder: Path, model: Path) -> None:
    network = open_detector(str(model))
    file = folder / "a" / "00.png"
    with Image.open(file) as image:
        size = image.size
    with torch.no_grad():
        (square,) = network.detections(network.shares([network.read(file)]))
    placed = placement(*size, network.images.side, network.images.fit)
    (found,) = network.detect([file], 0.0)
    low, high = np.asarray(placed.at * 2), np.asarray(placed.at * 2) + np.asarray(placed.size * 2)
    expected = square["boxes"].double().numpy().clip(low, high)
    expected = expected[(expected[:, 2:] > expected[:, :2]).all(axis=1)]
    assert len(expected) > 20
    np.testing.assert_allclose(placed.moved(found.boxes), expected, atol=1e-4)


def test_the_anchors_boxes_and_scores_come_to_the_same_things(model: Path) -> None:
    network = open_detector(str(model))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        boxes, scores = network(images)
        expected = network.detections(images)
        split = {
            "cls_logits": list(scores.logit().split(network.levels, dim=1)),
            "bbox_regression": list(torch.zeros_like(boxes).split(network.levels, dim=1)),
        }
        own = [list(one.split(network.levels)) for one in boxes]
        again = network.model.postprocess_detections(split, own, [(16, 16)] * 2)
    for one, other in zip(again, expected, strict=True):
        assert len(other["scores"]) > 10
        torch.testing.assert_close(one["scores"], other["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(one["labels"], other["labels"])


def test_the_command(
    folder: Path,
    tmp_path: Path,
    decoded: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sslflow", "detect", str(folder), *map(str, words)])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    monkeypatch.chdir(tmp_path)
    save_detector(detector(), paths.detector("simclr", 0))
    save_detector(None, tmp_path / "none.safetensors")
    code, out, err = call("--model", "simclr-0", "--device", "cpu", "--score", 0.999)
    assert (code, out.splitlines()[-1].split(": ")[0]) == (0, "detections.json")
    assert "things of a score of 0.999 or more in 22 images (2 can't be used, 1 other files)" in out
    before = (tmp_path / "detections.json").read_bytes()
    for words, says in (
        (("--model", "simclr-0"), "detections.json is there already: name another file with -o, or replace it with"),
        (("--model", "simclr-0", "-o", "a.csv"), "what is written is JSON: give it a name that ends in .json"),
        (("--model", "simclr-0", "-o", "a.json", "--score", "3"), "--score: expected a number from 0 to 1, found 3"),
        (("--model", "none.safetensors", "-o", "a.json"), "holds no detector: there were no boxes to train one on"),
        (("--model", "simcl-0", "-o", "a.json"), "there is no detector of that run, did you mean 'simclr-0'"),
    ):
        code, out, err = call(*words)
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert says in err
    assert (tmp_path / "detections.json").read_bytes() == before
    assert call("--model", "simclr-0", "--force", "--device", "cpu", "--score", 0)[0] == 0
    content = json.loads((tmp_path / "detections.json").read_text())
    assert len(content["annotations"]) > 22
    assert content["info"]["least_score"] == 0
