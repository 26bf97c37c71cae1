"""Images and texts in one space: what tells which text fits an image, kept in one file with its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sslflow.data.tokens import PAD, encoded
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import rebuilt
from sslflow.networks.text import TextEncoder
from sslflow.runtime.files import reading, replacing

KEY = "sslflow.matcher"


class Matcher(nn.Module):
    """Two encoders, each with a linear layer into the space that they share; `facts`, plain values, what else is known
    of it; `tokenizer`, JSON, what makes tokens of texts."""

    def __init__(
        self, encoder: Encoder, text_encoder: TextEncoder, image_head: nn.Linear, text_head: nn.Linear
    ) -> None:
        super().__init__()
        self.encoder, self.text_encoder = encoder, text_encoder
        self.image_head, self.text_head = image_head, text_head
        self.facts: dict[str, Any] = {}
        self.tokenizer = ""

    def images(self, images: Tensor) -> Tensor:
        """Normalised images as vectors of length 1, `(n, dim)`."""
        return self.of_features(self.encoder(images))

    def of_features(self, features: Tensor) -> Tensor:
        """The same of what the encoder gives for them."""
        return F.normalize(self.image_head(features).float(), dim=1)

    def texts(self, tokens: Tensor) -> Tensor:
        """Tokens, int64 `(n, length)`, as vectors of length 1, `(n, dim)`."""
        return F.normalize(self.text_head(self.text_encoder(trimmed(tokens))).float(), dim=1)

    @torch.no_grad()
    def of_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts as vectors of length 1, `(n, dim)`, on the CPU."""
        from tokenizers import Tokenizer  # takes long to load

        tokens = encoded(Tokenizer.from_str(self.tokenizer), texts, self.text_encoder.length)
        device = self.text_head.weight.device
        parts = torch.from_numpy(tokens).long().split(256)
        return torch.cat([self.texts(part.to(device)).cpu() for part in parts])


def trimmed(tokens: Tensor) -> Tensor:
    """Tokens `(n, length)` without the last columns that hold nothing but padding; at least one column stays."""
    there = (tokens != PAD).any(dim=0)
    return tokens[:, : max(1, int(there.nonzero().max()) + 1 if there.any() else 1)]


def save_matcher(matcher: Matcher, file: Path) -> None:
    """Write it, with all that rebuilds it, to one safetensors file, the same bytes for the same content."""
    described = {
        "encoder": matcher.encoder.settings,
        "text_encoder": matcher.text_encoder.settings,
        "dim": matcher.image_head.out_features,
        "facts": matcher.facts,
        "tokenizer": matcher.tokenizer,
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in matcher.state_dict().items()}
    with replacing(file) as temporary:
        save_file(weights, temporary, metadata={KEY: json.dumps(described, sort_keys=True)})


def load_matcher(file: Path) -> Matcher:
    """The matcher that `save_matcher` wrote, on the CPU, in evaluation mode. Raises `ValueError` for any other file."""
    with reading(file), safe_open(file, framework="pt") as content:
        metadata = content.metadata() or {}
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    if KEY not in metadata:
        raise ValueError(f"{file}: expected a model that compares images and texts, found another file")
    with reading(file):
        described = json.loads(metadata[KEY])
        encoder, text_encoder = rebuilt(described["encoder"]), TextEncoder(**described["text_encoder"])
        heads = (nn.Linear(one.dim, described["dim"], bias=False) for one in (encoder, text_encoder))
        matcher = Matcher(encoder, text_encoder, *heads)
        matcher.load_state_dict(weights)
        matcher.facts, matcher.tokenizer = described["facts"], described["tokenizer"]
    return matcher.eval()
