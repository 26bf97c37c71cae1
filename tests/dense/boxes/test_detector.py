"""A detector on every family of encoders: its levels, anchors, losses, answers and file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from sslflow.data.formats import ImageFormat
from sslflow.dense.boxes.detector import Anchors, Detector, load_detector, save_detector
from sslflow.networks.encoder import Encoder

FORMAT = ImageFormat(3, 64, (0.5, 0.4, 0.3), (0.2, 0.2, 0.3))
FAMILIES: dict[str, dict[str, Any]] = {
    "resnet10": {"name": "resnet10", "width": 8, "stem_stride": 2},
    "vit": {"name": "vit_tiny", "width": 32, "depth": 1, "patch_size": 8},
    "lite0": {"name": "tf_efficientnet_lite0"},
}
NONE = torch.empty(0, 4)


def made(family: str = "resnet10", classes: tuple[str, ...] = ("a", "b")) -> Detector:
    torch.manual_seed(0)
    return Detector(Encoder(3, FORMAT.size, **FAMILIES[family]), classes, FORMAT, width=16)


def target(boxes: list[list[float]], labels: list[int], ignored: Tensor = NONE) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "ignored": ignored,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_any_encoder_makes_a_pyramid_of_the_same_sizes(family: str) -> None:
    detector = made(family)
    images = torch.randn(2, 3, 64, 64)
    maps = detector.backbone(images)
    assert [tuple(found.shape) for found in maps.values()] == [(2, 16, side, side) for side in (16, 8, 4, 2)]
    losses = detector.train()(images, [target([[4, 4, 20, 20]], [1]), target([], [])])
    sum(losses.values(), torch.tensor(0.0)).backward()
    silent = [name for name, weights in detector.named_parameters() if weights.grad is None]
    # What an encoder does after its maps isn't asked for.
    assert all("encoder.network.conv_head" in name or "encoder.network.bn2" in name for name in silent), silent


def test_anchors_stand_around_the_middles_of_cells() -> None:
    found = Anchors(48, [12, 3])
    images: Any = type("Images", (), {"image_sizes": [(48, 48)]})
    (anchors,) = found(images, [torch.zeros(1, 4, 12, 12), torch.zeros(1, 4, 3, 3)])
    assert len(anchors) == 9 * (144 + 9)
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    np.testing.assert_allclose(middles[0], [2, 2])
    np.testing.assert_allclose(middles[-1], [40, 40])
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(dim=1)
    np.testing.assert_allclose(
        (width * height).sqrt()[:9:1].reshape(3, 3)[0], [8, 8 * 2 ** (1 / 3), 8 * 2 ** (2 / 3)], rtol=1e-6
    )
    assert sorted({round(float(one), 3) for one in height / width}) == [0.5, 1, 2]


def test_a_thing_of_any_size_and_place_has_an_anchor_that_overlaps_it() -> None:
    detector = made()
    maps = list(detector.backbone(torch.zeros(1, 3, 64, 64)).values())
    images: Any = type("Images", (), {"image_sizes": [(64, 64)]})
    (anchors,) = detector.anchor_generator(images, maps)
    numbers = np.random.default_rng(0)
    sides = numbers.uniform(8, 48, (200, 1)) * np.stack([(r := numbers.uniform(0.7, 1.4, 200)), 1 / r], axis=1)
    corners = numbers.uniform(0, 1, (200, 2)) * (64 - sides).clip(min=0)
    boxes = torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()
    best = box_iou(boxes, anchors).amax(dim=1)
    assert float(best.min()) > 0.4
    assert float((best > 0.5).float().mean()) > 0.95


def test_a_few_images_can_be_learnt_by_heart() -> None:
    detector = made()
    numbers = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(3, 3, 64, 64, generator=numbers)
    boxes = [[[8.0, 8, 24, 24]], [[30.0, 20, 54, 36]], []]
    for image, (own, colour) in zip(images, zip(boxes, (0, 1, 2), strict=True), strict=True):
        for left, top, right, bottom in own:
            image[colour, int(top) : int(bottom), int(left) : int(right)] = 2.0
    targets = [target(own, [label] * len(own)) for own, label in zip(boxes, (0, 1, 0), strict=True)]
    updates = torch.optim.AdamW(detector.parameters(), lr=5e-3)
    detector.train()
    for _ in range(60):
        updates.zero_grad()
        sum(detector(images, targets).values(), torch.tensor(0.0)).backward()
        updates.step()
    with torch.no_grad():
        found = detector.eval()(images)
    for one, wanted, label in zip(found[:2], boxes, (0, 1), strict=False):
        assert one["labels"][0] == label
        assert float(box_iou(one["boxes"][:1], torch.tensor(wanted))) > 0.7
        assert float(one["scores"][0]) > 0.5
        assert (one["scores"][1:] <= one["scores"][:-1]).all()
    assert float(found[2]["scores"].max(dim=0).values if len(found[2]["scores"]) else 0) < 0.3


def test_what_lies_on_something_ignored_is_no_background() -> None:
    detector = made().train()
    images, box = torch.randn(1, 3, 64, 64), [[4.0, 4, 20, 20]]
    anchors = detector.anchor_generator(*seen(detector, images))
    outputs = detector.head(list(detector.backbone(images).values()))
    without = detector.compute_loss([target(box, [0])], outputs, anchors)
    aside = torch.tensor([[30.0, 30, 64, 64]])
    spared = detector.compute_loss([target(box, [0], aside)], outputs, anchors)
    assert spared["classification"] < without["classification"]
    torch.testing.assert_close(spared["bbox_regression"], without["bbox_regression"])
    everywhere = torch.tensor([[0.0, 0, 64, 64]])
    # Nothing but the anchors on the thing itself is left to learn from.
    alone = detector.compute_loss([target(box, [0], everywhere)], outputs, anchors)
    assert alone["classification"] < spared["classification"]
    outputs["cls_logits"].retain_grad()
    alone["classification"].backward()
    touched = (outputs["cls_logits"].grad[0] != 0).any(dim=1)
    on_it = detector.proposal_matcher(box_iou(torch.tensor(box), anchors[0])) >= 0
    inside = box_iou(anchors[0], everywhere)[:, 0] * 64 * 64 / anchor_areas(anchors[0]) >= 0.5
    assert (touched[inside] == on_it[inside]).all()


def seen(detector: Detector, images: Tensor) -> tuple[Any, list[Tensor]]:
    wrapped, _ = detector.transform(images)
    return wrapped, list(detector.backbone(images).values())


def anchor_areas(anchors: Tensor) -> Tensor:
    return (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)


def test_images_pass_as_they_are() -> None:
    detector = made().eval()
    taken: list[Tensor] = []
    detector.backbone.register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    images = 3 * torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        detector(images)
    torch.testing.assert_close(taken[0], images, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_detector_comes_back_from_its_file(family: str, tmp_path: Path) -> None:
    detector = made(family)
    detector.facts, detector.encoder.facts = {"images": {"fit": "pad"}}, {"run": {"seed": 3}}
    file = tmp_path / "detector.safetensors"
    save_detector(detector, file)
    first = file.read_bytes()
    save_detector(detector, file)
    assert file.read_bytes() == first
    loaded = load_detector(file)
    assert (loaded.classes, loaded.format, loaded.facts) == (["a", "b"], FORMAT, {"images": {"fit": "pad"}})
    assert loaded.encoder.facts == {"run": {"seed": 3}}
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(loaded(images), detector.eval()(images), strict=True):
            assert len(one["boxes"]) <= 100
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_other_files_are_no_detectors(tmp_path: Path) -> None:
    from sslflow.networks.saved import save_encoder

    file = tmp_path / "other.safetensors"
    save_encoder(Encoder(3, 32, name="resnet10", width=8), file)
    with pytest.raises(ValueError, match="not a detector"):
        load_detector(file)
    save_detector(None, file)
    with pytest.raises(ValueError, match="no boxes to train one on"):
        load_detector(file)
    file.write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged"):
        load_detector(file)
