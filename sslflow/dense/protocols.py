"""The ways in which it is learnt from annotated images what is where."""

from __future__ import annotations

from typing import Literal, get_args

Protocol = Literal["linear", "frozen", "tuned"]
"""One linear layer, or a decoder or a detector's head, on an encoder that is frozen; the same with the encoder trained
along."""
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""Of masks; boxes have all but the first."""
