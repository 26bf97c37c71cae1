"""Tasks made of a source alone, and the bars by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.adaptation.has_unknown import Bars, Openness, look_for_unknown
from sslflow.adaptation.simulated import OPEN, SHIFTS, bars_by, bars_of_source, shifted_features, simulated
from sslflow.adaptation.task import UNKNOWN
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.networks.encoder import Encoder
from tests.conftest import ROOT

CPU = torch.device("cpu")


def source(classes: int = 8, each: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Features, the same under a shift, and labels: the first feature is the class, the second the image."""
    labels = torch.arange(classes).repeat(each)
    rows = torch.arange(len(labels)).float()
    features = torch.stack([labels.float(), rows], dim=1)
    return features, features + 1000, labels


@pytest.mark.parametrize("seed", range(3))
def test_no_image_is_on_both_sides_and_classes_are_left_out_as_the_setting_says(seed):
    features, shifted, labels = source()
    tasks = {task.setting: task for task in simulated(features, shifted, labels, seed)}
    assert list(tasks) == ["cda", "pda", "oda", "opda"]
    whole = tasks["cda"]
    assert len(whole.source) + len(whole.target) == len(labels)
    known = {name: set(task.actual[task.actual != UNKNOWN].tolist()) for name, task in tasks.items()}
    assert known["cda"] == set(range(8))
    assert len(known["pda"]) == 6
    assert known["oda"] == set(range(6))
    assert len(known["opda"]) == 4
    assert [task.classes for task in tasks.values()] == [8, 8, 6, 6]
    for name, task in tasks.items():
        assert bool((task.actual == UNKNOWN).any()) == (name in OPEN) == task.open
        assert len(task.source) == len(task.labels)
        assert len(task.target) == len(task.actual)
        # Within a task a class is the same number on both sides: the higher the class, the higher the first feature.
        for number in known[name]:
            ours, theirs = task.source[task.labels == number, 0], task.target[task.actual == number, 0]
            assert ours.min() == ours.max()
            assert theirs.min() == theirs.max()
        order = [task.target[task.actual == number, 0][0] for number in sorted(known[name])]
        assert order == sorted(order)


def test_the_same_seed_gives_the_same_tasks_and_few_classes_none():
    first, again, other = (list(simulated(*source(), seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a.target, b.target) for a, b in zip(first, again, strict=True))
    assert not all(len(a.target) == len(b.target) for a, b in zip(first, other, strict=True))
    assert not list(simulated(*source(classes=4), 0))


def test_a_class_with_one_image_is_never_unknown_in_a_closed_task():
    features, shifted, labels = source()
    labels = torch.cat([labels, torch.tensor([8])])
    features, shifted = (torch.cat([part, torch.tensor([[8.0, 999.0]])]) for part in (features, shifted))
    for seed in range(6):
        for task in simulated(features, shifted, labels, seed):
            assert task.open or not (task.actual == UNKNOWN).any()


def test_labels_that_skip_numbers_are_numbered_anew():
    features, shifted, labels = source()
    for task in simulated(features, shifted, labels * 3, 0):
        assert set(task.labels.tolist()) == set(range(task.classes))


def test_bars_are_above_all_that_is_closed_and_below_all_that_is_open():
    assert bars_by([0.1, 0.5], [0.3, 2.0]) == Bars(open=0.5, closed=0.3)
    assert bars_by([0.1, 0.2], [0.9, 2.0]) == Bars(open=0.9, closed=0.2)


def test_bars_decide_what_evidence_means():
    numbers = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(6, 64, generator=numbers), dim=1) * 8
    labels = torch.arange(6).repeat(40)
    images = centres[labels] + torch.randn(240, 64, generator=numbers)
    seen = look_for_unknown(images, labels, images + 0.1, 6, 0.05, 6)

    def with_bars(open: float, closed: float) -> Openness:
        return look_for_unknown(images, labels, images + 0.1, 6, 0.05, 6, Bars(open, closed)).openness

    assert with_bars(seen.evidence - 1e-6, 0.0) == Openness.OPEN
    assert with_bars(seen.evidence + 1e-6, 0.0) == Openness.UNSURE
    assert with_bars(seen.evidence + 1e-3, seen.evidence + 1e-6) == Openness.CLOSED


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Dataset[ImageFormat]:
    """The clean digits, small."""
    from sslflow.ingest.images.prepare import prepare

    folder = tmp_path_factory.mktemp("digits") / "clean"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        prepare(folder, lambda _: None, source="samples:digits/clean", image_size=12, channels=1, workers=1)
    return Dataset[ImageFormat](Path(folder))


def test_shifted_features_repeat_and_are_of_images_that_differ(clean):
    encoder, rows = Encoder(1, 12, name="resnet10", width=4, stem_stride=2), np.arange(300)
    seen = []
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    state = torch.get_rng_state()
    first = shifted_features(encoder, clean, rows, CPU, "medium")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.cat(seen).mean() == pytest.approx(0, abs=1e-4)
    assert torch.cat(seen).std() == pytest.approx(1, abs=1e-3)
    assert torch.equal(first, shifted_features(encoder, clean, rows, CPU, "medium", batch_size=256))
    assert first.shape == (300, encoder.dim)
    assert not torch.equal(first, shifted_features(encoder, clean, rows, CPU, "strong"))
    assert set(SHIFTS) == {"slight", "medium", "strong"}


def test_bars_of_a_source_are_found_without_a_target_or_said_not_to_be(clean):
    torch.manual_seed(0)
    encoder, rows = Encoder(1, 12, name="resnet10", width=4, stem_stride=2), np.flatnonzero(clean.labels >= 0)[:400]
    labels = torch.from_numpy(clean.labels[rows])
    found = bars_of_source(encoder, clean, rows, labels, CPU, settings={})
    assert found is not None
    assert 0 <= found.closed <= found.open
    assert found == bars_of_source(encoder, clean, rows, labels, CPU, settings={})
    assert bars_of_source(encoder, clean, rows, labels % 4, CPU, settings={}) is None
    few = np.concatenate([rows[labels.numpy() == number][:1] for number in range(10)])
    assert bars_of_source(encoder, clean, few, torch.arange(10), CPU, settings={}) is None


def test_features_of_simulated_tasks_are_worked_out_with_the_settings_of_extract(clean):
    torch.manual_seed(0)
    encoder, rows = Encoder(1, 12, name="resnet10", width=4, stem_stride=2), np.flatnonzero(clean.labels >= 0)[:400]
    seen = []
    handle = encoder.register_forward_hook(lambda _, inputs, found: seen.append((len(inputs[0]), found.dtype)))
    settings = {"batch_size": 100, "precision": "bf16"}
    assert bars_of_source(encoder, clean, rows, torch.from_numpy(clean.labels[rows]), CPU, settings=settings)
    assert set(seen) == {(100, torch.bfloat16)}
    handle.remove()
    exact, rough = (
        shifted_features(encoder, clean, rows, CPU, "medium", precision=precision) for precision in ("fp32", "bf16")
    )
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0.1, atol=0.1)
