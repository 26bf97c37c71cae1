"""Names reach a shell by way of dvc.yaml, and pages by way of the report: they do nothing there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sslflow.commands.check import check
from sslflow.settings.params import ParamsError, load
from sslflow.stages import scan
from tests.conftest import RECIPE, ROOT

ODD = (
    "a; touch harmed",
    "$(touch harmed)",
    "`touch harmed`",
    "a && touch harmed",
    "a|b",
    "a b",
    "-a",
    "a\nb",
    "'a",
    "",
)
COMMAND = re.compile(r"\$\{([^}]+)\}")
WORDS = {"item.method", "item.control", "item.seed", "key"}
"""Of dvc.yaml's commands, all taken from what `odd_names` looks at."""


def write(folder: Path, params: dict[str, Any]) -> Path:
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)
    return folder / "params.yaml"


@pytest.mark.parametrize("section", ["domains", "clips", "starts", "run.seeds", "run.methods", "run.controls"])
def test_a_name_that_a_shell_would_take_for_more_is_refused(section: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ODD:
        params = load(RECIPE)
        outer, _, key = section.partition(".")
        if key:
            params[outer][key] = [name]
        else:
            params[outer] = {name: {}}
        file = write(tmp_path, params)
        with pytest.raises(ParamsError, match=re.escape(f"{section}: {name!r} can't be a name")):
            check(file)
        with pytest.raises(ParamsError, match="can't be a name"):
            scan.main()


def test_commands_hold_no_other_words_of_params() -> None:
    """But `run.launch`, which is a command by its purpose."""
    lines = [line for line in (ROOT / "dvc.yaml").read_text().splitlines() if line.strip().startswith("cmd:")]
    assert {word for line in lines for word in COMMAND.findall(line)} == WORDS | {"run.launch"}


def test_dvc_runs_nothing_where_a_name_is_a_command(tmp_path: Path) -> None:
    """The stage before all others stops it."""
    params = load(RECIPE)
    params["run"]["seeds"] = ["0; touch harmed"]
    write(tmp_path, params)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  scan:\n    cmd: python -m sslflow.stages.scan\n"
        "    always_changed: true\n    outs: [data/listings]\n"
        '  pretrain:\n    matrix: {seed: "${run.seeds}"}\n    deps: [data/listings]\n    cmd: echo ${item.seed}\n'
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "can't be a name" in done.stderr
    assert not (tmp_path / "harmed").exists()
