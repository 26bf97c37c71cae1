"""Trainings that have not ended: how far they are, their curve so far, and what it says. Imports no torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from sslflow import paths
from sslflow.judging.verdict import JUDGED, Finding, findings
from sslflow.runtime.files import read_csv, read_json
from sslflow.training.choices import Choices

TRAINING = ("pretrain", "pretrain_clips")
"""The stages that leave a journal."""


@dataclass(frozen=True)
class Training:
    """A training as its last journal tells of it."""

    step: int
    steps: int
    seconds: float
    """Of training so far."""
    rows: list[dict[str, str]]
    """Of the curve, as in a curve's file."""
    findings: list[Finding]
    """What the curve says so far: while it runs, only what is sick."""

    @property
    def silence(self) -> str:
        """What it means that there are no findings."""
        early = self.step < JUDGED * self.steps
        return "Too early to judge." if early else "Nothing is wrong so far; what is well is judged at the end."

    @property
    def seconds_left(self) -> float:
        """Until its last step, at the speed that it has had."""
        return self.seconds / max(1, self.step) * (self.steps - self.step)


def training(stage: str, work: Path = paths.WORK) -> Training | None:
    """The training of a stage, such as `pretrain@simclr-0`; None where it has written nothing yet, or has ended."""
    group, _, run = stage.partition("@")
    if group not in TRAINING:
        return None
    # A folder goes when its run ends, and settings that were changed leave an older one behind.
    for journal in sorted((work / group).glob("*/journal.json"), key=_changed, reverse=True):
        try:
            facts, rows = read_json(journal), read_csv(journal.with_name("curve.csv"), ["step", "loss"])
        except (OSError, ValueError):  # its run has just ended, or left a part of it
            continue
        if facts["run"] == f"{group} {run}":
            return _told(facts, rows)
    return None


def _told(facts: dict, rows: list[dict[str, str]]) -> Training:
    numbers = [{name: float(value) for name, value in row.items() if value} for row in rows]
    said = findings(
        numbers, Choices(**facts["choices"]) if facts["choices"] else None, facts["steps"], facts.get("unit", "images")
    )
    return Training(facts["step"], facts["steps"], facts["seconds"], rows, said)


def _changed(file: Path) -> float:
    with contextlib.suppress(OSError):
        return file.stat().st_mtime
    return 0.0
