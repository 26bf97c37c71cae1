"""Passages of text as they are read, to what a method sees: with words hidden, in pairs, or as words with their
neighbours."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.data.fields import Fields
from sslflow.data.formats import TextFormat
from sslflow.data.tokens import BETWEEN, FIRST, MASK, PAD, SPECIAL
from sslflow.settings.params import Count, Fraction, NonNegative
from sslflow.views.images import Views

LOWEST = len(SPECIAL)
"""The first token that is a word or a part of one."""
MASKED, UNCHANGED = 0.8, 0.9
"""Of the words that are asked for, the share that `[MASK]` takes the place of, and from which on they stay as they are;
between the two another word stands there (arXiv:1810.04805)."""


class TextViews(Views):
    """As `Views` of images: what is read to tensors `(n, …)`, with all that is drawn by chance. Reads the fields
    `tokens`, `following` and `groups`, whose numbers are of documents."""

    def __init__(self, format: TextFormat) -> None:
        nn.Module.__init__(self)  # that of images would normalise them
        self.format = format

    def shown(self, views: tuple[Tensor, ...]) -> list[Tensor]:
        """What of the views can be read: tokens, int64 `(n, length)`."""
        return [views[0]]


class Hiding(nn.Module):
    """Hides words of tokens."""

    continues: Tensor

    def __init__(self, format: TextFormat, mask: float, whole_words: bool) -> None:
        super().__init__()
        self.vocabulary, self.mask = format.vocabulary, mask
        continues = torch.zeros(format.vocabulary, dtype=torch.bool)
        continues[list(format.inside) if whole_words else []] = True
        self.register_buffer("continues", continues, persistent=False)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `(n, length)` with a share `mask` of those that are words hidden, at least one of each row, and what
        stood there, int64 `(n, length)`, −1 where that isn't asked. With whole words the last of them may go beyond
        the share."""
        words = tokens >= LOWEST
        number = (~self.continues[tokens]).cumsum(1).clamp_max(tokens.shape[1] - 1)
        noise = torch.rand(tokens.shape, device=tokens.device).gather(1, number).masked_fill(~words, 2.0)
        count = (self.mask * words.sum(1)).round().long().clamp_min(1)
        last = noise.sort(dim=1).values.gather(1, (count - 1)[:, None])
        asked = words & (noise <= last)
        kind = torch.rand(tokens.shape, device=tokens.device)
        others = torch.randint(LOWEST, self.vocabulary, tokens.shape, device=tokens.device)
        changed = torch.where(kind < MASKED, MASK, torch.where(kind < UNCHANGED, others, tokens))
        return torch.where(asked, changed, tokens), torch.where(asked, tokens, -1)


class HiddenWordViews(TextViews):
    """Passages with words hidden, int64 `(n, length)`, and the words that stood there, −1 elsewhere."""

    def __init__(self, format: TextFormat, *, mask: Fraction = 0.15, whole_words: bool = False) -> None:
        """`mask`: share of the tokens that are asked for; `whole_words`: of a word all tokens or none."""
        super().__init__(format)
        self.hide = Hiding(format, mask, whole_words)

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        return self.hide(shortened(fields["tokens"].long()))


class PairViews(TextViews):
    """Pairs of passages, int64 `(n, length)`: `[CLS]`, the end of one, `[SEP]`, the beginning of another, `[SEP]`, and
    whether the second follows the first, int64 `(n,)`: 1 or 0, each half of the time, −1 where it can't be asked, which
    may be all of a batch. What doesn't follow is what follows a passage of another document of the batch."""

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        tokens, following, groups = fields["tokens"].long(), fields["following"].long(), fields["groups"]
        has_one = following[:, 0] != PAD
        others = (groups[:, None] != groups) & has_one
        asked = has_one & others.any(1)
        chosen = torch.rand(others.shape, device=groups.device).masked_fill(~others, -1.0).argmax(1)
        follows = torch.rand(len(groups), device=groups.device) < 0.5
        second = torch.where((follows | ~asked)[:, None], following, following[chosen])
        return shortened(joined(tokens, second)), torch.where(asked, follows.long(), -1)


