"""What a stage says where it can't go on: one message, no traceback, for all that a user can mend."""

from __future__ import annotations

import errno
import subprocess
import sys

import numpy as np
import pytest
import torch

from sslflow.stages.entry import run


def no_array() -> None:
    np.empty((2**22, 2**22, 2**6), np.uint8)


def full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "data/prepared/images-00000.npy")


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has a total capacity of")


def no_tensor() -> None:
    torch.empty(2**60, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (no_array, "too little memory; a smaller batch_size"),
        (full_gpu, "too little memory; a smaller batch_size"),
        (no_tensor, "too little memory; a smaller batch_size"),
        (full_disk, "No space left on device: 'data/prepared/images-00000.npy'"),
    ],
)
def test_too_little_of_something_is_one_message(main, words, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["stage.py"])
    with pytest.raises(SystemExit, match="1"):
        run(main)
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert said.count("\n") == 2


def test_that_another_process_has_ended_is_one_message_where_there_is_one(monkeypatch, capsys) -> None:
    def reset() -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:1: Connection reset by peer.")

    monkeypatch.setattr(sys, "argv", ["stage.py"])
    with pytest.raises(RuntimeError, match="Read error"):
        run(reset)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="1"):
        run(reset)
    said = capsys.readouterr().err
    assert "another of the 2 processes has ended" in said
    assert "--max-restarts" in said
    assert said.count("\n") == 2


def test_a_fault_of_ours_is_shown_in_full(monkeypatch) -> None:
    def faulty() -> None:
        raise RuntimeError("an index is out of range")

    monkeypatch.setattr(sys, "argv", ["stage.py"])
    with pytest.raises(RuntimeError, match="out of range"):
        run(faulty)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/api", "no server answers there"),
        ("http://nowhere.invalid:4200/api", "no server answers there"),
        ("127.0.0.1:4200/api", "that is no address"),
        ("localhost", "that is no address"),
    ],
)
def test_a_prefect_server_that_is_not_up_is_one_line(address: str, words: str) -> None:
    code = f"from pipelines.server import missing; print(missing({address!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert words in done.stdout
    assert not done.stderr
