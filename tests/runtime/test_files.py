"""Files that take another's place."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sslflow.runtime.files import replacing, write_json


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077], indirect=True)
def test_others_may_read_what_the_umask_lets_them_whoever_writes(tmp_path: Path, umask: int) -> None:
    weights, facts = tmp_path / "new.safetensors", tmp_path / "facts.json"
    for _ in range(2):
        with replacing(weights) as temporary:
            save_file({"a": torch.zeros(1)}, temporary)
        write_json(facts, {})
        for file in (weights, facts):
            assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask
    assert sorted(tmp_path.iterdir()) == [facts, weights]


def test_where_nothing_was_written_nothing_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before")
    with pytest.raises(FileNotFoundError), replacing(file):
        pass
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_was_writing_is_removed_by_the_next_one(tmp_path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    left, at_work, elsewhere = (
        tmp_path / f".a.json.{machine}.{number}.tmp"
        for machine, number in ((host, gone.pid), (host, os.getppid()), ("other", gone.pid))
    )
    for file in (left, at_work, elsewhere):
        file.touch()
    write_json(tmp_path / "b.json", {})
    assert not left.exists()
    assert at_work.exists()
    assert elsewhere.exists()