class HiddenWordPairViews(PairViews):
    """Pairs of passages with words hidden, the words that stood there, and whether the second follows the first."""

    def __init__(self, format: TextFormat, *, mask: Fraction = 0.15, whole_words: bool = False) -> None:
        """As for passages with hidden words."""
        super().__init__(format)
        self.hide = Hiding(format, mask, whole_words)

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        pairs, follows = super().forward(fields)
        return *self.hide(pairs), follows


class WindowViews(TextViews):
    """Words of passages, int64 `(n, length)`, 0 where there is none, the frequent ones thinned out; how far the
    neighbours of each reach, int64 `(n, length)`; and words drawn by chance, int64 `(n, drawn)`."""

    kept: Tensor
    upto: Tensor

    def __init__(self, format: TextFormat, *, window: Count = 5, sample: NonNegative = 1e-3, drawn: Count = 16) -> None:
        """`window`: the farthest neighbour; of each word by chance 1 to so many (arXiv:1301.3781). `sample`: a word
        that makes up a larger share of the text is left out at random, the more often the larger its share; 0: none
        (arXiv:1310.4546). `drawn`: words of each passage that stand against neighbours, by their share to the power
        of 0.75. Raises `ValueError` for text whose words were not counted."""
        super().__init__(format)
        if not format.counts:
            raise ValueError("the words of this text were not counted when it was prepared; run `dvc repro prepare`")
        self.window, self.drawn = window, drawn
        counts = torch.tensor(format.counts, dtype=torch.float64)
        counts[:LOWEST] = 0
        relative = counts / (sample * counts.sum()) if sample else torch.zeros_like(counts)
        self.register_buffer(
            "kept", ((relative.sqrt() + 1) / relative).nan_to_num(1.0, 1.0).clamp_max(1).float(), persistent=False
        )
        self.register_buffer("upto", (counts**0.75).cumsum(0) / (counts**0.75).sum(), persistent=False)

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        tokens = fields["tokens"].long()
        device = tokens.device
        kept = (tokens >= LOWEST) & (torch.rand(tokens.shape, device=device) < self.kept[tokens])
        order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
        words = shortened((tokens * kept).gather(1, order))
        reach = torch.randint(1, self.window + 1, words.shape, device=device)
        noise = torch.rand(len(words), self.drawn, dtype=self.upto.dtype, device=device)
        return words, reach, torch.searchsorted(self.upto, noise).clamp_max(self.format.vocabulary - 1)


def shortened(tokens: Tensor) -> Tensor:
    """Tokens without the columns at the end that are padding in all rows."""
    longest = int((tokens != PAD).sum(1).max()) if len(tokens) else 1
    return tokens[:, : max(1, longest)]


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Pairs of passages, both int64 `(n, length)`, as one of that length: `[CLS]`, the last tokens of the first,
    `[SEP]`, the first tokens of the second, `[SEP]`; each has half of the room, and what the other leaves. Where there
    is no second one, the first as it is."""
    length = first.shape[1]
    room = length - 3
    one, two = ((passage != PAD).sum(1, keepdim=True) - 2 for passage in (first, second))
    alone, two = two < 0, two.clamp_min(0)
    most = torch.maximum(torch.tensor(room - room // 2, device=first.device), room - two)
    ours = torch.minimum(one, most)
    theirs = torch.minimum(two, room - ours)
    place = torch.arange(length, device=first.device)
    from_first = first.gather(1, (place + one - ours).clamp(0, length - 1))
    from_second = second.gather(1, (place - ours - 1).clamp(0, length - 1))
    pair = torch.where(place <= ours, from_first, torch.where(place <= ours + 1 + theirs, from_second, PAD))
    pair = torch.where(place == 0, FIRST, pair)
    pair = torch.where((place == ours + 1) | (place == ours + theirs + 2), BETWEEN, pair)
    return torch.where(alone, first, pair)
