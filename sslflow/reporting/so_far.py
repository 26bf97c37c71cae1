"""How far a run is: what a report shows that is made before all stages have ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from sslflow.reporting.verdicts import Said


@dataclass(frozen=True)
class Line:
    """A stage that is not done."""

    stage: str
    state: str
    """`running`, `stopped`, `waiting` or `may run`."""
    words: str
    """How far it is, or why it will run."""


@dataclass(frozen=True)
class Unfinished:
    """A training that has not ended."""

    stage: str
    share: float
    """Of its steps that are done."""
    said: list[Said]
    silence: str
    """What it means where nothing is said."""
    drawn: list[tuple[str, str, Markup]]
    """The curves so far: title, explanation and drawing of each."""


@dataclass(frozen=True)
class SoFar:
    """What there is to say at one moment."""

    moment: str
    stages: int
    """Of the whole pipeline."""
    lines: Sequence[Line]
    trainings: Sequence[Unfinished]

    @property
    def done(self) -> int:
        """Stages that are up to date."""
        return self.stages - len(self.lines)
