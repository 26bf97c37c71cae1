"""Crash insurance: the state of a run in an untracked folder, gone once the run has ended well."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from sslflow import paths
from sslflow.runtime.files import replacing, sha256


class Checkpoint:
    """The latest state of one run. Its folder's name is a fingerprint of all that the run depends on, so that no
    other run resumes from it."""

    def __init__(self, stage: str, fingerprint: str) -> None:
        self.file = paths.WORK / stage / fingerprint / "checkpoint.pt"

    def load(self) -> dict[str, Any] | None:
        """The state saved last, on the CPU, or None; only tensors and plain values are read, never pickled objects. A
        file that can't be read is put aside, and a line says so: the run begins anew."""
        if not self.file.exists():
            return None
        try:
            _require_whole(self.file)
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            if isinstance(state, dict) and "step" in state:
                return state
            reason = "it holds no state of a run"
        except Exception as error:  # of any kind, by where it was cut
            reason = " ".join(str(error).split()) or type(error).__name__
        aside = self.file.with_name(f"{self.file.name}.damaged")
        self.file.replace(aside)
        print(f"warning: {self.file} can't be read ({reason[:200]}): put aside as {aside.name}; begun anew", flush=True)
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state; whatever happens meanwhile, the earlier or the new one is whole on the disk."""
        with replacing(self.file) as temporary:
            torch.save(state, temporary)

    def remove(self) -> None:
        """Delete the state, once it is of no more use."""
        shutil.rmtree(self.file.parent, ignore_errors=True)


def _require_whole(file: Path) -> None:
    """Raises `ValueError` where a part of the file doesn't fit its check sum, at which `torch.load` doesn't look."""
    with zipfile.ZipFile(file) as parts:
        if damaged := parts.testzip():
            raise ValueError(f"{damaged} doesn't fit its check sum")


def fingerprint(settings: Any, *deps: Path) -> str:
    """Hash of the settings, of the files in `deps`, of torch's version and of the code of sslflow that is loaded."""
    loaded = {name: module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "sslflow"}
    code = {name: sha256(Path(file)) for name, file in loaded.items() if file}
    content = [settings, [sha256(file) for file in deps], torch.__version__, code]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]
