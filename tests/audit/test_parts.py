"""The parts of the audit, each against planted faults or a slow reference."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sslflow.audit.copies import families, near_copies
from sslflow.audit.features import DIRECTIONS, reduced
from sslflow.audit.looks import odd, survey
from sslflow.audit.neighbours import nearest
from sslflow.audit.suspects import out_of_fold, suspects
from tests.conftest import first_images, write_dataset


def saved_again(image: np.ndarray) -> np.ndarray:
    """Grey pixels after JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image[0]).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))[None]


def moved(image: np.ndarray) -> np.ndarray:
    """A pixel down and to the left; at the borders there is more of the same."""
    return np.pad(image, ((0, 0), (1, 0), (0, 1)), mode="edge")[:, :-1, 1:]


def darker(image: np.ndarray) -> np.ndarray:
    return (0.7 * image + 20).astype(np.uint8)


def pairs_of(images: np.ndarray, groups: Tensor | None = None) -> dict[tuple[int, int], float]:
    small = torch.from_numpy(images)
    groups = torch.arange(len(images)) if groups is None else groups
    features = small.flatten(1).float()
    blank = small.flatten(1).float().std(dim=1) < 3
    return {(a, b): alike for a, b, alike in near_copies(small, groups, features - features.mean(dim=0), blank)}


@pytest.mark.parametrize("change", [saved_again, moved, darker])
def test_copies_are_found_and_hardly_anything_else(change) -> None:
    images, _ = first_images(300)
    copies = np.stack([change(images[row]) for row in range(0, 300, 30)])
    before, after = pairs_of(images), pairs_of(np.concatenate([images, copies]))
    planted = {(30 * number, 300 + number) for number in range(10)}
    assert planted <= after.keys()
    assert len(before) <= 5, "others are of one kind, not copies"
    assert len(after.keys() - planted - before.keys()) <= 5
    assert all(0.98 <= after[pair] <= 1 for pair in planted)


def test_many_copies_of_one_picture_are_one_family() -> None:
    images, _ = first_images(200)
    rng = np.random.default_rng(0)
    copies = np.stack([np.clip(images[3] + rng.normal(0, 3, images[3].shape), 0, 255) for _ in range(30)])
    found = pairs_of(np.concatenate([images, copies.astype(np.uint8)]))
    family = families(230, [(a, b, 1.0) for a, b in found])
    assert set(family[200:]) == {3}


def test_images_of_one_group_and_blank_ones_are_no_copies() -> None:
    images, _ = first_images(50)
    both = np.concatenate([images, images[:2], np.zeros_like(images[:3])])
    groups = torch.arange(55)
    assert set(pairs_of(both, groups)) >= {(0, 50), (1, 51)}
    groups[50] = 0
    assert (0, 50) not in pairs_of(both, groups)
    assert not [pair for pair in pairs_of(both, groups) if pair[1] >= 52]


def test_what_only_differs_at_its_border_is_not_one_picture() -> None:
    """Within the border both are white, and of what is left by rounding everything may be made."""
    rng = np.random.default_rng(0)
    images = np.concatenate([first_images(40)[0], np.full((2, 1, 28, 28), 255, np.uint8)])
    images[40, 0, 0], images[41, 0, 27] = rng.integers(0, 255, (2, 28))
    assert (40, 41) not in pairs_of(images)


def test_two_plain_colours_do_not_make_copies() -> None:
    """Red with a few marks is as far from red with others as white with marks from white with others."""
    rng = np.random.default_rng(0)
    grey, _ = first_images(40)
    images = np.concatenate([grey, rng.integers(0, 60, (2, 1, 28, 28), dtype=np.uint8)]).repeat(3, axis=1)
    images[40:, 0] = 230
    assert (40, 41) not in pairs_of(images)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_images(count: int) -> None:
    images, _ = first_images(3)
    two = np.concatenate([images[:count], moved(images[0])[None]])
    assert set(pairs_of(two)) == {(0, count)}
    assert not pairs_of(images[:count])


def test_families_are_joined_through_others() -> None:
    assert families(6, [(4, 5, 1.0), (1, 2, 1.0), (2, 4, 1.0)]).tolist() == [0, 1, 1, 3, 1, 1]


