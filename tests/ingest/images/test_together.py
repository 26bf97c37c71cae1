"""`prepare` by several processes, and on from where one was stopped."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from data_fixtures import encoded, fill, in_process, scene, write

from sslflow import paths
from sslflow.data.splits import POOL
from sslflow.ingest.images import book, together
from sslflow.ingest.images import prepare as preparing
from sslflow.ingest.images.decode import decode
from sslflow.ingest.images.examine import Work
from sslflow.ingest.images.parts import Parts, _own_file, examine_into
from sslflow.ingest.images.together import Together
from sslflow.ingest.records import Record
from sslflow.runtime.turns import Turns
from tests.conftest import ROOT

WORK = Work(partial(decode, size=16, channels=3))


class Stopped(Exception):
    """As when a process is killed."""


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Without processes: tasks of two images, done at once; after as many as are asked for, the run is stopped."""
    left = [0]

    def submit(job: Callable[..., None], *given: Any) -> Future[None]:
        if not left[0]:
            raise Stopped
        left[0] -= 1
        done: Future[None] = Future()
        done.set_result(job(*given))
        return done

    @contextlib.contextmanager
    def without_processes(*_: Any) -> Iterator[Any]:
        yield submit

    monkeypatch.setattr(together, "pool", without_processes)
    monkeypatch.setattr(preparing, "examine_all", in_process)
    monkeypatch.setattr(book, "_TASK_IMAGES", 2)
    return partial(left.__setitem__, 0)


def prepare(folder: Path, out: str, by: Together | None = None) -> dict[str, int]:
    settings = {"source": "folder", "path": str(folder / "raw"), "image_size": 16, "channels": 3, "workers": 1}
    return preparing.prepare(folder / out, lambda line: None, together=by, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def images(folder: Path) -> list[Path]:
    """Ten: two are equal, one is none, and one is of one colour."""
    fill(folder / "raw", 7)
    write(folder / "raw/0001_bad.png", b"no image")
    write(folder / "raw/0005_again.jpg", (folder / "raw/0000.jpg").read_bytes())
    write(folder / "raw/0009_plain.jpg", encoded(scene().resize((1, 1)).resize((50, 40)), "JPEG"))
    return sorted((folder / "raw").iterdir())


def test_what_was_examined_is_not_examined_again_and_the_end_is_the_same(tmp_path: Path, pool) -> None:
    files = images(tmp_path)
    prepare(tmp_path, "plain")
    first = Together(tmp_path / "parts", Turns())
    pool(3)
    with pytest.raises(Stopped):
        prepare(tmp_path, "out", first)
    assert not (tmp_path / "out").exists()
    for file in files[:4]:  # of two tasks that were done: now other images, of which no stat tells
        facts = file.stat()
        file.write_bytes(bytes(facts.st_size))
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (part,) = first._parts.folder.iterdir()  # type: ignore
    part.write_bytes(part.read_bytes()[:-1])  # the third was just being written
    _own_file(part.parent).close()  # another process has another file
    _own_file.cache_clear()
    again = Together(tmp_path / "parts", Turns())
    pool(3)
    prepare(tmp_path, "out", again)
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    assert again.before == 4
    assert list(again.told()) == ["prepare  4 images had been decoded already, by a run that was stopped"]
    again.remove()
    assert not (tmp_path / "parts").exists()


class OneOfTwo(Turns):
    """One of two processes, who takes every other piece."""

    def __init__(self, rank: int, ended: bool) -> None:
        self.rank, self.count, self.on_this_machine, self.ended = rank, 2, 2, ended

    def mine(self, number: int) -> bool:
        return number % 2 == self.rank

    def done(self) -> None:
        pass

    def others_done(self) -> bool:
        return self.ended


def test_the_first_of_two_gathers_what_both_found(tmp_path: Path, pool) -> None:
    images(tmp_path)
    plain = prepare(tmp_path, "plain")
    pool(2)
    second = Together(tmp_path / "parts", OneOfTwo(1, True))
    assert prepare(tmp_path, "out", second) == {}
    assert not (tmp_path / "out").exists()
    pool(3)
    first = Together(tmp_path / "parts", OneOfTwo(0, True))
    assert prepare(tmp_path, "out", first) == plain
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    assert not first.unseen


def test_what_another_process_has_left_nowhere_the_first_examines_itself_and_says_so(tmp_path: Path, pool) -> None:
    images(tmp_path)
    prepare(tmp_path, "plain")
    pool(5)
    alone = Together(tmp_path / "parts", OneOfTwo(0, True))
    prepare(tmp_path, "out", alone)
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")
    assert alone.unseen == 4
    assert "4 images that other processes had taken were decoded by the first one" in next(alone.told())


def test_what_lies_on_the_disk_is_found_by_what_it_was_made_of(tmp_path: Path) -> None:
    file = write(tmp_path / "a.png", encoded(scene(), "PNG"))
    records = [Record("a.png", POOL, file), Record("gone.png", POOL, tmp_path / "gone.png")]
    parts = Parts(tmp_path / "parts", WORK)
    key = parts.key(records)
    examine_into(records, key, work=WORK, folder=parts.folder)
    assert key not in parts
    parts.look()
    found = parts.fetch(key)
    assert [type(one).__name__ for one in found or ()] == ["Examined", "Rejected"]
    assert Parts(tmp_path / "parts", WORK).before == {key}

    (place,) = parts.folder.iterdir()
    content = bytearray(place.read_bytes())
    content[-5] ^= 1
    place.write_bytes(content)
    turned = Parts(tmp_path / "parts", WORK)
    assert turned.fetch(key) is None, "a bit has turned"
    os.utime(file, ns=(0, 0))
    assert parts.key(records) != key
    other = Parts(tmp_path / "parts", Work(partial(decode, size=8, channels=3)))
    assert other.folder != parts.folder
    assert not parts.folder.exists(), "of other settings"


def test_what_lies_on_the_disk_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslflow.ingest.images.parts.examine", lambda *_: [subprocess.Popen])
    parts = Parts(tmp_path / "parts", WORK)
    examine_into([], bytes(16), work=WORK, folder=parts.folder)
    parts.look()
    assert bytes(16) in parts
    assert parts.fetch(bytes(16)) is None


def test_two_processes_of_torchrun_prepare_what_one_does(tmp_path: Path, pool) -> None:
    images(tmp_path)
    pool(5)
    prepare(tmp_path, "plain")
    settings = "data: {source: folder, path: raw, image_size: 16, channels: 3, workers: 1}\n"
    write(tmp_path / "params.yaml", settings.encode())
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "sslflow.stages.prepare"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 images (8 pool)") == 1
    assert "other processes" not in done.stdout
    assert contents(tmp_path / paths.PREPARED) == contents(tmp_path / "plain")
    assert not (tmp_path / paths.PARTS).exists()
