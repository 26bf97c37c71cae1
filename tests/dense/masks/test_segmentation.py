"""Segmentation from a few annotated images: what is learnt from, what stays frozen, and what it takes to learn."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sslflow.data.dataset import Dataset
from sslflow.dense.masks import pixels
from sslflow.dense.masks.pixels import pixel_loss
from sslflow.dense.masks.segmentation import Segmented, segment
from sslflow.dense.protocols import PROTOCOLS
from sslflow.dense.rows import annotated_shares, annotated_subset
from sslflow.networks.encoder import Encoder
from tests.mask_fixtures import SIDE, drawn, masked_dataset

CPU = torch.device("cpu")
QUICK = {"fractions": (0.5,), "epochs": 1, "min_steps": 3, "batch_size": 6, "width": 4}
IGNORED = 255


def encoder(width: int = 4) -> Encoder:
    torch.manual_seed(7)
    return Encoder(3, SIDE, name="resnet10", width=width, stem_stride=2)


def segmented(
    dataset, protocols=("tuned",), make: Callable[[], Encoder] = encoder, seed: int = 0, scratch=False, **settings
) -> list[Segmented]:
    return list(segment(make, dataset, CPU, seed, protocols, scratch, **{**QUICK, **settings}))


def weights(found: Segmented) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in found.model.state_dict().items()}


def same(one: Segmented, other: Segmented) -> bool:
    return one.loss == other.loss and all(torch.equal(a, b) for a, b in zip(*map(_values, (one, other)), strict=True))


def _values(found: Segmented) -> list[torch.Tensor]:
    return list(found.model.state_dict().values())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    return masked_dataset(tmp_path_factory.mktemp("masked") / "prepared")


def test_images_are_a_share_of_the_annotated_training_images_and_nested(dataset):
    every = set(dataset.annotated_rows("train", "mask").tolist())
    assert len(every) == 24 < len(dataset.rows("train"))
    few, more = (set(annotated_subset(dataset, "mask", share, 0).tolist()) for share in (0.25, 0.5))
    assert (len(few), len(more)) == (6, 12)
    assert few < more < every
    assert more != set(annotated_subset(dataset, "mask", 0.5, 1).tolist())
    assert len(annotated_subset(dataset, "mask", 0.001, 0)) == 2
    assert annotated_shares(dataset, "mask", (0.01, 0.08, 0.5, 0.999, 1.0)) == {0.083: 0.01, 0.5: 0.5, 1.0: 0.999}


def test_four_images_can_be_learnt_by_heart(tmp_path):
    images, masks = drawn(4)
    dataset = masked_dataset(tmp_path / "four", train=4, test=4, unannotated=0, masks=dict(enumerate([*masks, *masks])))
    np.save(dataset.folder / "images-00000.npy", np.concatenate([images, images]))
    settings = {"fractions": (1.0,), "min_steps": 60, "smallest": 1.0, "flip": 0.0, "lr": 1e-2, "linear_lr": 0.1}
    found = {one.protocol: one for one in segmented(dataset, PROTOCOLS, **settings, batch_size=4, width=16)}
    assert found["tuned"].scores.miou > 0.8
    assert found["frozen"].scores.miou > 0.7
    assert found["linear"].scores.miou > 0.6
    assert all(one.scores.actual.sum() == (masks != IGNORED).sum() for one in found.values())


def test_a_frozen_encoder_keeps_every_bit_and_a_tuned_one_does_not(dataset):
    before = encoder().state_dict()
    for one in segmented(dataset, PROTOCOLS):
        after = one.model.encoder.state_dict()
        changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
        assert bool(changed) == (one.protocol == "tuned")
        if changed:
            assert {"network.conv1.weight", "network.bn1.running_mean", "network.layer4.0.conv2.weight"} <= changed


def test_layers_have_rates_of_their_own_in_pretrained_encoders_alone(dataset):
    (tuned,) = segmented(dataset, layer_decay=0.5)
    (alike,) = segmented(dataset)
    assert not same(tuned, alike)
    (first,), (second,) = (segmented(dataset, scratch=True, layer_decay=decay) for decay in (0.5, 1.0))
    assert same(first, second)
    (scratch,) = segmented(dataset, scratch=True, scratch_lr=5e-3, encoder_lr=1e-3)
    (tuned,) = segmented(dataset, encoder_lr=5e-3, scratch_lr=1e-3)
    assert same(scratch, tuned)


def test_the_same_seed_gives_the_same_bits_whatever_the_encoder_took(dataset):
    def costly() -> Encoder:
        made = encoder()
        torch.manual_seed(99)
        return made

    torch.manual_seed(1)
    one = segmented(dataset, PROTOCOLS)
    torch.manual_seed(2)
    again = segmented(dataset, PROTOCOLS, costly)
    assert all(same(a, b) for a, b in zip(one, again, strict=True))
    assert not same(one[1], segmented(dataset, PROTOCOLS, seed=1)[1])


def test_the_linear_layer_learns_as_one_written_anew(dataset):
    """All images in each step: nothing is random but the encoder."""
    (found,) = segmented(dataset, ("linear",), batch_size=50, min_steps=4, weight_decay=0.0, warmup=0.0, linear_lr=0.1)
    rows = annotated_subset(dataset, "mask", 0.5, 0)
    mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (dataset.format.mean, dataset.format.std))
    with torch.no_grad():
        maps = found.model.stages((dataset.read(rows)["images"].float() / 255 - mean) / std)
    size = maps[0].shape[-2:]
    maps = [
        (one - one.mean((0, 2, 3), keepdim=True)) / (one.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        for one in maps
    ]
    stacked = torch.cat([F.interpolate(one, size=size, mode="bilinear") for one in maps], dim=1)
    layer = torch.nn.Conv2d(stacked.shape[1], 3, 1)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    updates = torch.optim.AdamW(layer.parameters(), weight_decay=0.0)
    masks = dataset.truth.masks(rows).long()
    known = masks != IGNORED
    loss = torch.zeros(())
    for step in range(4):
        updates.param_groups[0]["lr"] = 0.1 * 0.5 * (1 + np.cos(np.pi * step / 4))
        logits = F.interpolate(layer(stacked), size=(SIDE, SIDE), mode="bilinear").permute(0, 2, 3, 1)
        loss = F.cross_entropy(logits[known], masks[known])
        updates.zero_grad()
        loss.backward()
        updates.step()
    assert found.loss == pytest.approx(loss.item(), rel=1e-3)


def test_the_linear_layer_normalises_by_all_images_alike(tmp_path):
    """Seventeen: the last part of sixteen is a single one, whose coarsest map has a single place."""
    dataset = masked_dataset(tmp_path / "prepared", train=17)

    def small() -> Encoder:
        return Encoder(3, SIDE, name="resnet10", width=4, stem_stride=4)

    (found,) = segmented(dataset, ("linear",), small, fractions=(1.0,))
    mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (dataset.format.mean, dataset.format.std))
    with torch.no_grad():
        images = dataset.read(dataset.annotated_rows("train", "mask"))["images"]
        maps = found.model.stages((images.float() / 255 - mean) / std)
    assert len(images) == 17
    assert maps[-1].shape[-2:] == (1, 1)
    for norm, one in zip(found.model.decoder.norms, maps, strict=True):
        torch.testing.assert_close(norm.running_mean, one.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, one.var((0, 2, 3), correction=0), rtol=1e-4, atol=1e-6)


def test_maps_that_do_not_fit_into_memory_are_made_anew(dataset, monkeypatch):
    (kept,) = segmented(dataset, ("linear",))
    monkeypatch.setattr(pixels, "CACHED", 0)
    (anew,) = segmented(dataset, ("linear",))
    assert anew.loss == pytest.approx(kept.loss, rel=1e-5)


def test_images_are_predicted_batch_by_batch_without_statistics_of_the_batch(dataset):
    class Watched(Encoder):
        def map(self, images):
            seen.append((self.training, len(images)))
            return super().map(images)

    seen: list[tuple[bool, int]] = []
    segmented(dataset, ("tuned",), lambda: Watched(3, SIDE, name="vit_tiny", width=32, depth=1, patch_size=8))
    assert seen == [(False, 1), *[(True, 6)] * 3, (False, 6), (False, 2)]


def test_ignored_pixels_bear_no_loss():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    masks = torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8)
    masks[0, :2] = IGNORED
    known = masks != IGNORED
    wanted = F.cross_entropy(logits.permute(0, 2, 3, 1)[known], masks[known].long())
    assert pixel_loss(logits, masks).item() == pytest.approx(wanted.item())
    loss = pixel_loss(logits, torch.full_like(masks, IGNORED))
    loss.backward()
    assert logits.grad is not None
    assert loss.item() == logits.grad.abs().sum() == 0


def test_test_masks_change_the_scores_and_nothing_else(tmp_path):
    one = masked_dataset(tmp_path / "one", train=8, test=2)
    other = masked_dataset(tmp_path / "other", train=8, test=2, masks={12: np.full((SIDE, SIDE), 2, np.uint8)})
    (first,), (second,) = (segmented(data, fractions=(1.0,)) for data in (one, other))
    assert same(first, second)
    assert first.scores.miou != second.scores.miou


def test_what_is_covered_is_what_the_images_show_and_ignored_images_do_no_harm(tmp_path):
    blank, ground = np.full((SIDE, SIDE), IGNORED, np.uint8), np.zeros((SIDE, SIDE), np.uint8)
    data = masked_dataset(tmp_path / "one", train=2, test=2, masks={4: blank, 5: ground, 6: blank})
    (found,) = segmented(data)
    assert (found.images, found.covered) == (2, (0,))
    assert np.isfinite(found.loss)
    assert found.scores.actual[0].sum() == 0
    nothing = masked_dataset(tmp_path / "none", train=2, test=2, masks={4: blank, 5: blank})
    with pytest.raises(ValueError, match="every pixel is ignored"):
        segmented(nothing)


def test_too_little_to_learn_from_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="2 training images with masks"):
        segmented(masked_dataset(tmp_path / "one", train=1, test=1))
    zeros = {row: np.zeros((SIDE, SIDE), np.uint8) for row in range(4, 7)}
    alike = masked_dataset(tmp_path / "two", train=2, test=1, classes=("ground",), masks=zeros)
    with pytest.raises(ValueError, match="there is only ground"):
        segmented(alike)
    with pytest.raises(ValueError, match="needs images with masks"):
        segmented(masked_dataset(tmp_path / "three", train=2, test=0))


def test_a_loss_that_breaks_is_an_error_that_names_the_step_and_the_setting(dataset):
    class Breaking(Encoder):
        calls = 0

        def map(self, images):
            self.calls += 1
            return super().map(images) * (torch.nan if self.calls == 3 else 1)

    def make() -> Encoder:
        return Breaking(3, SIDE, name="vit_tiny", width=32, depth=1, patch_size=8)

    with pytest.raises(ValueError, match=r"tuned: the loss is not finite from step 2 of 3 on.*segment\.encoder_lr"):
        segmented(dataset, ("tuned",), make)
    with pytest.raises(ValueError, match=r"frozen: the loss is not finite from step 2 of 3 on.*segment\.lr"):
        segmented(dataset, ("frozen",), make)
