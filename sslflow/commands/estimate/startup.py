"""What it takes to start a stage's process: measured as this one loads what they load. To be called before anything
else has loaded torch."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass

from sslflow.commands.estimate.clock import memory, taking
from sslflow.settings.params import read

LIGHT, TENSORS, NETWORKS = "light", "tensors", "networks"
LOADED = {
    LIGHT: ("sslflow.stages.scan", "sslflow.stages.prepare"),
    TENSORS: ("sslflow.stages.pseudolabel", "sslflow.stages.extract"),
    NETWORKS: ("timm", "sslflow.stages.pretrain", "sslflow.stages.finetune", "sslflow.stages.preview"),
}
"""Three kinds of stages by what they load, each with all of the one before: without torch, with it, with timm, too."""
KIND = {
    **dict.fromkeys(("scan", "prepare", "domains", "clips"), LIGHT),
    **dict.fromkeys(("pseudolabel", "audit_clusters", "score", "report"), TENSORS),
}


@dataclass(frozen=True)
class Startup:
    """Of one kind of stage."""

    seconds: float
    ram: int
    """Bytes that the process has then."""


SCRIPT = """
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
from sslflow.runtime.device import compute
from sslflow.settings.params import read
compute(**read({"compute": compute})["compute"])
"""


def startups(dvc_seconds: float) -> dict[str, Startup]:
    """By kind; `dvc_seconds` is what DVC takes beside each stage. A process of its own loads all of it, which takes
    longer than here, where some is loaded already. Raises `ParamsError` for wrong settings."""
    took, found = {}, {}
    for kind, modules in LOADED.items():
        with taking() as taken:
            for module in modules:
                importlib.import_module(module)
            if kind == TENSORS:
                compute = importlib.import_module("sslflow.runtime.device").compute
                compute(**read({"compute": compute})["compute"])
        took[kind], found[kind] = taken.seconds, memory()
    with taking() as whole:
        every = [module for modules in LOADED.values() for module in modules]
        subprocess.run([sys.executable, "-c", SCRIPT, *every], check=True)
    longer = max(1.0, whole.children / sum(took.values()))
    seconds = dvc_seconds
    starts = {}
    for kind, own in took.items():
        seconds += own * longer
        starts[kind] = Startup(seconds, found[kind])
    return starts
