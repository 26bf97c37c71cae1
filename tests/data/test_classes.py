"""Names of classes: which are one, which are nearly one, what is said of their examples."""

from __future__ import annotations

import unicodedata

import pytest

from sslflow.data.classes import alike, class_name, counted, hardly_differing, lacking, shown, summary


@pytest.mark.parametrize("name", ["café", "한국", "Ω", "が", "plain", "a\ud83d"])
def test_a_name_has_one_spelling(name: str) -> None:
    assert class_name(name) == class_name(unicodedata.normalize("NFD", name)) == class_name(class_name(name))


@pytest.mark.parametrize(
    "names",
    [
        *(
            ("Cat", "cat"),
            ("cat", "cat "),
            (" cat", "cat"),
            ("a b", "a-b", "a_b", "ab"),
            ("cat", "cat."),
            ("A–b", "a-b"),
        ),
        *(
            ("cat", "cat\\xe2\\x80\\x8b"),
            ("cat", "ＣＡＴ"),
            ("caf\\xe9", "café"),
            ("cat", "cat\\n"),
            ("Straße", "strasse"),
        ),
        *(("01", "1"), ("class 1", "class01"), ("don't", "don’t"), ("①", "1"), ("❤", "❤\ufe0f"), ("m2", "m²")),
    ],
)
def test_what_differs_by_hardly_anything(names: tuple[str, ...]) -> None:
    assert alike([*names, "other"]) == [tuple(sorted(names))]


@pytest.mark.parametrize(
    "names",
    [
        *(("cat", "cats"), ("-1", "1"), ("1_1", "11"), ("1.5", "15"), ("0.05", "0.5"), ("C", "C#", "C++"), ("-", "_")),
        *(("か", "が"), ("10", "1"), ("a1", "a2"), ("0", "1"), ("😀", "😁"), ("कि", "का"), ("!", "?"), ("cat", "cat")),
    ],
)
def test_what_differs(names: tuple[str, ...]) -> None:
    assert alike(names) == []
    assert hardly_differing(names) == []


def test_counts_in_words() -> None:
    counts = counted(["a", "b", "c", "d"], [0, 0, 1, 2, -1], ["train", "test", "train", "test", "train"])
    assert {name: dict(own) for name, own in counts.items()} == {
        "a": {"train": 1, "test": 1},
        "b": {"train": 1},
        "c": {"test": 1},
        "d": {},
    }
    assert lacking(counts, tested=False) == ["no example that can be used of the classes d"]
    assert lacking(counts, tested=True)[1:] == [
        "nothing to train on of 1 of 3 classes: c",
        "nothing to test on of 1 of 3 classes: b",
    ]
    assert lacking({"a": {"train": 1}, "b": {"train": 2}}, tested=True) == ["nothing to test on of any class: a, b"]
    assert summary({"a": 1200, "b": 3}) == "2 classes: a 1,200, b 3"
    assert summary({"a": 1}) == "1 class: a 1"
    many = summary({f"c{number:03d}": number for number in range(1, 1001)})
    assert many.startswith("1,000 classes: c1000 1,000, c999 999, ")
    assert many.endswith("…, c005 5, c004 4, c003 3, c002 2, c001 1")
    assert shown(map(str, range(13)), 3) == "0, 1, 2 and 10 more"
