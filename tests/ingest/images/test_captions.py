from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_fixtures import picture
from data_fixtures import encoded, in_process, write

from sslflow import paths
from sslflow.data.captions import captions_of
from sslflow.data.dataset import Dataset
from sslflow.data.splits import POOL, TEST, TRAIN
from sslflow.data.tokens import BETWEEN, PAD, UNKNOWN, decoded, load_tokenizer
from sslflow.ingest.images import prepare as preparing
from sslflow.ingest.listing import write_listing
from sslflow.runtime.files import read_csv

WORDS = ("red bus", "blue car", "old red car", "green tree", "small blue bird")


@pytest.fixture(autouse=True)
def without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "examine_all", in_process)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Ten pictures, the last two in a folder."""
    for number in range(10):
        place = "deep/" * (number > 7)
        write(tmp_path / "raw" / f"{place}{number}.png", encoded(picture(number), "PNG"))
    return tmp_path / "raw"


class Prepared:
    """What became of a folder of pictures with captions."""

    def __init__(self, raw: Path, captions: str, **settings: Any) -> None:
        self.said: list[str] = []
        self.folder = raw.parent / "prepared"
        asked = {"source": "folder", "path": str(raw), "image_size": 16, "channels": 3, **settings}
        self.counts = preparing.prepare(self.folder, self.said.append, captions=captions, **asked)
        self.dataset = Dataset(self.folder)

    @property
    def of(self) -> dict[str, list[str]]:
        """Captions by the names of images."""
        names = self.dataset.column("path")
        return {names[row]: own for row, own in captions_of(self.folder).items()}

    @property
    def faults(self) -> dict[str, str]:
        return {row["path"]: row["reason"] for row in read_csv(self.folder / "captions.csv", ["path", "reason"])}


def as_table(raw: Path, *lines: str | bytes) -> str:
    """A table with these lines; without any, with two captions of each image."""
    usual = [f"{number}.png,{WORDS[(number + more) % 5]}" for number in range(10) for more in range(2)]
    text = [line.encode() if isinstance(line, str) else line for line in ("path,caption", *(lines or usual))]
    return f"csv:{write(raw.parent / 'captions.csv', b''.join(line + bytes([10]) for line in text))}"


def as_lines(raw: Path, *lines: Any) -> str:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return f"jsonl:{write(raw.parent / 'captions.jsonl', text.encode('utf-8', 'surrogateescape'))}"


def beside(raw: Path) -> str:
    for number in range(10):
        place = "deep/" * (number > 7)
        write(raw / f"{place}{number}.txt", f"{WORDS[number % 5]}\n\n{WORDS[(number + 1) % 5]}\n".encode())
    return "txt"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "txt"])
def test_captions_arrive_as_words_and_as_tokens(raw: Path, kind: str) -> None:
    def lines(raw: Path) -> str:
        pairs = [(f"{number}.png", [WORDS[number % 5], WORDS[(number + 1) % 5]]) for number in range(10)]
        kinds = [
            {"path": pairs[0][0], "captions": pairs[0][1]},
            *({"file_name": pairs[1][0], "caption": one} for one in pairs[1][1]),
            *({"file_name": name, "text": own} for name, own in pairs[2:]),
        ]
        return as_lines(raw, *kinds)

    made = Prepared(raw, {"csv": as_table, "jsonl": lines, "txt": beside}[kind](raw))
    expected = {Path(name).stem: own for name, own in made.of.items()}
    assert expected == {str(number): [WORDS[number % 5], WORDS[(number + 1) % 5]] for number in range(10)}
    facts = made.dataset.beside["captions"]
    read = made.dataset.read(np.arange(len(made.dataset)))["captions"]
    assert read.shape == (10, facts["per_image"], facts["length"]) == (10, 2, read.shape[2])
    tokenizer = load_tokenizer(made.folder)
    assert tokenizer.get_vocab_size() == facts["vocabulary"]
    names = made.dataset.column("path")
    for row, name in enumerate(names):
        told = decoded(tokenizer, read[row].numpy())
        learnable = UNKNOWN not in read[row]
        assert not learnable or told == made.of[name]
    assert made.dataset.column("captions").tolist() == [2] * 10
    assert not made.faults
    assert (len(made.dataset.rows(TEST)), len(made.dataset.rows(POOL))) == (2, 8)
    assert not set(made.dataset.rows(TEST)) & set(made.dataset.pretraining_rows)


def test_the_tokenizer_sees_no_caption_to_test_on(raw: Path) -> None:
    first = Prepared(raw, as_table(raw))
    tested = set(first.dataset.column("path", first.dataset.rows(TEST)))
    before = (first.folder / "tokenizer.json").read_bytes()
    own = [
        f"{n}.png,{WORDS[(n + m) % 5] if not any(f'{n}.png' in t for t in tested) else 'xyz'}"
        for n in range(10)
        for m in range(2)
    ]
    again = Prepared(raw, as_table(raw, *own))
    assert (again.folder / "tokenizer.json").read_bytes() == before
    told = [reason for reason in again.faults.values() if "letters" in reason]
    assert len(told) == len(tested) == 2


def test_an_image_without_captions_is_padding_and_told_of(raw: Path) -> None:
    made = Prepared(raw, as_table(raw, *(f"{n}.png,{WORDS[n % 5]}" for n in range(6))))
    assert made.dataset.column("captions").sum() == 6
    without = np.flatnonzero(made.dataset.column("captions") == 0)
    assert len(without) == 4
    assert (made.dataset.read(without)["captions"] == PAD).all()
    assert list(made.faults.values()).count("image without captions") == 4
    assert any("4 x image without captions, such as 6.png" in line for line in made.said)
    assert not set(without) & set(made.dataset.rows(TEST)), "only what has captions is tested on"


@pytest.mark.parametrize(
    ("line", "where", "reason"),
    [
        ("nowhere.png,a red bus", "line 6", "caption without an image: image that is not below data.path: nowhere.png"),
        ("5.png,   ", "line 6", "empty caption"),
        (b"5.png,caf\xe9 au lait", "line 6", "caption that is not UTF-8"),
        (",a red bus", "line 6", "line without an image or a caption"),
        ("5.png", "line 6", "line without an image or a caption"),
        ("0.png,red bus", "line 6", "caption that its image has already"),
        (
            "5.png,a red bus, at night",
            "line 6",
            "damaged line: more fields than columns; a caption with a comma stands in quotes",
        ),
    ],
)
def test_lines_of_a_table_that_are_of_no_use(raw: Path, line: str | bytes, where: str, reason: str) -> None:
    made = Prepared(raw, as_table(raw, *(f"{n}.png,{WORDS[n % 5]}" for n in range(4)), line))
    assert made.faults[where] == reason
    assert sum(map(len, made.of.values())) == 4
    assert any(reason.partition(":")[0] in said and "warning" in said for said in made.said)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"path": "5.png", "caption": "cut', "damaged line"),
        ("[1, 2]", "damaged line"),
        ("[" * 5000, "damaged line"),
        ('{"path": "5.png", "title": "x"}', "line without an image or a caption"),
        ('{"path": "5.png", "caption": 7}', "line without an image or a caption"),
        ('{"path": "5.png", "captions": []}', "line without an image or a caption"),
        ('{"path": "5.png", "caption": "caf\udce9"}', "caption that is not UTF-8"),
        ('{"path": "5.png", "caption": "\\ud800"}', "caption that is not UTF-8"),
    ],
)
def test_lines_of_json_that_are_of_no_use(raw: Path, line: str, reason: str) -> None:
    made = Prepared(raw, as_lines(raw, *({"path": f"{n}.png", "caption": WORDS[n % 5]} for n in range(4)), line))
    assert made.faults["line 5"].partition(":")[0] == reason
    assert set(made.of) == {f"{n}.png" for n in range(4)}


def test_a_text_without_an_image_and_an_empty_one(raw: Path) -> None:
    beside(raw)
    write(raw / "notes.txt", b"to do\n")
    write(raw / "0.txt", b"\n")
    made = Prepared(raw, "txt")
    assert made.faults["notes.txt, line 1"].startswith("caption without an image")
    assert made.faults["0.txt, line 1"] == "empty caption"
    assert "0.png" not in made.of


def test_captions_of_an_image_that_is_not_there_are_no_other_ones(raw: Path) -> None:
    """Of `deep/8.png` and others whose last part is the same; what says no more than that part still means it."""
    usual = [f"{n}.png,{WORDS[n % 5]}" for n in range(8)]
    deep = ["other/8.png,a wood", "deep/8.png,a lake", "8.png,a pond", "photos/deep/8.png,a sea"]
    made = Prepared(raw, as_table(raw, *usual, *deep, "x/9.png,a hill", "y/9.png,a dale"))
    assert made.of["deep/8.png"] == ["a lake", "a pond", "a sea"]
    assert "deep/9.png" not in made.of
    reason = "caption without an image: image that is not below data.path"
    assert [made.faults[f"line {n}"] for n in (10, 14, 15)] == [
        f"{reason}: {name}" for name in ("other/8.png", "x/9.png", "y/9.png")
    ]
    assert Prepared(raw, as_table(raw, *usual, "other/8.png,a wood")).of["deep/8.png"] == ["a wood"]


def test_other_scripts_stay_what_they_are(raw: Path) -> None:
    told = ["красный автобус", "赤いバス", "حافلة حمراء", "rotes Äpfelchen", "κόκκινο"]
    made = Prepared(raw, as_table(raw, *(f"{n}.png,{told[n % 5]}" for n in range(10))))
    assert sorted({own for one in made.of.values() for own in one}) == sorted(told)
    assert not [reason for reason in made.faults.values() if "letters" in reason]
    read = made.dataset.read(np.arange(10))["captions"][:, 0].numpy()
    back = decoded(load_tokenizer(made.folder), read)
    assert {text.replace(" ", "") for text in back} == {text.lower().replace(" ", "") for text in told}


def test_captions_that_are_all_the_same_teach_nothing(raw: Path) -> None:
    with pytest.raises(
        ValueError, match=r"data.captions: expected different captions to learn from, found 1 \(a bus\)"
    ):
        Prepared(raw, as_table(raw, *(f"{n}.png,a bus" for n in range(10))))


def test_a_line_may_end_with_a_comma(raw: Path) -> None:
    made = Prepared(raw, as_table(raw, *(f"{n}.png,{WORDS[n % 5]}," for n in range(10))))
    assert not made.faults
    assert made.of["1.png"] == [WORDS[1]]


@pytest.mark.parametrize(("longest", "kept"), [(30, 30), (62, 62), (63, 62)])
def test_what_is_cut_is_told_of(raw: Path, longest: int, kept: int) -> None:
    """Of one caption to learn from with so many words, each a token, and of one to test on with one more."""
    usual = Prepared(raw, as_table(raw))
    tested = set(usual.dataset.column("path", usual.dataset.rows(TEST)))
    learnt = next(name for name in usual.of if name not in tested)
    words = " ".join(f"{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(longest))
    lines = [f"{name},{f'{words} ba' if name in tested else words if name == learnt else 'aa'}" for name in usual.of]
    made = Prepared(raw, as_table(raw, *lines))
    reason = f"caption of more tokens than {kept}, which is cut"
    longer = tested | ({learnt} if longest > kept else set())
    assert {name for name, own in made.faults.items() if own == reason} == longer
    rows = np.array([made.dataset.column("path").tolist().index(name) for name in (learnt, *sorted(tested))])
    read = made.dataset.read(rows)["captions"][:, 0]
    assert (read[:, -1] == BETWEEN).all()
    assert (read[1:] == read[0]).all()


def test_a_caption_that_most_images_have_is_told_of(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for number in range(24):
        write(raw / f"{number}.png", encoded(picture(number), "PNG"))
    lines = [f"{n}.png,{'a bus' if n < 18 else WORDS[n % 5]}" for n in range(24)]
    made = Prepared(raw, as_table(raw, *lines), test_fraction=0.0)
    assert any("18 images to learn from have the same one, 'a bus'" in said for said in made.said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"file;text\n1.png;a bus\n", "needs the columns path and caption; its first line: file;text"),
        ("path,caption\n1.png,a bus\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b'path,caption\n1.png,"a bus" red\n', "after line 1: not a comma-separated table"),
        (b"", "needs the columns path and caption; its first line: nothing"),
        (b"path,caption\nx.png,a bus\n", "1 of 1 captions can't be used, and no image has a caption"),
        (b"path,caption\n" + b"1.png,\n" * 3 + b"2.png,a bus\n", "more than data.max_bad = 0.5 allows"),
    ],
)
def test_tables_that_are_none(raw: Path, content: bytes, said: str) -> None:
    write(raw.parent / "captions.csv", content)
    with pytest.raises(ValueError, match=r"data\.captions") as told:
        Prepared(raw, f"csv:{raw.parent / 'captions.csv'}")
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("captions", "settings", "said"),
    [
        ("csv:nowhere.csv", {}, "there is no file nowhere.csv"),
        ("parquet:x", {}, "expected names, csv:FILE, jsonl:FILE.jsonl or txt, found parquet:x"),
        ("csv", {}, "found csv without a file"),
        ("names", {}, "names is for data.source samples:emoji, found folder"),
        ("txt", {"source": "samples:fashion"}, "txt is for data.source folder or imagefolder, found samples:fashion"),
        ("txt", {"probe_source": "samples:emoji"}, "set data.probe_source to same"),
    ],
)
def test_settings_that_do_not_go_together(raw: Path, captions: str, settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=r"data\.") as told:
        Prepared(raw, captions, **settings)
    assert said in str(told.value)


def test_class_folders_keep_their_split(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for number in range(12):
        part, kind = ("test" if number % 3 == 0 else "train"), ("cat" if number % 2 else "dog")
        write(raw / part / kind / f"{number}.png", encoded(picture(number), "PNG"))
    made = Prepared(raw, as_table(raw, *(f"{n}.png,{WORDS[n % 5]}" for n in range(12))), source="imagefolder")
    assert {name.split("/")[0] for name in made.dataset.column("path", made.dataset.rows(TEST))} == {"test"}
    assert {name.split("/")[0] for name in made.dataset.column("path", made.dataset.rows(TRAIN))} == {"train"}
    assert made.dataset.labelled
    assert len(made.of) == 12


def test_an_equal_image_brings_its_caption_along(raw: Path) -> None:
    write(raw / "twin.png", encoded(picture(3), "PNG"))
    lines = [f"{n}.png,{WORDS[n % 5]}" for n in range(10)]
    made = Prepared(raw, as_table(raw, *lines, "twin.png,another word"), test_fraction=0.0)
    assert made.counts["duplicates"] == 1
    assert made.of["3.png"] == [WORDS[3], "another word"]


def test_the_sample_emoji_have_names_and_keywords(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    made = Prepared(raw, "names", source="samples:emoji/openmoji", image_size=8)
    assert made.of["openmoji/1F34E"] == ["red apple", "apple, diet, food, fruit", "health, red, ripe"]
    assert len(made.of) == len(made.dataset)
    assert not set(made.dataset.column("group", made.dataset.rows(TEST))) & set(
        made.dataset.column("group", made.dataset.rows(TRAIN))
    )


def test_a_changed_file_of_captions_is_seen(raw: Path, tmp_path: Path) -> None:
    captions, listing = as_table(raw), tmp_path / "listing.csv"
    write_listing(listing, source="folder", path=str(raw), captions=captions)
    before = listing.read_text()
    as_table(raw, "1.png,something else")
    write_listing(listing, source="folder", path=str(raw), captions=captions)
    assert listing.read_text() != before
    assert "captions" in before


def test_samples_are_small() -> None:
    assert (paths.SAMPLES / "emoji" / "names.csv").stat().st_size < 200_000
