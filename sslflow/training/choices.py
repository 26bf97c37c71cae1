"""What a loss chooses among. Imports no torch: who only reads curves needs it, too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choices:
    """Among how many answers a method's loss asks for the right one. All are equally likely, and chance level is
    ln `count`, unless the losses hold a `chance_loss`."""

    count: int
    among: str
    """What they are: `"views of the batch"`."""
