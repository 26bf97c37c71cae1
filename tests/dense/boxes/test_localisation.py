"""Places that stand out: known maps, known points, known boxes; and an encoder's on small images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat, described
from sslflow.data.truth import Annotated, Things, truth_facts, write_truth
from sslflow.dense.boxes.localisation import highest, inside, localise, share_covered, standing_out
from sslflow.ingest.images.prepare import COLUMNS
from sslflow.ingest.shards import ShardWriter
from sslflow.networks.encoder import Encoder
from sslflow.networks.stages import Stages
from sslflow.runtime.files import write_json
from tests.box_fixtures import NOTHING, SIDE, prepared

CPU = torch.device("cpu")


def things(*boxes: tuple[float, float, float, float], ignored: tuple[int, ...] = ()) -> Things:
    return Things(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros(len(boxes), np.int64),
        np.isin(np.arange(len(boxes)), ignored),
    )


def test_the_vector_that_differs_stands_out_whatever_is_usual_at_its_place():
    torch.manual_seed(0)
    usual = torch.randn(5, 3, 4)
    maps = usual.repeat(2, 1, 1, 1)
    maps[0, :, 2, 1] += 3.0
    maps[1, 4, 0, 3] -= 0.5
    scores = standing_out(maps, usual)
    assert scores.shape == (2, 3, 4)
    # one of 12 places differs by 3 along each of 5 axes, from a mean that it moves by a twelfth of that
    assert scores[0, 2, 1].item() == pytest.approx(3 * 5**0.5 * 11 / 12, abs=1e-5)
    assert scores[0, 0, 0].item() == pytest.approx(3 * 5**0.5 / 12, abs=1e-5)
    assert scores[1, 0, 3].item() == pytest.approx(0.5 * 11 / 12, abs=1e-5)


def test_what_all_of_an_image_shares_does_not_stand_out():
    torch.manual_seed(0)
    maps, usual = torch.randn(3, 6, 4, 4), torch.randn(6, 4, 4)
    lit = maps + torch.randn(3, 6, 1, 1)
    torch.testing.assert_close(standing_out(lit, usual), standing_out(maps, usual))


def test_the_point_is_the_middle_of_the_highest_place():
    scores = torch.zeros(3, 2, 4)
    scores[0, 1, 3] = scores[1, 0, 0] = scores[2, 1, 0] = 1.0
    assert highest(scores, 64).tolist() == [[56.0, 48.0], [8.0, 16.0], [8.0, 48.0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_an_error(value: float):
    scores = torch.zeros(2, 3, 3)
    scores[1, 2, 2] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        highest(scores, 32)


def test_a_point_is_in_a_box_from_its_left_and_top_edge_to_before_its_right_and_bottom_one():
    box = things((4, 8, 10, 12))
    points = [(4, 8), (9.5, 11.5), (10, 9), (5, 12), (3.9, 9), (5, 7.9)]
    found = inside(np.array(points, np.float32), [box] * len(points))
    assert found.tolist() == [True, True, False, False, False, False]


def test_any_box_of_the_points_own_image_will_do_but_ignored_ones():
    two = [(0, 0, 4, 4), (8, 8, 12, 12)]
    shown = [things(*two), things(*two, ignored=(1,)), things(), things(*reversed(two))]
    assert inside(np.full((4, 2), 9.0, np.float32), shown).tolist() == [True, False, False, True]


def test_a_random_point_is_in_what_boxes_cover_together():
    assert share_covered(things((0, 0, 4, 4), (2, 2, 6, 6)), 8) == 28 / 64
    assert share_covered(things((0, 0, 4, 4), (2, 2, 6, 6), ignored=(1,)), 8) == 16 / 64
    assert share_covered(things(), 8) == 0
    assert share_covered(things((0, 0, 8, 8)), 8) == 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Of the test images one shows nothing, one only what is ignored."""

    def change(number: int, split: str, shown: Things) -> Things:
        if split == "test" and number == 3:
            return NOTHING
        return Things(shown.boxes, shown.labels, shown.ignored | (split == "test" and number == 5))

    return prepared(tmp_path_factory.mktemp("boxes"), 24, 16, change)


def encoder(name: str, **settings) -> Encoder:
    torch.manual_seed(0)
    return Encoder(3, SIDE, name=name, **settings)


