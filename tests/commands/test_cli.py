"""The command line, and the check of the whole of params.yaml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from sslflow import cli
from sslflow.commands import check
from sslflow.settings.params import ParamsError
from sslflow.training.method import names

PARAMS = (tiny.ROOT / "params.yaml").read_text()


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sslflow", *words])
    code = cli.main()
    said = capsys.readouterr()
    return code, said.out, said.err


def test_plan_says_what_would_run_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.make(tmp_path / "project"))
    code, out, _ = call(capsys, monkeypatch, "plan", "pretrain@a-0")
    assert code == 0
    assert out == (
        "* prepare       will run    never ran\n"
        "* pretrain@a-0  will run    never ran\n"
        "2 stages: 0 up to date, 2 will run, 0 may run\n"
    )
    code, _, err = call(capsys, monkeypatch, "plan", "pretain")
    assert code == 1
    assert "did you mean 'pretrain'" in err


def test_methods_are_listed_with_their_idea(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "methods")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == names()
    assert all(len(line.split()) > 4 for line in out.splitlines())


def test_clean_only_says_unless_it_is_sure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.make(tmp_path / "project")
    monkeypatch.chdir(folder)
    (folder / "prepared").write_text("h")
    (folder / "old").mkdir()
    lock = 'schema: "2.0"\nstages:\n  pretrain@old-0:\n    cmd: x\n    outs:\n    - path: old\n'
    (folder / "dvc.lock").write_text(lock)
    code, out, _ = call(capsys, monkeypatch, "clean")
    assert (code, out) == (0, "pretrain@old-0: old\n1 left over; `sslflow clean --yes` removes them\n")
    assert (folder / "old").exists()
    code, out, _ = call(capsys, monkeypatch, "clean", "--yes")
    assert code == 0
    assert "removed 1" in out
    assert not (folder / "old").exists()
    assert "pretrain@old-0" not in (folder / "dvc.lock").read_text()


def test_run_hands_on_to_the_runner(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sslflow.cli", "run", "--jobs", "1", "pretain"],
        cwd=tiny.make(tmp_path / "project"),
        env={"PYTHONPATH": str(tiny.ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no stage 'pretain', did you mean 'pretrain'?" in done.stderr


# The check


def problems(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    text = PARAMS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "params.yaml").write_text(text)
    try:
        check.check(tmp_path / "params.yaml")
    except ParamsError as error:
        return error.problems
    return []


def test_the_settings_that_the_project_ships_are_in_order(tmp_path: Path) -> None:
    assert problems(tmp_path) == []


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = "\n".join(
        problems(
            tmp_path,
            ("image_size: 28", "image_sise: 28"),
            ("temperature: 0.2", "temperature: -1"),
            ("lr: 3e-3\n  weight_decay: 1e-4", "lr: fast\n  weight_decay: 1e-4"),
            ("\nprobe:", "\nprobes:"),
            ("seeds: [0, 1]", "seeds: [0, 0]"),
        )
    )
    assert "data.image_sise: unknown, did you mean 'image_size'?" in found
    assert "methods.simclr.temperature: should be greater than 0, found -1" in found
    assert "methods.rotation.train.lr: should be" in found
    assert "methods.barlow_twins.train.lr: should be" in found
    assert "probes: no stage reads this section, did you mean 'probe'?" in found
    assert "run.seeds names one twice" in found


def test_a_method_that_does_not_exist_or_has_no_settings(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        ("methods: [simclr, rotation", "methods: [simclrr, rotation, barlow_twins"),
        ("\n  barlow_twins:", "\n  barlow_twin:"),
    )
    assert "run.methods: there is no method 'simclrr', did you mean 'simclr'?" in found
    assert "methods.barlow_twin: there is no such method, did you mean 'barlow_twins'?" in found
    assert "run.methods: 'barlow_twins' has no settings; add a block methods.barlow_twins" in found


def test_names_of_adaptation_are_checked(tmp_path: Path) -> None:
    for asked, wrong, words in (
        ("settings: [cda, opda]", "settings: [cda, opa]", "no setting 'opa', did you mean"),
        (
            "methods: [source_only, dance,",
            "methods: [source_only, danse,",
            "no adaptation method 'danse', did you mean",
        ),
    ):
        assert asked in PARAMS
        (tmp_path / "params.yaml").write_text(PARAMS.replace(asked, wrong))
        with pytest.raises(ParamsError, match=words):
            check.check(tmp_path / "params.yaml")


def test_no_params_file_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, monkeypatch, "check")
    assert code == 1
    assert "there is no such file" in err
