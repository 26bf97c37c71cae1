"""The pipeline's stages, run in a folder of a benchmark's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.kept import ROOT


def run_python(arguments: list[str], folder: Path, log: str, what: str) -> None:
    """Run Python with the arguments and one thread, in the folder, with the project's packages; what it prints goes to
    `logs/LOG.txt` there. Raises `RuntimeError` with the end of that, and `what` has failed, where it fails."""
    file = folder / "logs" / f"{log}.txt"
    file.parent.mkdir(exist_ok=True)
    packages = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with file.open("w") as handle:
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": packages, "OMP_NUM_THREADS": "1"},
        )
    if ended.returncode:
        raise RuntimeError(f"{what} failed:\n{file.read_text()[-3000:]}")
