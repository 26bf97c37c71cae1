"""Text to passages of tokens: what is kept, what is put aside, what is said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST, TRAIN
from sslflow.data.tokens import BETWEEN, FIRST, PAD, decoded, load_tokenizer
from sslflow.ingest.text.prepare import prepare
from sslflow.ingest.text.reading import passages_of, read_text
from sslflow.ingest.text.sources import open_source
from sslflow.ingest.tokenizing import train_tokenizer
from tests.text_fixtures import verses, write_corpus

SMALL: dict[str, Any] = {"source": "folder", "vocabulary": 400, "length": 24, "units": "words"}


def prepared(corpus: Path, **settings: Any) -> tuple[Dataset, dict[str, int], list[str]]:
    told: list[str] = []
    folder = corpus.parent / "prepared"
    counts = prepare(folder, told.append, **{**SMALL, "path": str(corpus), **settings})
    return Dataset(folder), counts, told


def table(dataset: Dataset, name: str) -> list[dict[str, str]]:
    with (dataset.folder / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "raw")


def test_a_folder_becomes_passages_that_follow_one_another(corpus: Path) -> None:
    dataset, counts, _ = prepared(corpus, length=64)
    assert counts["documents"] == 30
    assert counts["passages"] == len(dataset) == counts["train"] + counts["test"]
    tokens, following, groups = (
        dataset.read(np.arange(len(dataset)))[name].numpy() for name in ("tokens", "following", "groups")
    )
    assert (tokens[:, 0] == FIRST).all()
    assert ((tokens == BETWEEN).sum(1) == 1).all()
    rows = np.flatnonzero(following[:, 0] != PAD)
    assert len(rows) > 0.9 * (len(dataset) - 30)
    for row in rows:
        assert (following[row] == tokens[row + 1]).all()
        assert groups[row] == groups[row + 1]
    last = np.flatnonzero(np.diff(groups))
    assert (following[last] == PAD).all()


def test_documents_are_whole_in_a_split_and_the_tokenizer_knows_training_text_alone(corpus: Path) -> None:
    (corpus / "early" / "01.txt").write_text("Abracadabra " * 40, encoding="utf-8")
    dataset, counts, _ = prepared(corpus, test_fraction=0.5, seed=next(seed for seed in range(20) if _tested(seed)))
    train, test = (set(dataset.groups[dataset.rows(split)].tolist()) for split in (TRAIN, TEST))
    assert not train & test
    assert min(counts["train"], counts["test"]) > 0
    assert "abracadabra" not in load_tokenizer(dataset.folder).get_vocab()
    assert sum(dataset.format.counts[5:]) == counts["tokens"]
    assert (dataset.read(dataset.rows(TEST))["tokens"] == 1).any()


def _tested(seed: int) -> bool:
    """Whether the first of the documents is tested on."""
    from sslflow.data.splits import held_out

    names = [f"{'early' if number < 12 else 'late'}/{number:02d}.txt" for number in range(1, 31)]
    return 0 in held_out(names, [0] * 30, 0.5, seed)


def test_class_folders_are_labels(corpus: Path) -> None:
    (corpus / "alone.txt").write_text("In no class.", encoding="utf-8")
    dataset, counts, _ = prepared(corpus, source="folders")
    assert dataset.classes == ["early", "late"]
    assert counts["classes"] == 2
    paths = dataset.column("path")
    assert all(dataset.classes[label] == path.split("/")[0] for label, path in zip(dataset.labels, paths, strict=True))
    assert table(dataset, "quarantine.csv")[0]["path"] == "alone.txt"


def test_json_lines_bring_labels_and_documents(tmp_path: Path) -> None:
    corpus = tmp_path / "raw"
    corpus.mkdir()
    lines = [
        json.dumps({"text": row["text"], "label": row["chapter"] % 2, "document": f"chapter {row['chapter']}"})
        for row in verses()
    ]
    bad = ["{", '{"words": "x"}', '{"text": 3}', '{"text": "  "}', '["text"]', ""]
    (corpus / "a.jsonl").write_text("\n".join([*lines, *bad]), encoding="utf-8")
    dataset, counts, _ = prepared(corpus)
    assert counts["documents"] == 50
    assert counts["quarantined"] == 5
    reasons = [row["reason"] for row in table(dataset, "quarantine.csv")]
    assert sum("not JSON" in one for one in reasons) == 1
    assert sum("no text" in one for one in reasons) == 2
    assert dataset.classes == ["0", "1"]


def test_a_bad_line_takes_no_others_along(tmp_path: Path) -> None:
    corpus = tmp_path / "raw"
    corpus.mkdir()
    texts = [row["text"] for row in verses()[:80]]
    texts[3] = f"{texts[3]}\u2028and\x85so on"
    lines = [json.dumps({"text": one}, ensure_ascii=False) for one in [*texts, "QUJD" * 500]]
    (corpus / "a.jsonl").write_bytes("\r\n".join(lines).encode())
    dataset, counts, _ = prepared(corpus, duplicates="keep")
    assert counts["documents"] == 80
    (row,) = table(dataset, "quarantine.csv")
    assert (row["path"], row["reason"][:16]) == ("a.jsonl:81", "not words: 2,000")
    assert len(set(dataset.column("path"))) == 80


def test_a_document_called_by_a_number_is_not_the_line_of_that_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "One.", "document": 2}\n{"text": "Two."}\n', encoding="utf-8")
    found = open_source("folder", str(tmp_path), "paragraph", "book")
    assert [one.passages for one in found.documents] == [["One."], ["Two."]]


def test_a_document_goes_on_in_other_files_and_is_never_divided(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "raw")
    for name, words in (("a.jsonl", "begins"), ("b.jsonl", "goes on")):
        lines = [{"text": f"Tale {number} {words}.", "document": f"tale {number}"} for number in range(40)]
        (corpus / name).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    dataset, _, told = prepared(corpus, test_fraction=0.5)
    assert any("40 documents have lines in several files, such as tale 0" in line for line in told)
    splits: dict[str, set[str]] = {}
    for text, split in zip(dataset.column("text"), dataset.column("split"), strict=True):
        if text.startswith("Tale"):
            splits.setdefault(text.split()[1], set()).add(split)
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())
    found = open_source("folder", str(corpus), "paragraph", "book").documents
    assert ["Tale 7 begins.", "Tale 7 goes on."] in [one.passages for one in found]


def test_folders_behind_links_are_read_and_lost_files_are_told(corpus: Path) -> None:
    before = prepared(corpus)[1]
    (corpus / "late").rename(corpus.parent / "elsewhere")
    (corpus / "late").symlink_to(corpus.parent / "elsewhere")
    (corpus / "early" / "99.txt").symlink_to(corpus / "nowhere")
    dataset, counts, _ = prepared(corpus)
    assert counts["documents"] == before["documents"]
    assert [(row["path"], row["reason"]) for row in table(dataset, "quarantine.csv")] == [
        ("early/99.txt", "unreadable: No such file or directory")
    ]


def test_long_passages_become_several_and_nothing_is_lost(corpus: Path) -> None:
    for units in ("words", "pieces"):
        dataset, counts, _ = prepared(
            corpus, length=12, units=units, duplicates="keep", vocabulary=3000, lowercase=False
        )
        assert counts["cut"] > 100
        texts = dataset.column("text")
        whole: dict[str, list[str]] = {}
        for path, text in zip(dataset.column("path"), texts, strict=True):
            whole.setdefault(path, []).append(text)
        wanted = {row["text"] for row in verses() if row["chapter"] <= 30}
        assert {" ".join(parts).replace(" ", "") for parts in whole.values()} == {
            one.replace(" ", "") for one in wanted
        }
        tokens = dataset.read(dataset.rows(TRAIN))["tokens"].numpy()
        again = decoded(load_tokenizer(dataset.folder), tokens)
        assert [one.replace(" ", "") for one in again] == [one.replace(" ", "") for one in texts[dataset.rows(TRAIN)]]


def test_equal_passages_are_dropped_and_leaks_are_told(corpus: Path) -> None:
    dataset, *_ = prepared(corpus)
    tested = dataset.column("group", dataset.rows(TEST))[0]
    trained = dataset.column("group", dataset.rows(TRAIN))[0]
    stolen = (corpus / tested).read_text(encoding="utf-8").split("\n\n")[1]
    with (corpus / trained).open("a", encoding="utf-8") as file:
        file.write(f"{stolen.upper()}\n\n  {stolen} \n\n")
    dataset, counts, told = prepared(corpus)
    assert counts["leaked"] == 2
    assert any("leakage: 2 passages" in line for line in told)
    rows = [row for row in table(dataset, "duplicates.csv") if row["leak"] == "yes"]
    assert {row["fate"] for row in rows} == {"dropped"}
    assert {row["first_split"] for row in rows} == {TEST}
    kept = prepared(corpus, duplicates="keep")[1]
    assert kept["passages"] > counts["passages"]
    assert kept["leaked"] == 2


def test_labels_that_contradict_each_other_are_lost(corpus: Path) -> None:
    for name in ("early/01.txt", "late/20.txt"):
        with (corpus / name).open("a", encoding="utf-8") as file:
            file.write("The same words everywhere.\n\n")
    dataset, counts, told = prepared(corpus, source="folders")
    assert counts["label_conflicts"] == 1
    assert any("1 passages equal one with another label: none of them keeps one" in line for line in told)
    row = [text == "The same words everywhere." for text in dataset.column("text")].index(True)
    assert dataset.labels[row] == -1


@pytest.mark.parametrize("known", [True, False])
def test_a_passage_without_a_label_contradicts_none(tmp_path: Path, known: bool) -> None:
    corpus = tmp_path / "raw"
    corpus.mkdir()
    lines = [{"text": row["text"], "label": "early"} for row in verses()[:60]]
    same = [{"text": "The same words everywhere.", **({"label": one} if one else {})} for one in ("", "early", "late")]
    lines += same[: 2 if known else 3]
    (corpus / "a.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    dataset, *_ = prepared(corpus, duplicates="keep", test_fraction=0.0)
    rows = [row for row, text in enumerate(dataset.column("text")) if text == "The same words everywhere."]
    assert sorted(dataset.labels[rows].tolist()) == ([-1, 0] if known else [-1, -1, -1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Dé jà vu".encode("latin-1"), "not UTF-8: byte 0xe9 at 1"),
        ("Some words".encode("utf-16"), "it begins as UTF-16"),
        ("Some words".encode("utf-32"), "it begins as UTF-32"),
        (b"some\0words", "NUL bytes"),
        (b"", "empty"),
        (b" \n\t\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"QUJD" * 20_000, "80,000 letters without a space"),
    ],
)
def test_what_is_no_text_is_put_aside_with_its_reason(corpus: Path, content: bytes, reason: str) -> None:
    (corpus / "early" / "00.txt").write_bytes(content)
    dataset, counts, _ = prepared(corpus)
    assert counts["quarantined"] == 1
    assert reason in table(dataset, "quarantine.csv")[0]["reason"]


def test_a_byte_order_mark_of_utf_8_is_no_word() -> None:
    assert read_text(b"\xef\xbb\xbfIn the beginning") == "In the beginning"


def test_one_endless_line_becomes_passages(tmp_path: Path) -> None:
    corpus = tmp_path / "raw"
    corpus.mkdir()
    text = " ".join(row["text"] for row in verses())
    for number in range(3):
        (corpus / f"{number}.txt").write_text(f"{number} {text[number * 9000 : (number + 1) * 9000]}", encoding="utf-8")
    _, counts, _ = prepared(corpus, test_fraction=0.34)
    assert counts["documents"] == 3
    assert counts["cut"] > 150
    assert counts["test"] > 50


def test_too_little_text_is_told(tmp_path: Path) -> None:
    corpus = tmp_path / "raw"
    corpus.mkdir()
    with pytest.raises(ValueError, match="there is no text here"):
        prepared(corpus)
    (corpus / "picture.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="it holds 1 other files"):
        prepared(corpus)
    (corpus / "a.txt").write_text("In the beginning God created the heaven and the earth.", encoding="utf-8")
    with pytest.raises(ValueError, match="10 words in 1 passages to train on; expected 200 words"):
        prepared(corpus)


def test_a_place_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        prepared(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a folder, found a file"):
        prepared(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="text comes from folder, folders, samples:bible, did you mean 'folder'"):
        prepared(tmp_path, source="folder_")


def test_mostly_unusable_text_stops_the_run(corpus: Path) -> None:
    for number in range(40):
        (corpus / f"{number}.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"40 of 70 files or lines can't be used, more than data.max_bad = 0.5"):
        prepared(corpus)


def test_one_document_and_lone_passages_are_told(tmp_path: Path) -> None:
    corpus = tmp_path / "raw"
    corpus.mkdir()
    (corpus / "a.txt").write_text("\n\n".join(row["text"] for row in verses()[:60]), encoding="utf-8")
    assert any("of the 1 here no two are of one class" in line for line in prepared(corpus)[2])
    assert any("nothing to test on: data.test_fraction is 0" in line for line in prepared(corpus, test_fraction=0.0)[2])
    (corpus / "a.txt").unlink()
    lines = [json.dumps({"text": row["text"]}) for row in verses()]
    (corpus / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert any("no passage follows another" in line for line in prepared(corpus)[2])


def test_letters_do_not_go_beyond_the_vocabulary() -> None:
    rare = "".join(chr(0x4E00 + place) for place in range(200))
    tokenizer = train_tokenizer([f"{rare} the house, the houses, the horse, the horses"], 50)
    assert tokenizer.get_vocab_size() == 50
    assert tokenizer.encode("the horses").ids.count(1) == 0
    assert tokenizer.encode(rare).ids.count(1) == 200 - (45 - len({*" thehouse,r"}))
    assert train_tokenizer([f"{rare} the house, the houses, the horse, the horses"], 50).to_str() == tokenizer.to_str()


@pytest.mark.parametrize(("label", "classes"), [("testament", 2), ("division", 7), ("book", 66)])
def test_the_sample_has_documents_and_classes(label: Any, classes: int) -> None:
    documents = open_source("samples:bible", "", "paragraph", label).documents
    assert len(documents) == 1189
    assert sum(len(one.passages) for one in documents) == 31102
    assert len({one.labels[0] for one in documents}) == classes
    assert len({one.like for one in documents}) == 66


@pytest.mark.parametrize(
    ("passages", "wanted"),
    [
        ("paragraph", ["One two. Three four? “Five.”", "Six"]),
        ("line", ["One two. Three", "four? “Five.”", "Six"]),
        ("sentence", ["One two.", "Three four?", "“Five.”", "Six"]),
    ],
)
def test_passages(passages: Any, wanted: list[str]) -> None:
    assert passages_of("One  two. Three\r\nfour? “Five.”\r\n \r\n\nSix\n", passages) == wanted
