"""How runs on clips go: the sections of params.yaml that all stages of a method for clips read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from sslflow.audiovisual.method import find
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import compute
from sslflow.settings.params import Count, Fraction, Over, Positive, Schemas
from sslflow.training.fit import fit
from sslflow.training.run import Journal


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`clips`: the set to train and to test on; `start`: what the encoder of pictures starts from, a name in the
    section `starts`, or the file of an encoder ('': random weights); `held_out`: share of the training sources on which
    a method that needs a threshold is not trained, but which choose it; a row of the curve every `log_every` steps,
    with diagnostics of frames of `diagnostics` clips, and a checkpoint every `checkpoint_seconds`."""

    clips: str = ""
    start: str = ""
    held_out: Fraction = 0.1
    log_every: Count = 20
    diagnostics: Annotated[int, Ge(2)] = 128
    checkpoint_seconds: Positive = 60

    @property
    def journal(self) -> Journal:
        """What is written down."""
        return Journal(
            log_every=self.log_every, diagnostics=self.diagnostics, checkpoint_seconds=self.checkpoint_seconds
        )


def sections(method: str) -> Schemas:
    """What builds a method for clips, its views and its run: sections, and what they configure."""
    kind, block = find(method), f"clip_methods.{method}"
    return {
        "compute": compute,
        "pretrain_clips": Plan,
        "clip_encoders.picture": Encoder,
        "clip_encoders.sound": Encoder,
        block: kind,
        f"{block}.views": Over("clip_views", kind.Views),
        f"{block}.train": Over("clip_train", fit),
    }
