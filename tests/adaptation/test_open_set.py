"""Open-set scores are what loops over the images say, and what scikit-learn says where it has them."""

from __future__ import annotations

import itertools

import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score, roc_auc_score
from torch import Tensor

from sslflow.examination.adaptation.open_set import UNKNOWN, best_threshold, open_set_scores

KNOWN = {"accuracy", "accuracy_closed", "class_accuracy_closed", "known_rejected", "os_star"}
BOTH = {"os", "h", "auroc", "oscr"}


def images(seed: int, count: int = 40, classes: int = 4, steps: int = 8) -> dict[str, Tensor]:
    """Random decisions, right more often than not, on images of some classes; unknownness has few values."""
    numbers = torch.Generator().manual_seed(seed)

    def drawn(low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count,), generator=numbers)

    actual = drawn(-2, classes).clamp(min=UNKNOWN)
    actual[actual == 1] = 2  # a class that the source has and the target lacks
    closed = torch.where(drawn(0, 3) > 0, actual, drawn(0, classes)).clamp(min=0)
    unknownness = (drawn(0, steps) + (actual == UNKNOWN) * drawn(0, steps)) / steps
    predicted = torch.where(unknownness > 0.6, UNKNOWN, closed)
    return {"actual": actual, "predicted": predicted, "closed": closed, "unknownness": unknownness}


def slow(actual: Tensor, predicted: Tensor, closed: Tensor, unknownness: Tensor) -> dict[str, float]:
    """The same scores, image by image and pair by pair."""
    rows = list(zip(*(column.tolist() for column in (actual, predicted, closed, unknownness)), strict=True))
    known, unknown = [row for row in rows if row[0] != UNKNOWN], [row for row in rows if row[0] == UNKNOWN]
    found = {"rejected": mean([row[1] == UNKNOWN for row in rows])}
    each, each_closed = [], []
    for number in sorted({row[0] for row in known}):
        each.append(mean([row[1] == number for row in known if row[0] == number]))
        each_closed.append(mean([row[2] == number for row in known if row[0] == number]))
    if known:
        found["accuracy"] = mean([row[1] == row[0] for row in known])
        found["accuracy_closed"] = mean([row[2] == row[0] for row in known])
        found["known_rejected"] = mean([row[1] == UNKNOWN for row in known])
        found["os_star"], found["class_accuracy_closed"] = mean(each), mean(each_closed)
    if unknown:
        found["unk"] = mean([row[1] == UNKNOWN for row in unknown])
    if known and unknown:
        found["os"] = mean([*each, found["unk"]])
        total = mean(each) + found["unk"]
        found["h"] = 2 * mean(each) * found["unk"] / total if total else 0.0
        pairs = [(one, other) for one in known for other in unknown]
        found["auroc"] = mean([(one[3] < other[3]) + (one[3] == other[3]) / 2 for one, other in pairs])
        # The curve of Dhamija et al., a point for each threshold, and the trapezoids under it.
        points = [(0.0, 0.0)]
        for threshold in sorted({row[3] for row in rows}):
            wrongly = mean([row[3] <= threshold for row in unknown])
            points.append((wrongly, mean([row[2] == row[0] and row[3] <= threshold for row in known])))
        found["oscr"] = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))
    return found


