"""What is handed on computes what the encoder does, says what it is, or isn't written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from use_fixtures import small

from sslflow import paths
from sslflow.data.formats import ImageFormat
from sslflow.networks.saved import save_encoder
from sslflow.networks.starts import Start
from sslflow.networks.weights import given
from sslflow.runtime.files import sha256, write_json
from sslflow.use import export as exporting
from sslflow.use import formats
from sslflow.use.encoder import ImageEncoder, open_encoder
from sslflow.use.export import export
from sslflow.use.formats import ENDINGS, Format

VIT = {"patch_size": 4, "depth": 2, "width": 32}


def saved(tmp_path: Path, name: str = "resnet10", channels: int = 3, side: int = 16, **settings: Any) -> ImageEncoder:
    save_encoder(small(name, channels, side, **settings), tmp_path / "encoder.safetensors")
    return open_encoder(str(tmp_path / "encoder.safetensors"))


def continued(tmp_path: Path, side: int) -> ImageEncoder:
    """An encoder from weights of elsewhere, for images of 48 pixels that are brought to `side`."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    format = ImageFormat(3, 48, (0.3, 0.4, 0.5), (0.2, 0.3, 0.25))
    start = Start(weights=str(tmp_path / "vit.safetensors"), network="test_vit", side=side)
    encoder = given(start, format)
    encoder.facts = small().facts
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    return open_encoder(str(tmp_path / "encoder.safetensors"))


def put(encoder: ImageEncoder, to: Format, tmp_path: Path) -> tuple[Path, str]:
    file = tmp_path / "out" / f"mine{ENDINGS[to]}"
    card, apart = export(encoder, to, file)
    assert apart <= 1e-5
    assert sorted(one.name for one in file.parent.iterdir()) == sorted([file.name, card.name])
    assert file.stat().st_mode == card.stat().st_mode, "safetensors lets nobody else read its files"
    return file, card.read_text()


@pytest.mark.parametrize("to", ["safetensors", "torchscript"])
@pytest.mark.parametrize(
    ("name", "channels", "settings", "fit"),
    [
        ("resnet10", 3, {"width": 4, "stem_stride": 2, "grid": 2}, "crop"),
        ("resnet10", 1, {"width": 4, "stem_stride": 1}, "pad"),
        ("vit_tiny", 3, {**VIT, "grid": 0}, "stretch"),
        ("vit_tiny", 3, {**VIT, "grid": 2}, "pad"),
    ],
)
def test_any_encoder_can_be_handed_on(
    to: Format, name: str, channels: int, settings: dict[str, Any], fit: str, tmp_path: Path
) -> None:
    """The card's own Python is run by the check, on files of other sizes, one of them transparent."""
    encoder = small(name, channels, 16, **settings)
    encoder.facts["images"]["fit"] = fit
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    put(open_encoder(str(tmp_path / "encoder.safetensors")), to, tmp_path)


@pytest.mark.parametrize("settings", [{"grid": 0}, {"grid": 1}, {"grid": 2}])
def test_a_vit_of_ours_is_one_of_timms(settings: dict[str, int], tmp_path: Path) -> None:
    _, card = put(saved(tmp_path, "vit_tiny", side=18, **VIT, **settings), "timm", tmp_path)
    assert "checkpoint_path=" in card


@pytest.mark.parametrize("side", [32, 48, 64])
def test_weights_from_elsewhere_go_back_to_timm_with_their_own_normalisation(side: int, tmp_path: Path) -> None:
    file, card = put(continued(tmp_path, side), "timm", tmp_path)
    assert "the mean 0.5, 0.5, 0.5, divided by the standard deviation 0.5, 0.5, 0.5." in card
    assert ("interpolate(" in card) == (side != 48)
    assert "nobody has said it, so find out" in card
    network = timm.create_model("test_vit", num_classes=0, img_size=side, checkpoint_path=str(file))
    assert set(network.state_dict()) == set(load_file(file))


@pytest.mark.parametrize(("grid", "dim"), [(1, 512), (2, 2048)])
def test_a_usual_resnet_is_one_of_torchvisions(grid: int, dim: int, tmp_path: Path) -> None:
    encoder = saved(tmp_path, "resnet18", side=32, grid=grid)
    file, _ = put(encoder, "torchvision", tmp_path)
    missing, more = torchvision.models.resnet18().load_state_dict(load_file(file), strict=False)
    assert (missing, more) == (["fc.weight", "fc.bias"], [])
    with safe_open(file, framework="pt") as content:
        about = json.loads(content.metadata()["sslflow"])
    assert (about["mean"], about["dim"], about["data"]["examples"]) == ([0.3, 0.4, 0.5], dim, 4431)
    assert about["input"] == "normalised shares of white"


