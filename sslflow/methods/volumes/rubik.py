"""Rubik's cube: tell in which order the eight blocks of a volume were laid out, and how each was turned
(arXiv:1910.02241)."""

from __future__ import annotations

import itertools
import math
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import VolumeFormat
from sslflow.networks.heads import mlp
from sslflow.networks.volumes import VolumeEncoder
from sslflow.settings.params import Count, Fraction, NonNegative
from sslflow.training.method import Batch, Choices, Losses, Method
from sslflow.views.orientations import turned_back, turned_by
from sslflow.views.volumes import BLOCKS, Blocks, BlockViews, assembled

HALF_TURNS = (0, 2, 5, 8)
"""The `ORIENTATIONS` that two bits stand for: as it is, by half a turn about the first axis, about the second, about
both, which is about the third."""


class Cubes(BlockViews):
    """Blocks in their true order and as they are; numbers below 2^62 `(n, puzzles)`, from which the method takes the
    orders that it lays them out in; bits `(n, 8, 2)`, whether each is turned about the first axis and about the second;
    and the volume."""

    def __init__(
        self, format: VolumeFormat, *, puzzles: Count = 4, blocks: Blocks = Blocks(), flip: Fraction = 0.5
    ) -> None:
        """`puzzles`: orders of each volume's blocks in a step; the rest as for `BlockViews`."""
        super().__init__(format, blocks=blocks, flip=flip)
        self.puzzles = puzzles

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        blocks, whole = super().forward(fields)
        numbers = torch.randint(2**62, (len(whole), self.puzzles), device=whole.device)
        bits = torch.randint(2, (len(whole), BLOCKS, 2), device=whole.device)
        return blocks, numbers, bits, whole