def mean(values: list) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("steps", [3, 10_000])
def test_scores_are_those_of_loops(seed: int, steps: int):
    given = images(seed, steps=steps)
    assert open_set_scores(**given) == pytest.approx(slow(**given), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_auroc_is_scikit_learn_s(seed: int):
    given = images(seed)
    expected = roc_auc_score((given["actual"] == UNKNOWN).numpy(), given["unknownness"].numpy())
    assert open_set_scores(**given)["auroc"] == pytest.approx(expected, abs=1e-12)


def test_scores_by_hand():
    actual = torch.tensor([0, 0, 0, 0, 2, 2, UNKNOWN, UNKNOWN])
    predicted = torch.tensor([0, 0, 0, UNKNOWN, 2, 1, UNKNOWN, 0])
    closed = torch.tensor([0, 0, 0, 0, 2, 1, 1, 0])
    unknownness = torch.tensor([0.1, 0.2, 0.3, 0.8, 0.4, 0.5, 0.9, 0.4])
    found = open_set_scores(actual, predicted, closed, unknownness)
    assert found == pytest.approx(
        {
            "accuracy": 4 / 6,
            "accuracy_closed": 5 / 6,
            "os_star": (3 / 4 + 1 / 2) / 2,
            "class_accuracy_closed": (1 + 1 / 2) / 2,
            "known_rejected": 1 / 6,
            "unk": 1 / 2,
            "os": (3 / 4 + 1 / 2 + 1 / 2) / 3,
            "h": 2 / (1 / 0.625 + 1 / 0.5),
            # Below 0.9 lie all six known images; below 0.4 lie three and the half of one that is equal.
            "auroc": (6 + 3.5) / 12,
            "oscr": (5 + 3.5) / 12,
            "rejected": 2 / 8,
        }
    )


def test_groups_of_unknown_images():
    given = images(0, count=60)
    unknown = given["actual"] == UNKNOWN
    fine = torch.where(unknown, torch.arange(60) % 3 + 10, torch.arange(60))
    groups = torch.where(given["predicted"] == UNKNOWN, torch.arange(60) // 2 % 4, -1)
    found = open_set_scores(**given, groups=groups, actual_group=fine)
    expected = normalized_mutual_info_score(fine[unknown].numpy(), groups[unknown].numpy())
    assert 0.01 < expected < 1
    assert found["nmi_unknown"] == pytest.approx(expected)
    assert found["h3"] == pytest.approx(3 / sum(1 / found[name] for name in ("os_star", "unk", "nmi_unknown")))
    assert {name: found[name] for name in found if name not in ("nmi_unknown", "h3")} == open_set_scores(**given)


def test_rejecting_less_is_no_way_to_better_groups():
    actual, unknownness = torch.tensor([0, *[UNKNOWN] * 6]), torch.linspace(0, 1, 7)
    fine, closed = torch.tensor([0, 1, 1, 1, 2, 2, 2]), torch.zeros(7).long()
    all_of_them = torch.tensor([-1, 0, 0, 0, 1, 1, 1])
    few = torch.tensor([-1, 0, -1, -1, 1, -1, -1])
    scores = [
        open_set_scores(actual, torch.where(groups >= 0, UNKNOWN, 0), closed, unknownness, groups, fine)["nmi_unknown"]
        for groups in (all_of_them, few)
    ]
    assert scores[0] == pytest.approx(1.0)
    assert scores[1] < 0.6


def test_one_unknown_class_has_no_groups_to_score():
    given = images(0)
    one = torch.full((40,), 7)
    found = open_set_scores(**given, groups=torch.where(given["predicted"] == UNKNOWN, 0, -1), actual_group=one)
    assert set(found) == KNOWN | BOTH | {"rejected", "unk"}


def test_scores_of_what_is_missing_are_absent():
    given = images(1)
    unknown = given["actual"] == UNKNOWN
    groups = {"groups": torch.arange(40) % 3, "actual_group": torch.arange(40) % 3}
    for mask, names in ((~unknown, KNOWN | {"rejected"}), (unknown, {"rejected", "unk", "nmi_unknown"})):
        found = open_set_scores(**{name: column[mask] for name, column in (given | groups).items()})
        assert set(found) == names
        rest = slow(**{name: column[mask] for name, column in given.items()})
        assert {name: score for name, score in found.items() if name in rest} == pytest.approx(rest)
    assert set(open_set_scores(**given)) == KNOWN | BOTH | {"rejected", "unk"}


def test_perfect_and_hopeless():
    actual = torch.tensor([0, 0, 1, 5, UNKNOWN, UNKNOWN])
    unknownness = (actual == UNKNOWN).double()
    best = open_set_scores(actual, actual, actual.clamp(min=0), unknownness, torch.arange(6), torch.arange(6))
    rejections = {"known_rejected": 0.0, "rejected": 1 / 3}
    assert best == pytest.approx(dict.fromkeys(best, 1.0) | rejections)
    assert max(best.values()) <= 1
    wrong = torch.tensor([1, 1, 0, 0, 0, 0])
    worst = open_set_scores(actual, wrong, wrong, -unknownness)
    assert worst == dict.fromkeys(worst, 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_images_does_not_matter(seed: int):
    given = images(seed, count=500, classes=20)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(seed))
    mixed = {name: column[order] for name, column in given.items()}
    assert open_set_scores(**mixed) == pytest.approx(open_set_scores(**given), abs=1e-12)
    del given["predicted"], mixed["predicted"]
    assert best_threshold(**mixed) == pytest.approx(best_threshold(**given), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("steps", "part"), [(3, "both"), (10_000, "both"), (8, "known"), (8, "unknown")])
def test_best_threshold_is_that_of_trying_them_all(seed: int, steps: int, part: str):
    given = images(seed, steps=steps)
    unknown = given["actual"] == UNKNOWN
    mask = {"both": unknown | ~unknown, "known": ~unknown, "unknown": unknown}[part]
    actual, closed, unknownness = (given[name][mask] for name in ("actual", "closed", "unknownness"))
    criterion = {"both": "h", "known": "accuracy", "unknown": "unk"}[part]
    everything = unknownness.min().nextafter(torch.tensor(-1.0))
    tried = {}
    for cut in [float(everything), *unknownness.unique().tolist()]:
        tried[cut] = slow(actual, torch.where(unknownness > cut, UNKNOWN, closed), closed, unknownness)[criterion]
    threshold, score = best_threshold(actual, closed, unknownness)
    assert score == pytest.approx(max(tried.values()), abs=1e-12)
    assert threshold == max(cut for cut, reached in tried.items() if reached > score - 1e-12)
    reached = open_set_scores(actual, torch.where(unknownness > threshold, UNKNOWN, closed), closed, unknownness)
    assert reached[criterion] == pytest.approx(score, abs=1e-12)


def test_of_equally_good_thresholds_the_highest_is_taken():
    """Ten known images of three classes, all right and far below; then wrong ones; then an unknown one."""
    actual = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 0, 1, 2, UNKNOWN])
    closed = torch.where(torch.arange(14) < 10, actual, 3)
    unknownness = torch.arange(14).double()
    threshold, score = best_threshold(actual, closed, unknownness)
    assert threshold == 12.0
    for seed in range(20):
        # In another order, sums of the same terms differ in their last bits: that must not decide.
        low = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
        mixed = torch.cat([unknownness[low], unknownness[10:]])
        assert best_threshold(actual, closed, mixed) == (12.0, pytest.approx(score))


