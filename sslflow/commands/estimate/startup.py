"""What it takes to start a stage's process: measured as this one loads what they load. To be called before anything
else has loaded torch."""

from __future__ import annotations

import importlib
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
    **dict.fromkeys(("pseudolabel", "score", "report"), TENSORS),
}


@dataclass(frozen=True)
class Startup:
    """Of one kind of stage."""

    seconds: float
    ram: int
    """Bytes that the process has then."""


def startups(dvc_seconds: float) -> dict[str, Startup]:
    """By kind; `dvc_seconds` is what DVC takes beside each stage. Raises `ParamsError` for wrong settings."""
    seconds, found = dvc_seconds, {}
    for kind, modules in LOADED.items():
        with taking() as taken:
            for module in modules:
                importlib.import_module(module)
            if kind == TENSORS:
                compute = importlib.import_module("sslflow.runtime.device").compute
                compute(**read({"compute": compute})["compute"])
        seconds += taken.seconds
        found[kind] = Startup(seconds, memory())
    return found
