"""A few changed files of every kind, the same in every run; `python -m benchmarks.fuzz` gives many others."""

from __future__ import annotations

import pytest

from benchmarks.fuzz_changes import tried
from benchmarks.fuzz_kinds import TARGETS

FEW = {"params.yaml": 6, "weights": 6}
"""Of what takes long to read."""


@pytest.mark.parametrize("kind", TARGETS)
def test_changed_files_are_read_or_refused_in_words(kind: str) -> None:
    tried(kind, FEW.get(kind, 40), 0)
