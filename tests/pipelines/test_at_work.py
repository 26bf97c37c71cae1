"""Which stages are running now, as DVC's own lock file tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pipelines.at_work import LOCKS, at_work, last_line
from pipelines.plan import Planned


def stage(name: str, *outs: str) -> Planned:
    return Planned(name, (), "stale", (), outs=outs)


STAGES = [stage("prepare", "data/prepared"), stage("pretrain@a-0", "encoders/a-0", "curves/a-0")]


def lock(folder: Path, written: dict[str, int]) -> None:
    (folder / LOCKS).parent.mkdir(parents=True, exist_ok=True)
    held = {str(folder / path): {"pid": process, "cmd": "dvc repro"} for path, process in written.items()}
    (folder / LOCKS).write_text(json.dumps({"read": {}, "write": held}))


def test_a_stage_is_at_work_while_a_process_writes_what_it_makes(tmp_path: Path) -> None:
    assert at_work(STAGES, tmp_path) == [], "nothing has run yet"
    lock(tmp_path, {"curves/a-0": os.getpid(), "elsewhere": os.getpid()})
    assert at_work(STAGES, tmp_path) == ["pretrain@a-0"]


def test_a_process_that_was_killed_is_not_at_work(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock(tmp_path, {"curves/a-0": ended.pid})
    assert at_work(STAGES, tmp_path) == []


def test_a_lock_file_that_is_being_written_is_no_error(tmp_path: Path) -> None:
    lock(tmp_path, {})
    (tmp_path / LOCKS).write_text('{"read": {')
    assert at_work(STAGES, tmp_path) == []


def test_the_last_line_of_a_log(tmp_path: Path) -> None:
    assert last_line("prepare", tmp_path) == ""
    (tmp_path / "work/logs").mkdir(parents=True)
    (tmp_path / "work/logs/prepare.log").write_text("first\nprepare  200 images\n\n")
    assert last_line("prepare", tmp_path) == "prepare  200 images"
