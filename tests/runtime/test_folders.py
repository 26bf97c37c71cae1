"""Replacing a folder: whole before, whole afterwards, whatever happens in between and wherever."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sslflow import paths
from sslflow.runtime.files import replacing
from sslflow.runtime.folders import refuse_links, replacing_folder

RUN = """
import os, signal, sys
from pathlib import Path

from sslflow import paths
from sslflow.runtime.folders import refuse_links, replacing_folder

folder, how, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
steps = 0

def step(event, given):
    global steps
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        steps += 1
        if steps == last and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if steps == last:
            raise KeyboardInterrupt

sys.addaudithook(step)
with replacing_folder(folder) as temporary:
    for name in ("a", "b"):
        (temporary / name).write_text("new")
    (temporary / "below").mkdir()
    (temporary / "below/c").write_text("new")
"""
NAMES = ["a", "b", "below/c"]


def fill(folder: Path, content: str) -> None:
    (folder / "below").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(content)


def content(folder: Path) -> list[str]:
    """What all files of a whole folder hold."""
    found = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    assert found == NAMES
    return sorted({(folder / name).read_text() for name in NAMES})


def beside(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.parent.iterdir() if file != folder)


def found_by_the_next(folder: Path) -> list[str]:
    """What the folder holds, nothing where there is none, when another run begins, which fails."""
    found = []
    with contextlib.suppress(ValueError), replacing_folder(folder):
        found = content(folder) if folder.exists() else []
        raise ValueError
    return found


def replaced(folder: Path, how: str, last: int) -> int:
    """Replace the folder in another process, which ends before its step number `last`: its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", RUN, str(folder), how, str(last)]
    return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False).returncode


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_between_any_two_steps_the_former_or_the_new_folder_is_whole(how, tmp_path):
    seen = []
    for last in range(1, 50):
        folder = tmp_path / str(last) / "out"
        fill(folder, "old")
        code = replaced(folder, how, last)
        if how == "interrupted":
            assert content(folder) in (["old"], ["new"]), "without another start"
        seen.append(found_by_the_next(folder))
        assert content(folder) == seen[-1]
        assert beside(folder) == []
        if code == 0:
            break
        assert code == -signal.SIGKILL if how == "killed" else code
    assert len(seen) > 10
    assert seen == sorted(seen, reverse=True), "the old one until the new one is there"
    assert seen[0] == ["old"]
    assert seen[-2:] == [["new"], ["new"]]


def test_without_a_former_folder_there_is_the_new_one_or_none(tmp_path):
    for last in range(1, 50):
        folder = tmp_path / str(last) / "out"
        folder.parent.mkdir()
        code = replaced(folder, "killed", last)
        assert found_by_the_next(folder) in ([], ["new"])
        assert beside(folder) == []
        if code == 0:
            break
    assert last > 3
    assert content(folder) == ["new"]


def test_only_what_ended_processes_of_this_host_left_is_touched(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, folder = socket.gethostname(), tmp_path / "out"
    kept = [
        f".out.elsewhere.{ended.pid}.tmp",
        f".out.elsewhere.{ended.pid}.former",
        f".out.{here}.{os.getppid()}.tmp",
        f".out.{here}.{os.getppid()}.former",
        f".out.more.{here}.{ended.pid}.tmp",
        f".out.{ended.pid}.tmp",
        ".out.notes.former",
    ]
    removed = [f".out.{here}.{number}.{part}" for number in (ended.pid, os.getpid()) for part in ("tmp", "discarded")]
    for name in (*kept, *removed):
        fill(tmp_path / name, name)
    with replacing_folder(folder) as temporary:
        fill(temporary / "x", "new")
    assert beside(folder) == sorted(kept)
    assert all(content(tmp_path / name) == [name] for name in kept)


def test_a_folder_that_is_being_replaced_is_not_disturbed_by_this_process(tmp_path):
    folder = tmp_path / "out"
    with replacing_folder(folder) as temporary:
        fill(temporary / "x", "first")
        with pytest.raises(FileExistsError), replacing_folder(folder):
            pass
        assert content(temporary / "x") == ["first"]
    assert content(folder / "x") == ["first"]


def test_processes_of_one_number_on_two_hosts_write_to_different_temporary_files(tmp_path, monkeypatch):
    file = tmp_path / "out"
    with replacing(file) as here:
        here.write_text("here")
        monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
        with replacing(file) as there:
            there.write_text("there")
        assert here.read_text() == "here"
        assert file.read_text() == "there"
    assert file.read_text() == "here"
    assert [found.name for found in tmp_path.iterdir()] == ["out"]


# Links to another disk


def test_a_folder_that_is_a_link_stays_one_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "disk/prepared", tmp_path / "project/data/prepared"
    real.mkdir(parents=True)
    (real / "former").touch()
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    for _ in range(2):
        with replacing_folder(link) as temporary:
            assert temporary.parent == real.parent, "on the disk where it is to lie"
            (temporary / "new").touch()
        assert link.is_symlink()
        assert [file.name for file in real.iterdir()] == ["new"]
        assert [file.name for file in link.parent.iterdir()] == ["prepared"]
    with pytest.raises(OSError, match="full"), replacing_folder(link) as temporary:
        raise OSError("the disk is full")
    assert link.is_symlink()
    assert [file.name for file in real.parent.iterdir()] == ["prepared"]


def test_a_link_that_leads_to_no_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "unmounted/disk")
    (tmp_path / "file").touch()
    (tmp_path / "wrong").symlink_to(tmp_path / "file")
    for name, words in (("gone", "isn't there: mount its disk, or remove the link"), ("wrong", "that is no folder")):
        with pytest.raises(ValueError, match=rf"{name} is a link to .*{words}"), replacing_folder(tmp_path / name):
            raise AssertionError
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize("name", ["artifacts", "data/domains", "artifacts/encoders", "artifacts/metrics", "data"])
def test_a_link_behind_which_dvc_keeps_nothing_is_refused(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    refuse_links(paths.parents())
    Path(name).symlink_to(tmp_path / "disk")
    with pytest.raises(ValueError, match=f"{name} is a link to {tmp_path}/disk, and DVC keeps nothing"):
        refuse_links(paths.parents())


@pytest.mark.parametrize("name", ["data/raw", "data/prepared", "data/domains/mine", "work", "artifacts/scores"])
def test_other_links_are_no_matter(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).symlink_to(tmp_path / "disk")
    refuse_links(paths.parents())