def test_onnx_takes_any_batch_and_normalises_itself(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    encoder = saved(tmp_path, width=4, stem_stride=2, grid=2)
    file, card = put(encoder, "onnx", tmp_path)
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["sslflow"])
    assert about["input"] == "shares of white from 0 to 1, not normalised"
    images = torch.rand(5, 3, 16, 16)
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, encoder(images).numpy(), atol=1e-5)
    assert "import torch" not in card


def test_our_own_format_is_read_with_all_that_was_known(tmp_path: Path) -> None:
    encoder = saved(tmp_path)
    file, _ = put(encoder, "safetensors", tmp_path)
    again = open_encoder(str(file))
    assert again.images == encoder.images
    assert again.encoder.facts["data"] == encoder.encoder.facts["data"]


@pytest.mark.parametrize(
    ("to", "name", "settings", "says"),
    [
        ("torchvision", "resnet10", {}, "torchvision has no resnet10: use safetensors"),
        ("torchvision", "vit_tiny", VIT, "torchvision has no vit_tiny: use safetensors"),
        ("torchvision", "mobilenet_v3_small", {}, "there is no encoder"),
        ("torchvision", "resnet18", {"width": 8}, r"is not resnet18 \(channels 3, width 8, .* of \(64, 3, 7, 7\)"),
        ("timm", "resnet10", {"width": 4, "stem_stride": 2}, r"timm's resnet18 is not resnet10 \(channels 3, width 4"),
    ],
)
def test_what_a_format_cannot_hold_is_one_line(
    to: Format, name: str, settings: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        export(saved(tmp_path, name, **settings), to, tmp_path / "out" / f"a{ENDINGS[to]}")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("out/*"))


def test_what_differs_or_has_another_name_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, out = saved(tmp_path), tmp_path / "out" / "a.safetensors"
    with pytest.raises(ValueError, match=r"a name that ends in \.onnx"):
        export(encoder, "onnx", out)
    with pytest.raises(ValueError, match="no format 'onx', did you mean 'onnx'"):
        export(encoder, "onx", out)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(formats, "EXTRA", ("no_such_package",))
    with pytest.raises(ValueError, match=r"onnx needs no_such_package: run `pip install 'sslflow\[export\]'`"):
        export(encoder, "onnx", tmp_path / "out" / "a.onnx")
    write = exporting.write

    def spoiled(encoder: ImageEncoder, *rest: Any) -> str:
        loading = write(encoder, *rest)
        encoder.encoder.network.conv1.weight.mul_(1.001)
        return loading

    monkeypatch.setattr(exporting, "write", spoiled)
    with pytest.raises(ValueError, match="not written: its features would differ"):
        export(encoder, "safetensors", out)
    assert not list(tmp_path.glob("out/*"))


def test_a_card_says_what_it_reached_and_by_which_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_encoder(small(), paths.encoder("simclr", 0))
    folder = paths.features("simclr", 0)
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", np.zeros((2, 3), np.float32))
    write_json(folder / "meta.json", {"encoder_sha256": sha256(paths.encoder("simclr", 0))})
    write_json(paths.metrics("probe", "simclr-0"), {"linear": 0.625, "knn": 0.5})
    cell = {"mean": 0.615, "std": 0.01, "n": 2}
    rows = ("simclr", "rotation", "random", "start lite0")
    write_json(paths.LEADERBOARD, {name: {"linear": cell} for name in rows})
    export(open_encoder("simclr-0"), "safetensors", tmp_path / "mine.safetensors")
    card = (tmp_path / "mine.safetensors.md").read_text()
    for line in (
        "# mine",
        "- start: random weights",
        f"- exported from: `simclr-0.safetensors`, sha256 `{sha256(paths.encoder('simclr', 0))}`",
        "| simclr | 61.5 ± 1.0 | 2 |",
        "| lite0, as it came | 61.5 ± 1.0 | 2 |",
        "| random weights | 61.5 ± 1.0 | 2 |",
        "This seed alone: linear 62.5.",
        "- data: 4,431 examples of a set whose manifest, with the hash of each file, has the",
        "  temperature: 0.2",
    ):
        assert line in card.splitlines()
    assert "- method: simclr, seed 0. SimCLR: agree on two views" in card
    assert "rotation" not in card
    write_json(folder / "meta.json", {"encoder_sha256": "of another"})
    export(open_encoder("simclr-0"), "safetensors", tmp_path / "mine.safetensors")
    assert "there was no leaderboard of its features" in (tmp_path / "mine.safetensors.md").read_text()
