"""What an encoder sees of examples as they are, with nothing drawn by chance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslflow.data.encoded import brought
from sslflow.data.fields import Fields, stills
from sslflow.data.formats import AnyFormat, ImageFormat, TextFormat
from sslflow.data.normalise import Normalise


class Seen(nn.Module):
    """Examples of a format as an encoder sees them: normalised images, larger ones brought to its size, of clips the
    frame in their middle, normalised volumes, or the tokens of text."""

    def __init__(self, format: AnyFormat) -> None:
        super().__init__()
        self.size = format.size if isinstance(format, ImageFormat) else 0
        self.normalise = None if isinstance(format, TextFormat) else Normalise(format.mean, format.std)

    def forward(self, examples: Fields | Tensor) -> Tensor:
        """Float images `(n, c, h, w)` or volumes `(n, c, d, h, w)`, or int64 tokens `(n, length)`, of what was read of
        a data set, or of a tensor of that kind: uint8, or tokens."""
        found = seen_field(examples) if isinstance(examples, Fields) else examples
        if self.size and found.dtype == torch.uint8:
            found = brought(found, self.size)
        return found.long() if self.normalise is None else self.normalise(found)

    def restore(self, seen: Tensor) -> Tensor:
        """What `forward` makes `seen` of, as closely as uint8 allows."""
        return seen if self.normalise is None else self.normalise.restore(seen.float())


def seen_field(fields: Fields) -> Tensor:
    """The field that an encoder sees: uint8 images, or volumes, or tokens."""
    for name in ("volumes", "tokens"):
        if name in list(fields):
            return fields[name]
    return stills(fields)