class Rubik(Method):
    """Blocks pass through the encoder one by one, turned, so that it is their features that are laid out: many orders
    of a volume cost one pass. Settings: `permutations`, the number of orders to tell apart; `order` and `orientation`,
    the paper's a and b, by which the two losses are weighted; `per_block`, the width that a block's features are
    brought to; `hidden`, that of the classifiers' hidden layers."""

    encoder: VolumeEncoder  # pyright: ignore[reportIncompatibleVariableOverride]

    Views = Cubes
    additive = True

    permutations: Tensor
    half_turns: Tensor

    def __init__(
        self,
        encoder: VolumeEncoder,
        *,
        permutations: Annotated[int, Ge(2), Le(1000)] = 100,
        order: NonNegative = 0.5,
        orientation: NonNegative = 0.5,
        per_block: Count = 64,
        hidden: Count = 256,
    ) -> None:
        """Raises `ValueError` where both weights are 0."""
        super().__init__()
        if not order and not orientation:
            raise ValueError("methods.rubik: order and orientation are both 0; set one of them above")
        self.encoder, self.narrow = encoder, mlp(encoder.dim, per_block)
        self.weights = {"order": order, "orientation": orientation}
        self.chance = order * math.log(permutations) + orientation * math.log(2)
        self.places = mlp(BLOCKS * per_block, hidden, permutations) if order else None
        self.turns = mlp(BLOCKS * per_block, hidden, 2 * BLOCKS) if orientation else None
        self.register_buffer("permutations", distant_permutations(permutations))
        self.register_buffer("half_turns", torch.tensor(HALF_TURNS))

    def training_step(self, batch: Batch) -> Losses:
        blocks, numbers, bits, _ = batch.views
        given = self.permutations[numbers % len(self.permutations)]
        orders, turns = self._solve(blocks, given, bits)
        losses: Losses = {"loss": blocks.new_zeros(()), "chance_loss": blocks.new_zeros(()) + self.chance}
        if turns is not None:
            laid_out = shuffled(bits, given)
            right = ((turns > 0) == laid_out.bool()).float().mean()
            losses |= {"orientation_accuracy": right, "accuracy": right, "chance_accuracy": right.new_tensor(0.5)}
            losses["loss"] = losses["loss"] + self.weights["orientation"] * orientation_loss(turns, laid_out)
        if orders is not None:
            answers = (numbers % len(self.permutations)).flatten()
            losses |= {
                "accuracy": (orders.flatten(0, 1).argmax(dim=1) == answers).float().mean(),
                "chance_accuracy": orders.new_tensor(1 / len(self.permutations)),
            }
            losses["loss"] = losses["loss"] + self.weights["order"] * F.cross_entropy(orders.flatten(0, 1), answers)
        return losses

    def _solve(self, blocks: Tensor, given: Tensor, bits: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Logits of all permutations, `(n, puzzles, permutations)`, and of both half turns of the block in each place,
        `(n, puzzles, 8, 2)`, of blocks that are turned as the `bits` say and laid out in the orders `given`, `(n,
        puzzles, 8)`. All blocks together answer both: alone, one turned is like another in another place."""
        turned = turned_by(blocks.flatten(0, 1), self.half_turns[orientations(bits)].flatten())
        features = self.narrow(self.encoder(turned)).unflatten(0, (-1, BLOCKS))
        laid_out = shuffled(features, given).flatten(2)
        found = (None if head is None else head(laid_out.flatten(0, 1)).float() for head in (self.places, self.turns))
        orders, turns = (None if one is None else one.unflatten(0, given.shape[:2]) for one in found)
        return orders, None if turns is None else turns.unflatten(2, (BLOCKS, 2))

    def choices(self, images: int) -> Choices:
        return Choices(len(self.permutations), "permutations, and half turns of each block")

    @torch.no_grad()
    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """A puzzle of each volume, and the puzzle turned and laid out as the classifiers say."""
        blocks, numbers, bits, whole = batch.views
        given = self.permutations[numbers[:, :1] % len(self.permutations)]
        orders, turns = self._solve(blocks, given, bits)
        own = turned_by(blocks.flatten(0, 1), self.half_turns[orientations(bits)].flatten()).unflatten(0, (-1, BLOCKS))
        shown = shuffled(own, given)[:, 0]
        told = shuffled(bits, given) if turns is None else (turns > 0).long()
        back = turned_back(shown.flatten(0, 1), self.half_turns[orientations(told)].flatten())
        order = given if orders is None else self.permutations[orders.argmax(dim=2)]
        solved = shuffled(back.unflatten(0, (-1, BLOCKS)), order.argsort(dim=2))[:, 0]
        side = whole.shape[-1]
        return {"shown": assembled(shown, side), "solved": assembled(solved, side), "volume": whole}


def orientations(bits: Tensor) -> Tensor:
    """Places in `HALF_TURNS` of bits `(…, 2)`."""
    return bits[..., 0] + 2 * bits[..., 1]


def orientation_loss(logits: Tensor, bits: Tensor) -> Tensor:
    """Binary cross entropy of the logits of two half turns with whether each was made, `(…, 8, 2)` both: scalar, a mean
    over all; chance level is ln 2."""
    return F.binary_cross_entropy_with_logits(logits, bits.to(logits.dtype))


def shuffled(blocks: Tensor, orders: Tensor) -> Tensor:
    """Blocks `(n, 8, …)`, or their features, in each of the `orders` `(n, puzzles, 8)`: `(n, puzzles, 8, …)`; place i
    of an order holds the number of the block that comes to lie there."""
    return blocks[torch.arange(len(blocks), device=blocks.device)[:, None, None], orders]


def distant_permutations(count: int) -> Tensor:
    """Permutations of eight blocks that differ in as many places as can be, `(count, 8)`, always the same ones.

    Each is the one of all 40,320 whose nearest among those before it is furthest from it; of equals the first.
    """
    every = torch.tensor(list(itertools.permutations(range(BLOCKS))), dtype=torch.uint8)
    nearest = torch.full((len(every),), BLOCKS, dtype=torch.uint8)
    chosen = [0]
    while len(chosen) < count:
        apart = (every != every[chosen[-1]]).sum(dim=1, dtype=torch.uint8)
        nearest = torch.minimum(nearest, apart)
        chosen.append(int(nearest.argmax()))
    return every[chosen].long()
