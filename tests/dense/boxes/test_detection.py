"""Things learnt from a few images: which images, at what rates, and what is said where it can't be done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from box_fixtures import CLASSES, NOTHING, SIDE, prepared

from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.truth import Things
from sslflow.dense.average_precision import average_precision, matched
from sslflow.dense.boxes.detection import Detected, detect, require_boxes, targets_of
from sslflow.dense.rows import annotated_subset
from sslflow.networks.encoder import Encoder
from sslflow.runtime.rng import derive

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"width": 16, "epochs": 1, "min_steps": 2, "batch_size": 4}


def encoder() -> Encoder:
    torch.manual_seed(derive(0, "init"))
    return Encoder(3, SIDE, name="resnet10", width=8, stem_stride=2)


def ran(dataset: Dataset, *protocols: Any, **settings: Any) -> list[Detected]:
    scratch = settings.pop("from_scratch", False)
    return list(detect(encoder, dataset, CPU, 0, protocols or ("frozen", "tuned"), scratch, **{**SHORT, **settings}))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(tmp_path_factory.mktemp("squares"), train=8, test=6)


def test_squares_and_bars_are_found_in_new_images(squares: Dataset) -> None:
    (found,) = ran(
        squares, "tuned", fractions=(1.0,), min_steps=40, batch_size=8, lr=1e-2, encoder_lr=1e-2, smallest=0.8
    )
    assert (found.images, found.things, found.steps) == (8, (8, 8), 40)
    assert found.at_half > 0.4
    assert found.loss < 0.8
    assert found.mean < found.at_half
    truth = squares.truth
    assert truth is not None
    things = truth.things(squares.annotated_rows("test", "boxes"))
    again = average_precision(matched(things, found.found, 2))
    assert (found.mean, found.at_half) == (again[0].item(), again[1].item())
    assert found.found.boxes.min() >= 0
    assert found.found.boxes.max() <= SIDE
    assert not found.detector.training


def test_a_frozen_encoder_keeps_every_bit_and_a_tuned_one_does_not(squares: Dataset) -> None:
    before = encoder().state_dict()
    frozen, tuned = ran(squares, fractions=(1.0,))
    kept = frozen.detector.encoder.state_dict()
    assert all(torch.equal(weights, kept[name]) for name, weights in before.items())
    moved = tuned.detector.encoder.state_dict()
    same = [name for name, weights in before.items() if torch.equal(weights, moved[name])]
    assert not [name for name in same if "weight" in name]


def test_a_run_has_the_same_bits_again_and_smaller_shares_are_parts_of_larger_ones(squares: Dataset) -> None:
    first = ran(squares, fractions=(0.25, 0.26, 1.0))
    assert [(one.protocol, one.fraction, one.images) for one in first] == [
        ("frozen", 0.25, 2),
        ("tuned", 0.25, 2),
        ("frozen", 1.0, 8),
        ("tuned", 1.0, 8),
    ]
    few, more = (set(annotated_subset(squares, "boxes", share, 0).tolist()) for share in (0.25, 0.5))
    assert few < more < set(annotated_subset(squares, "boxes", 1.0, 0).tolist())
    alone = ran(squares, "tuned", fractions=(0.25,))
    assert alone[0].loss == first[1].loss
    np.testing.assert_array_equal(alone[0].found.boxes, first[1].found.boxes)


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"encoder_lr": 2e-4}, {2e-4}),
        ({"encoder_lr": 2e-4, "scratch_lr": 5e-4, "from_scratch": True, "layer_decay": 0.5}, {5e-4}),
        ({"encoder_lr": 2e-4, "layer_decay": 0.5}, {2e-4 * 0.5**depth for depth in range(5)}),
    ],
)
def test_the_encoder_learns_at_its_own_rate(
    squares: Dataset, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], rates: set[float]
) -> None:
    groups: list[dict[str, Any]] = []

    class Recorded(torch.optim.AdamW):
        def __init__(self, params: list[dict[str, Any]], **options: Any) -> None:
            groups.extend({**group, "params": list(group["params"])} for group in params)
            super().__init__(
                [{**group, "params": own["params"]} for group, own in zip(params, groups, strict=True)], **options
            )

    monkeypatch.setattr(torch.optim, "AdamW", Recorded)
    (found,) = ran(squares, "tuned", fractions=(0.25,), lr=1e-2, **settings)
    heads, *rest = groups
    assert heads["peak"] == 1e-2
    assert {group["peak"] for group in rest} == rates
    learnt = {id(weights) for group in groups for weights in group["params"]}
    assert learnt == {id(weights) for weights in found.detector.parameters()}


def test_empty_places_and_ignored_things_are_told_apart() -> None:
    boxes = torch.arange(12.0).reshape(1, 3, 4)
    fields = Fields(boxes=boxes, labels=torch.tensor([[1, 0, -1]]), ignored=torch.tensor([[False, True, False]]))
    (found,) = targets_of(fields)
    assert {name: values.tolist() for name, values in found.items()} == {
        "boxes": [[0, 1, 2, 3]],
        "labels": [1],
        "ignored": [[4, 5, 6, 7]],
    }


def ignored(number: int, split: str, things: Things) -> Things:
    return Things(things.boxes, things.labels, np.ones(2, np.bool_))


Change = Callable[[int, str, Things], Things | None]
UNUSABLE: dict[str, tuple[int, int, Change, str]] = {
    "no boxes at all": (2, 2, lambda number, split, things: None, "images with boxes to train on and to test on"),
    "no test image": (2, 0, lambda number, split, things: things, "images with boxes to train on and to test on"),
    "a single image": (1, 2, lambda number, split, things: things, "2 training images with boxes at least"),
    "nothing there": (
        3,
        2,
        lambda number, split, things: NOTHING if split == "train" else things,
        "nothing to learn from: in none of the annotated train images",
    ),
    "all ignored": (
        3,
        2,
        lambda number, split, things: ignored(number, split, things) if split == "test" else things,
        "nothing to test on: in none of the annotated test images",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_can_not_be_learnt_is_said_at_once(tmp_path: Path, case: str) -> None:
    train, test, change, said = UNUSABLE[case]
    dataset = prepared(tmp_path, train, test, change)
    with pytest.raises(ValueError, match=said):
        require_boxes(dataset)
    with pytest.raises(ValueError, match=said):
        ran(dataset, fractions=(1.0,))


def test_a_share_without_a_thing_is_said(tmp_path: Path) -> None:
    dataset = prepared(
        tmp_path, 40, 2, lambda number, split, things: NOTHING if split == "train" and number else things
    )
    with pytest.raises(
        ValueError, match=r"detect\.fractions: in 0\.05 of the images with boxes \(2\) there is nothing"
    ):
        ran(dataset, fractions=(0.05,))


def test_one_class_and_images_without_anything_are_enough(tmp_path: Path) -> None:
    def change(number: int, split: str, things: Things) -> Things:
        return NOTHING if number % 2 else Things(things.boxes[:1], things.labels[:1], things.ignored[:1])

    (found,) = ran(prepared(tmp_path, 4, 3, change, classes=CLASSES[:1]), "frozen", fractions=(1.0,))
    assert (found.things, found.images) == ((2,), 4)
    assert 0 <= found.mean <= 1
    assert found.found.image.max(initial=0) <= 2


@pytest.mark.parametrize(
    ("protocol", "scratch", "rate"),
    [
        ("frozen", False, "lr"),
        ("tuned", False, r"encoder_lr or detect\.lr"),
        ("tuned", True, r"scratch_lr or detect\.lr"),
    ],
)
def test_a_loss_that_is_not_finite_is_said_with_the_rate_to_lower(
    squares: Dataset, protocol: str, scratch: bool, rate: str
) -> None:
    huge = {"lr": 1e30, "encoder_lr": 1e30, "scratch_lr": 1e30}
    with pytest.raises(ValueError, match=rf"not finite from step \d of 6 on; try a smaller detect\.{rate}"):
        ran(squares, protocol, fractions=(0.25,), min_steps=6, from_scratch=scratch, **huge)


def test_half_precision_is_for_the_network_alone(squares: Dataset) -> None:
    fine, coarse = (ran(squares, "tuned", fractions=(0.25,), precision=kind)[0] for kind in ("fp32", "bf16"))
    assert coarse.loss != fine.loss
    assert coarse.loss == pytest.approx(fine.loss, rel=0.05)
    assert coarse.found.boxes.dtype == np.float32