def test_neighbours_are_those_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(700, 5, generator=generator)
    groups = torch.arange(700) // 2
    near, places = nearest(features, groups, 4)
    for row in (0, 1, 511, 512, 699):
        unit = features / features.norm(dim=1, keepdim=True)
        cosines = [(float(unit[row] @ unit[other]), other) for other in range(700) if other // 2 != row // 2]
        best = sorted(cosines, reverse=True)[:4]
        assert places[row].tolist() == [other for _, other in best]
        torch.testing.assert_close(near[row], torch.tensor([one for one, _ in best]))


def test_pictures_that_stand_out(tmp_path) -> None:
    images = np.random.default_rng(0).integers(60, 200, (90, 3, 16, 16)).astype(np.uint8)
    images[0] = 77
    images[1] = 5 + images[1] // 10
    images[2] = 230 + images[2] // 10
    images[3] = np.asarray(Image.fromarray(images[3].transpose(1, 2, 0)).resize((4, 4)).resize((16, 16))).transpose(
        2, 0, 1
    )
    images[4] = images[4, :1]
    dataset = write_dataset(tmp_path / "prepared", images, np.zeros(90, np.int64), ["train"] * 90)
    looks, small = survey(dataset, np.arange(90))
    assert small.shape == images.shape
    widths, heights = np.full(90, 30), np.full(90, 20)
    widths[5], heights[6] = 100, 14
    found = [(one.kind, one.place) for one in odd(looks, widths, heights, 16, 3)]
    assert [one for one in found if one[0] != "blurred"] == [
        ("blank", 0), ("dark", 1), ("bright", 2), ("grey", 4), ("odd shape", 5), ("enlarged", 6)
    ]  # fmt: skip
    assert ("blurred", 3) in found
    assert odd(looks, widths, heights, 64, 3)[-1].kind != "enlarged", "all of them are"


def test_a_set_that_is_dark_has_no_dark_pictures(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 12, (40, 1, 16, 16)).astype(np.uint8)
    images[:, :, 4, 4] = 255
    dataset = write_dataset(tmp_path / "prepared", images, np.zeros(40, np.int64), ["train"] * 40)
    looks, _ = survey(dataset, np.arange(40))
    assert looks.brightness.max() < 0.1
    assert not [one for one in odd(looks, np.full(40, 16), np.full(40, 16), 16, 1) if one.kind == "dark"]


def slow_suspects(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int, float]]:
    """Confident learning as the paper tells it, row by row."""
    classes = range(probabilities.shape[1])
    means = {}
    for one in classes:
        own = [probabilities[row, one] for row in range(len(labels)) if labels[row] == one]
        if own:
            means[one] = sum(own) / len(own)
    found = []
    for row, label in enumerate(labels.tolist()):
        confident = [one for one in classes if one in means and probabilities[row, one] >= means[one]]
        if not confident:
            continue
        likely = max(confident, key=lambda one: probabilities[row, one])
        other = max(probabilities[row, one] for one in classes if one != label)
        if likely != label and probabilities[row, likely] == max(probabilities[row]):
            found.append((row, likely, probabilities[row, label] - other))
    return sorted(found, key=lambda one: one[2])


@pytest.mark.parametrize("seed", range(5))
def test_suspects_are_those_of_the_paper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 80)
    logits = rng.normal(size=(80, 5)) + 2 * np.eye(5)[labels]  # the fifth class has no row
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    places, likely, margin = suspects(probabilities, labels)
    expected = slow_suspects(probabilities, labels)
    assert 0 < len(expected) < 60
    assert list(zip(places.tolist(), likely.tolist(), strict=True)) == [one[:2] for one in expected]
    np.testing.assert_allclose(margin, [one[2] for one in expected])


def test_shuffled_labels_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(300) % 3
    features = 4 * torch.eye(3)[true] + torch.randn(300, 3, generator=generator)
    labels = true.clone()
    labels[:15] = (true[:15] + 1) % 3
    probabilities = out_of_fold(features, labels, 3, folds=5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    places, likely, _ = suspects(probabilities, labels.numpy())
    assert set(places[:13].tolist()) <= set(range(15))
    right = {place: one for place, one in zip(places.tolist(), likely.tolist(), strict=True) if place < 15}
    assert len(right) >= 13
    assert right == {place: int(true[place]) for place in right}


def test_no_row_is_judged_by_a_classifier_that_saw_it() -> None:
    """Each row has a feature of its own, by which a classifier would know it by heart."""
    labels = torch.arange(40) % 2
    probabilities = out_of_fold(torch.eye(40), labels, 2, folds=4)
    assert (probabilities.argmax(axis=1) == labels.numpy()).mean() < 0.8


def test_two_images_of_a_class_are_in_two_folds() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1, 2, 2])
    features = torch.eye(3)[labels]
    assert (out_of_fold(features, labels, 3, folds=5).argmax(axis=1) == labels.numpy()).all()


def test_features_keep_their_distances_and_those_that_are_not_finite_are_told() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 20, generator=generator)
    table[7, 3], table[9, 0] = torch.nan, torch.inf
    small, finite = reduced(lambda rows: table[torch.from_numpy(rows)], np.arange(50))
    assert np.flatnonzero(~finite).tolist() == [7, 9]
    assert small.shape[1] <= min(DIRECTIONS, 20)
    good = torch.from_numpy(finite)
    torch.testing.assert_close(torch.pdist(small[good]), torch.pdist(table[good]), atol=1e-3, rtol=1e-3)
    assert not small[~good].any()
    nothing, finite = reduced(lambda rows: torch.full((len(rows), 4), torch.nan), np.arange(3))
    assert (len(nothing), finite.any()) == (3, False)