def test_the_encoders_map_points_at_things(dataset: Dataset):
    found = localise(encoder("resnet10", width=8, stem_stride=1), dataset, CPU)
    test = dataset.annotated_rows("test", "boxes")
    assert found.rows.tolist() == np.delete(test, [3, 5]).tolist()
    assert found.without == 2
    shown = dataset.truth.things(found.rows) if dataset.truth else []
    np.testing.assert_array_equal(found.hit, inside(found.points, shown))
    np.testing.assert_array_equal(found.centre, inside(np.full((14, 2), SIDE / 2), shown))
    np.testing.assert_array_equal(found.covered, [share_covered(one, SIDE) for one in shown])
    assert found.pixels.all()  # they are red and blue on grey
    assert found.hit.mean() > max(0.5, found.covered.mean(), found.centre.mean())


def flat(folder: Path, train: list[np.ndarray], test: np.ndarray, box: tuple[int, int, int, int]) -> Dataset:
    """Images of colours that vary in steps of two pixels, `(side / 2, side / 2, 3)`, and one in which to look."""
    known, form = {}, ImageFormat(3, SIDE, (0.5,) * 3, (0.25,) * 3)
    with ShardWriter(folder, {"images": ("|u1", (3, SIDE, SIDE))}, COLUMNS, measured="images") as writer:
        for number, cells in enumerate([*train, test]):
            split = "test" if number == len(train) else "train"
            image = cells.repeat(2, axis=0).repeat(2, axis=1).transpose(2, 0, 1).astype(np.uint8)
            facts = {"path": str(number), "group": str(number), "label": -1, "sha256": "", "pixels": ""}
            row = writer.add({"images": image}, {**facts, "split": split, "width": SIDE, "height": SIDE})
            known[row] = Annotated(things=things(box))
    write_truth(folder, known)
    write_json(folder / "dataset.json", {**described(form, ()), "truth": truth_facts((), ("spot",))})
    return Dataset(folder)


def test_what_is_usual_is_learnt_from_images_to_pretrain_on_and_pixels_are_asked_by_the_same_formula(
    tmp_path: Path,
) -> None:
    """One image is lighter than those to pretrain on, but for a place, which is found. What differs most from the rest
    of the image is there in all images, and what differs most from what is usual is another place."""
    half = SIDE // 2
    usual = np.full((half, half, 3), 40)
    usual[2, 3] = 180
    test = usual + 60
    test[10, 12] = usual[10, 12]
    test[5, 12] += 30
    found = localise(
        encoder("resnet10", width=8, stem_stride=1),
        flat(tmp_path, [usual, usual], test, (24, 20, 26, 22)),
        CPU,
    )
    assert found.pixels.tolist() == [True]


@pytest.mark.parametrize(("stride", "rows"), [(1, 8), (2, 8), (4, 8)])
def test_of_several_maps_the_last_is_taken_on_which_places_are_small(dataset: Dataset, stride: int, rows: int):
    asked = encoder("resnet10", width=8, stem_stride=stride)
    assert rows in Stages(asked).across
    places = localise(asked, dataset, CPU).points / (SIDE / rows) - 0.5
    np.testing.assert_array_equal(places, places.round())


def test_a_vit_is_asked_where_it_attends_to(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    def attention(self: Encoder, images: torch.Tensor) -> torch.Tensor:
        """To the place with the reddest pixels."""
        red = images[:, 0] - images[:, 2]
        return torch.nn.functional.max_pool2d(red[:, None], 4)[:, 0]

    monkeypatch.setattr(Encoder, "attention", attention)
    found = localise(encoder("vit_tiny", width=64, depth=1, patch_size=8), dataset, CPU)
    squares = [one.boxes[0] for one in dataset.truth.things(found.rows)] if dataset.truth else []
    assert len(squares) == 14
    for (x, y), (left, top, right, bottom) in zip(found.points, squares, strict=True):
        assert left - 4 < x < right + 4
        assert top - 4 < y < bottom + 4


def test_answers_come_again_and_change_no_weights(dataset: Dataset):
    asked = encoder("resnet10", width=8, stem_stride=2)
    before = {name: weights.clone() for name, weights in asked.state_dict().items()}
    first, second = localise(asked, dataset, CPU), localise(asked, dataset, CPU)
    np.testing.assert_array_equal(first.points, second.points)
    torch.testing.assert_close(dict(asked.state_dict()), before, rtol=0, atol=0)
