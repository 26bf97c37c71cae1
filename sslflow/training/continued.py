"""Going on from weights that exist, so that what they know is not lost: which layers learn, when, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sslflow.networks.encoder import Encoder
from sslflow.networks.starts import RANDOM
from sslflow.settings.params import Fraction, Natural, Positive
from sslflow.training.optim import warmup_cosine

Keep = Literal["best", "last"]

LAST_BLOCKS = ((1000, 2), (4000, 6))
"""Up to how many images how many blocks learn; with more images, all (docs/starts.md says what was tried)."""


@dataclass(frozen=True, kw_only=True)
class Continued:
    """What methods start from: `weights` is `random`, or a name in `starts`, and then the rest counts. In the first
    `heads_first` of the steps the encoder rests, so that it isn't led astray by heads that know nothing yet; then its
    last `blocks` learn (0: by the number of images), at the rate `lr`. `keep`: the `best` encoder, step 0 among them,
    by kNN on labelled training images where there are labels, or the `last`. `teacher`: a name in `starts`, whose
    weights a method with a frozen teacher learns from; `random`: there is none."""

    weights: str = RANDOM
    heads_first: Fraction = 0.1
    blocks: Natural = 0
    lr: Positive = 1e-4
    keep: Keep = "best"
    teacher: str = RANDOM

    @property
    def given(self) -> bool:
        """Whether there are weights to go on from."""
        return self.weights != RANDOM

    def rate(self, step: int, steps: int, warmup: float) -> float:
        """The encoder's learning rate at `step` of `steps`: 0 while the heads learn, then `warmup_cosine`."""
        first = round(self.heads_first * steps)
        return self.lr * warmup_cosine(step - first, steps - first, warmup) if step >= first else 0.0


def hold(encoder: Encoder, blocks: int, images: int) -> int:
    """Let only the encoder's last `blocks` learn, with what follows them; how many blocks that are. 0: as many as suit
    the number of images."""
    from timm.models import group_parameters

    network = encoder.network
    layers = group_parameters(network, network.group_matcher(coarse=False))
    wanted = blocks or next((count for most, count in LAST_BLOCKS if images <= most), len(layers))
    learning = {name for number in sorted(layers)[-wanted:] for name in layers[number]}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in learning)
    return min(wanted, len(layers))
