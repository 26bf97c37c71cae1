"""A long tail of classes to train on, made of a source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_fixtures import fill, in_process

from sslflow.data.dataset import Dataset
from sslflow.data.splits import NO_LABEL, POOL, TEST, TRAIN
from sslflow.ingest.images import prepare as module
from sslflow.ingest.images.imbalance import long_tailed, profile, subset, train_sizes
from sslflow.ingest.images.prepare import prepare
from sslflow.ingest.records import Other, Record, Source
from sslflow.runtime.files import read_json
from sslflow.settings.params import ParamsError, read


def source(sizes: dict[str, int], **more: int) -> Source:
    """Records without pictures: for each class so many to train on, and three to test on."""
    items = [Record(f"t/{name}/{n}", TEST, Path(), label) for label, name in enumerate(sizes) for n in range(3)]
    for label, (name, size) in enumerate(sizes.items()):
        items += [Record(f"{name}/{n}", TRAIN, Path(), label) for n in range(size)]
    items += [Record(f"u/{n}", TRAIN, Path(), NO_LABEL) for n in range(more.get("unlabelled", 0))]
    items += [Record(f"p/{n}", POOL, Path(), 0) for n in range(more.get("pool", 0))]
    return Source(tuple(sizes), lambda: iter([*items, Other("notes.txt")]))


@pytest.mark.parametrize("factor", [1.5, 10, 50, 100])
def test_sizes_fall_exponentially_from_the_largest_to_the_smallest(factor):
    sizes = {f"class {number}": 1200 for number in range(10)}
    found = sorted(profile(sizes, factor, 0).values(), reverse=True)
    assert found == [round(1200 * factor ** (-rank / 9)) for rank in range(10)]
    assert found[0] / found[-1] == pytest.approx(factor, rel=0.05)


def test_which_class_is_large_is_drawn_by_the_seed_and_not_by_the_order_of_classes():
    names = [f"class {number}" for number in range(5)]
    tops = Counter(max(own := profile(dict.fromkeys(names, 100), 10, seed), key=own.__getitem__) for seed in range(300))
    assert min(tops[name] for name in names) > 35
    one = profile(dict.fromkeys(names, 100), 10, 3)
    assert one == profile(dict.fromkeys(reversed(names), 100), 10, 3)


@pytest.mark.parametrize("seed", range(5))
def test_classes_of_other_sizes_never_lack_images_and_as_many_as_can_be_are_kept(seed):
    sizes = {"a": 801, "b": 633, "c": 621, "d": 405, "e": 204, "f": 12}
    found = profile(sizes, 50, seed)
    assert all(1 <= found[name] <= sizes[name] for name in sizes)
    assert max(found.values()) == 600  # 50 times the 12 of the smallest
    assert found["f"] == 12


@pytest.mark.parametrize(("sizes", "most"), [((40, 40, 40), 40), ((100, 2, 50), 100), ((100, 1, 1), 1), ((9, 1), 9)])
def test_a_factor_larger_than_can_be_made_is_refused_and_the_largest_named(sizes, most):
    named = {f"class {place}": size for place, size in enumerate(sizes)}
    with pytest.raises(ValueError, match=rf"data\.imbalance = {most + 1}: .* without an image; .* {most} at most"):
        profile(named, most + 1, 0)
    assert min(profile(named, most, 0).values()) >= 1


def test_only_labelled_images_to_train_on_are_left_out_and_they_are_counted():
    whole = source({"cat": 40, "dog": 40}, unlabelled=7, pool=5)
    thinned, dropped = long_tailed(whole, 10, 0)
    kept, all_ = ([one for one in each.records() if isinstance(one, Record)] for each in (thinned, whole))
    assert sorted(train_sizes(thinned).values()) == [4, 40]
    assert dropped == len(all_) - len(kept) == 36
    for split, label in ((TEST, 0), (TEST, 1), (POOL, 0), (TRAIN, NO_LABEL)):
        counts = [sum(one.split == split and one.label == label for one in each) for each in (kept, all_)]
        assert counts[0] == counts[1] > 0
    assert any(isinstance(one, Other) for one in thinned.records())
    assert "44 of 80 labelled images" in thinned.notes[-1]


def test_fewer_images_are_a_part_of_more_and_another_seed_takes_others():
    whole = source({"cat": 100, "dog": 100})
    few, more, other = (
        {one.name for one in subset(whole, {0: count, 1: count}, seed).records() if isinstance(one, Record)}
        for count, seed in ((10, 0), (30, 0), (10, 1))
    )
    assert few < more
    assert few != other


@pytest.mark.parametrize(
    ("sizes", "found"),
    [({}, "no labels"), ({"cat": 5}, "one class, cat"), ({"cat": 5, "dog": 0}, "one class, cat")],
)
def test_without_two_classes_it_stops_and_says_so(sizes, found):
    with pytest.raises(ValueError, match=f"data.imbalance = 5: expected .* two classes .*, found {found}; set it to 1"):
        long_tailed(source(sizes, pool=3), 5, 0)


def test_a_prepared_folder_has_the_long_tail_and_all_its_test_images(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "examine_all", in_process)
    for place, name in enumerate(("cat", "dog", "owl")):
        fill(tmp_path / "raw" / name, 20, first=100 * place)
    settings = {"source": "imagefolder", "path": str(tmp_path / "raw"), "image_size": 8, "channels": 3}
    plain, lines = prepare(tmp_path / "plain", print, **settings), []
    counts = prepare(tmp_path / "tail", lines.append, **settings, imbalance=4)
    before, after = (Dataset(tmp_path / name) for name in ("plain", "tail"))
    sizes = np.bincount(after.labels[after.labelled_rows(TRAIN)])
    assert sorted(sizes.tolist()) == [4, 8, 16]
    assert plain["thinned"] == 0
    assert counts["thinned"] == plain["train"] - counts["train"] == 20
    assert any(line.startswith("imbalance 4: 28 of 48 ") for line in lines)
    assert before.column("path", before.rows(TEST)).tolist() == after.column("path", after.rows(TEST)).tolist()
    assert read_json(tmp_path / "tail/dataset.json")["counts"][TRAIN] == 28


@pytest.mark.parametrize("factor", ["0.5", "0", "-3", ".nan", ".inf", "many"])
def test_no_factor_is_one_line(tmp_path: Path, factor: str):
    file = tmp_path / "params.yaml"
    file.write_text(f"data: {{source: folder, image_size: 28, channels: 1, imbalance: {factor}}}\n")
    with pytest.raises(ParamsError, match=r"data\.imbalance") as caught:
        read({"data": prepare}, file)
    assert len(caught.value.problems) == 1