def test_no_score_is_above_one():
    # 26 classes of one or two images: the weights sum to a last bit more than 1.
    actual = torch.cat([torch.arange(26), torch.arange(13), torch.tensor([UNKNOWN])])
    unknownness = (actual == UNKNOWN).float()
    found = open_set_scores(actual, actual, actual.clamp(min=0), unknownness)
    assert max(found.values()) == 1.0
    assert best_threshold(actual, actual.clamp(min=0), unknownness) == (0.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("least", [0.0, 1e10, -3.7])
def test_the_threshold_that_rejects_everything_does(dtype: torch.dtype, least: float):
    unknownness = torch.tensor([least, least], dtype=dtype)
    threshold, score = best_threshold(torch.tensor([UNKNOWN, UNKNOWN]), torch.tensor([0, 1]), unknownness)
    assert (unknownness > threshold).all()
    assert score == 1.0


def test_a_million_images_are_scored_in_time():
    numbers = torch.Generator().manual_seed(0)
    actual = torch.randint(-1, 300, (1_000_000,), generator=numbers)
    unknownness = torch.rand(1_000_000, generator=numbers, dtype=torch.float64)
    closed = actual.clamp(min=0)
    threshold, score = best_threshold(actual, closed, unknownness)
    predicted = torch.where(unknownness > threshold, UNKNOWN, closed)
    found = open_set_scores(actual, predicted, closed, unknownness)
    # By chance alone: half of the known are kept and half of the unknown rejected.
    assert found["h"] == pytest.approx(score, abs=1e-9)
    assert score == pytest.approx(0.5, abs=0.02)
    assert found["oscr"] == pytest.approx(0.5, abs=0.02)


def test_what_cannot_be_scored_is_refused():
    given = images(0)
    nothing = {name: column[:0] for name, column in given.items()}
    with pytest.raises(ValueError, match="no images to score"):
        open_set_scores(**nothing)
    with pytest.raises(ValueError, match="no images to score"):
        best_threshold(nothing["actual"], nothing["closed"], nothing["unknownness"])
    for name in ("predicted", "closed", "unknownness"):
        with pytest.raises(ValueError, match=rf"{name} has shape \(39,\): expected \(40,\)"):
            open_set_scores(**given | {name: given[name][1:]})
    with pytest.raises(ValueError, match=r"actual holds -2"):
        open_set_scores(**given | {"actual": given["actual"] - 1})
    with pytest.raises(ValueError, match="come together"):
        open_set_scores(**given, groups=given["closed"])
    for wrong in (float("nan"), float("inf")):
        given["unknownness"][3] = wrong
        with pytest.raises(ValueError, match=r"not finite .* for 1 of 40 images"):
            open_set_scores(**given)
