"""Any folder: no error but in words, and every file is read, put aside, counted as another file or passed over."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from data_fixtures import encoded, in_process, scene, write
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sslflow.data.dataset import Dataset
from sslflow.ingest.images import prepare as module
from sslflow.ingest.images.prepare import Duplicates, prepare
from sslflow.ingest.records import escape, unescape

EXAMPLES = int(os.environ.get("SSLFLOW_EXAMPLES", "60"))
PICTURES = [encoded(scene(4, 4, seed=number), "PNG") for number in range(12)]
CLASSES = [
    "cat",
    "Cat",
    "dog",
    "café",
    "cafe\u0301",
    "한국",
    "red fox",
    "red_fox",
    "cat\u200b",
    "a\nb",
    "0",
    os.fsdecode(b"\xff"),
]
PARTS = ["train", "Train ", "test", "val", "dev", "unlabeled", "images", "labels", "masks", "fold1"]
MADE = ["@eaDir", "__MACOSX", ".git", "#recycle", "lost+found", "$RECYCLE.BIN", ".thumbnails"]
FILES = [
    "a.png",
    "b.PNG",
    "b.png",
    "é.png",
    "e\u0301.png",
    "._a.png",
    "Thumbs.db",
    "x.txt",
    "c d.jpg",
    ".hidden.png",
    "\n.png",
]

folder = st.sampled_from([*CLASSES, *PARTS, *MADE])
content = st.sampled_from([*PICTURES, b"", b"no picture"])
trees = st.dictionaries(
    st.tuples(st.lists(st.one_of(st.sampled_from(CLASSES), folder), max_size=3).map(tuple), st.sampled_from(FILES)),
    content,
    min_size=1,
    max_size=30,
)


def built(root: Path, tree: dict[tuple[tuple[str, ...], str], bytes]) -> list[Path]:
    """The files of the tree."""
    for (places, name), inside in tree.items():
        write(root.joinpath(*places, name), inside)
    return [Path(place) / name for place, _, names in os.walk(root) for name in names]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES < 1000,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(tree=trees, source=st.sampled_from(["folder", "imagefolder"]), duplicates=st.sampled_from(["drop", "keep"]))
def test_every_file_is_accounted_for(
    tree: dict[tuple[tuple[str, ...], str], bytes], source: str, duplicates: Duplicates
) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "examine_all", in_process)
        root, out, lines = Path(place) / "raw", Path(place) / "out", []
        files = built(root, tree)
        try:
            counts = prepare(
                out,
                lines.append,
                source=source,
                path=str(root),
                image_size=4,
                channels=3,
                max_bad=1.0,
                duplicates=duplicates,
            )
        except ValueError as error:
            str(error).encode()
            event(f"{source}: stopped")
            assert not out.exists()
            return
        event(f"{source}: prepared")
        "\n".join(lines).encode()
        dropped = counts["duplicates"] if duplicates == "drop" else 0
        rest = sum(counts[name] for name in ("quarantined", "other_files", "passed_over"))
        assert counts["images"] + dropped + rest == len(files)
        assert_labels_are_those_of_the_folders(Dataset(out), source)


def assert_labels_are_those_of_the_folders(dataset: Dataset, source: str) -> None:
    """No image has a label that another equal one contradicts, and each label is the name of a folder on its way."""
    if source == "folder":
        assert dataset.classes == []
        return
    names = Counter(dataset.classes)
    assert max(names.values()) == 1
    truth: dict[str, set[int]] = {}
    for pixels, label in zip(dataset.column("pixels"), dataset.labels, strict=True):
        truth.setdefault(pixels, set()).add(label)
    assert all(len(labels) == 1 for labels in truth.values())
    for path, label in zip(dataset.column("path"), dataset.labels, strict=True):
        if label >= 0:
            folders = unescape(path).split("/")[:-1]
            assert dataset.classes[label] in [escape(unicodedata.normalize("NFC", name)) for name in folders[:2]]
