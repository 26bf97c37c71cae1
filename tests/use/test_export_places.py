"""Segmenters and detectors for other programs: what is handed on answers as the original does."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from use_fixtures import detector, segmenter

from sslflow import cli, paths
from sslflow.dense.boxes.detector import save_detector
from sslflow.dense.masks.segmenter import save_segmenter
from sslflow.runtime.files import write_json
from sslflow.use import export_places
from sslflow.use.export_places import KEPT, export_placing
from sslflow.use.models import ImageDetector, ImageSegmenter, open_detector, open_segmenter


def opened(kind: str, tmp_path: Path, fit: str = "pad", **settings: Any) -> ImageSegmenter | ImageDetector:
    file = tmp_path / f"{kind}.safetensors"
    if kind == "segmenter":
        save_segmenter(segmenter(fit, **settings), file)
        return open_segmenter(str(file))
    save_detector(detector(fit), file)
    return open_detector(str(file))


def put(model: ImageSegmenter | ImageDetector, to: Any, tmp_path: Path) -> tuple[Path, str]:
    file = tmp_path / "out" / f"mine{KEPT[to]}"
    card, apart = export_placing(model, to, file)
    assert apart <= 1e-4
    assert sorted(one.name for one in file.parent.iterdir()) == sorted([file.name, card.name])
    return file, card.read_text()


def run(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the card's Python defines, run beside an image."""
    pixels = np.random.default_rng(3).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    monkeypatch.chdir(folder)
    held: dict[str, Any] = {}
    with warnings.catch_warnings(action="ignore"):  # torch.jit says of itself that it will go
        exec(card.split("```python\n")[1].split("```")[0], held)
    return held


@pytest.mark.parametrize("kind", ["segmenter", "detector"])
@pytest.mark.parametrize("to", ["onnx", "torchscript", "safetensors"])
def test_what_a_card_does_comes_to_the_same(
    kind: str, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if to == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    model = opened(kind, tmp_path)
    file, card = put(model, to, tmp_path)
    held = run(card, tmp_path / "out", monkeypatch)
    if to == "onnx":
        check_onnx(model, file, card)
    if isinstance(model, ImageSegmenter):
        own = model.segment(["image.png"])[0]
        if to != "safetensors":
            own = model.answers(["image.png"])[0].argmax(axis=1)[0]
            assert len(np.unique(own)) > 1
        assert np.array_equal(held["masks"][0], own)
        return
    if to == "safetensors":
        assert np.array_equal(held["found"][0].boxes, model.detect(["image.png"])[0].boxes)
        return
    with torch.no_grad():
        (expected,) = model.detections(model.shares([model.read("image.png")]))
    (found,) = held["found"]
    assert len(found["scores"]) > 20
    assert found["labels"].tolist() == expected["labels"].tolist()
    np.testing.assert_allclose(found["scores"], expected["scores"], rtol=1e-4)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-4, atol=1e-3)


def check_onnx(model: ImageSegmenter | ImageDetector, file: Path, card: str) -> None:
    """It takes any batch, and says what it is."""
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["sslflow"])
    assert about["classes"] == model.classes
    assert about["outputs"] == [one.name for one in session.get_outputs()]
    assert "import torch" not in card
    (opset,) = {one.version for one in onnx.load(file).opset_import if not one.domain}
    assert f"opset {opset}" in card
    for count in (1, 5):
        images = torch.rand(count, 3, 16, 16)
        with torch.no_grad():
            right = model(images)
        right = right if isinstance(right, tuple) else (right,)
        for one, other in zip(session.run(None, {"images": images.numpy()}), right, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("width", [0, 4])
def test_a_linear_layer_is_handed_on_as_well(width: int, tmp_path: Path) -> None:
    put(opened("segmenter", tmp_path, width=width), "torchscript", tmp_path)


def test_what_differs_or_can_not_be_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, out = opened("segmenter", tmp_path), tmp_path / "out" / "a.pt"
    with pytest.raises(ValueError, match=r"there is no format 'timm'.*; there are safetensors, onnx, torchscript"):
        export_placing(model, "timm", out)
    with pytest.raises(ValueError, match=r"a name that ends in \.onnx"):
        export_placing(model, "onnx", out)
    write: Callable[..., str] = export_places._write

    def spoiled(model: ImageSegmenter, *rest: Any) -> str:
        loading = write(model, *rest)
        model.model.decoder.last.weight.mul_(1.01)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        return loading

    monkeypatch.setattr(export_places, "_write", spoiled)
    with pytest.raises(ValueError, match="not written: its answers would differ"):
        export_placing(model, "torchscript", out)
    assert not list(tmp_path.glob("out/*"))


def test_the_command_and_the_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_segmenter(segmenter(), paths.segmenter("simclr", 0))
    write_json(paths.metrics("segment", "simclr-0"), {"tuned_miou_10pct": 0.625, "frozen_miou_10pct": 0.5})

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sslflow", "export", *words])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, _ = call("simclr-0", "--of", "segmenter", "--to", "safetensors", "-o", "mine.safetensors")
    assert code == 0
    assert out.startswith("mine.safetensors: safetensors, ")
    assert out.endswith(" of the largest number from the original; its card: mine.safetensors.md\n")
    card = (tmp_path / "mine.safetensors.md").read_text()
    for line in (
        "# mine",
        "- classes, in this order, from 0: ground, sky, bird",
        "- output: `logits`, float32 `(n, 3, 16, 16)`: the largest is of the pixel's class",
        "On the test images, after training on 10 % of the annotated images (tuned): mIoU 62.5 %.",
        "  temperature: 0.2",
    ):
        assert line in card.splitlines()
    assert "- method: simclr, seed 0. SimCLR: agree on two views" in card
    code, out, _ = call("mine.safetensors", "--to", "torchscript", "-o", "again.pt")
    assert code == 0
    assert "export it by the name of its run" in (tmp_path / "again.pt.md").read_text()
    code, _, err = call("mine.safetensors", "--of", "detector", "--to", "torchscript", "-o", "again.pt")
    assert (code, err) == (1, "mine.safetensors: expected a detector, found a segmenter\n")
    code, _, err = call("mine.safetensors", "--of", "encoder", "--to", "torchscript", "-o", "again.pt")
    assert (code, err) == (1, "mine.safetensors: expected an encoder, found a segmenter\n")
    code, _, err = call("mine.safetensors", "--side", "8", "--to", "torchscript", "-o", "again.pt")
    assert (code, err.count("\n")) == (1, 1)
    assert "leave out --side and --network" in err
