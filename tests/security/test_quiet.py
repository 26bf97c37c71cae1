"""Nothing is told to anybody."""

from __future__ import annotations

import configparser
import subprocess
import sys

from pipelines import server, workspace
from tests.conftest import ROOT


def test_dvc_tells_nothing() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    assert config["core"]["analytics"] == "false"
    assert '"DVC_NO_ANALYTICS": "1"' in (ROOT / "pipelines/workspace.py").read_text(), workspace.__name__


def test_prefect_tells_nothing_and_listens_to_this_machine_alone() -> None:
    code = (
        "from pipelines import flows; from prefect.settings import get_current_settings as now; "
        "print(now().server.analytics_enabled, __import__('os').environ['DO_NOT_TRACK'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "1"]
    assert server.HOST == "127.0.0.1"
