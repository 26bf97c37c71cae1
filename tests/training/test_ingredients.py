"""What a method is trained on and given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sslflow.data.dataset import Dataset
from sslflow.methods.images.simclr import SimCLR
from sslflow.methods.images.supervised import Supervised
from sslflow.methods.text.next_sentence import NextSentence
from sslflow.training.ingredients import build, example_rows, of_examples
from tests.conftest import write_dataset
from tests.text_fixtures import MemoryText

SMALL = {"name": "resnet10", "width": 4, "stem_stride": 2}


def of(folder: Path, labels: list[int]) -> Dataset:
    images = np.zeros((len(labels), 1, 16, 16), dtype=np.uint8)
    return write_dataset(folder, images, np.array(labels), ["train"] * len(labels))


def test_labels_are_learned_from_the_images_that_have_some(tmp_path: Path) -> None:
    dataset = of(tmp_path / "data", [0, -1, 1, -1])
    assert example_rows(Supervised, dataset).tolist() == [0, 2]
    assert example_rows(SimCLR, dataset).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("labels", [[-1, -1, -1], [-1, 0, -1], [0, 0, 0]])
def test_labels_without_two_classes_are_an_error_that_says_what_to_do(tmp_path: Path, labels: list[int]) -> None:
    dataset = of(tmp_path / "data", labels)
    rows = example_rows(Supervised, dataset)
    with pytest.raises(ValueError, match=r"have [01] classes; leave it out of run\.methods"):
        build(Supervised, of_examples(dataset, rows, SMALL), {})


def test_one_image_is_too_few_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least two images, and there are 1"):
        example_rows(SimCLR, of(tmp_path / "data", [-1]))


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_what_follows_needs_documents_of_several_passages(groups: list[int]) -> None:
    text = SimpleNamespace(
        format=MemoryText().format, pretraining_rows=np.arange(4), groups=np.array(groups), folder="data", beside={}
    )
    with pytest.raises(ValueError, match="documents of several passages each"):
        example_rows(NextSentence, cast(Any, text))
    text.groups[:] = [0, 0, 1, 2]
    assert example_rows(NextSentence, cast(Any, text)).tolist() == [0, 1, 2, 3]
