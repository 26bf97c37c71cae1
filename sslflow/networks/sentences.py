"""A sentence encoder with weights that exist: passages, written out as text, to features by another tokenizer and a
BERT (arXiv:1810.04805, 1908.10084)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sslflow.data.tokens import decoded
from sslflow.runtime.files import read_json, reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LONGEST = 256
"""Tokens that a passage may have; what is beyond is not seen."""
TOGETHER = 32
"""Passages that pass at a time, of about the same length."""
LAYER = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""What PyTorch calls the parts of a layer, and what BERT's files do."""


class SentenceEncoder(nn.Module):
    """Passages as tokens of ours to features, the mean over the tokens that its own tokenizer makes of their text.
    `dim` is the width of the features; `facts`, plain values, what is known of the weights."""

    kind = "text"

    def __init__(self, folder: Path, ours: Tokenizer, facts: dict[str, Any]) -> None:
        """From a folder with `model.safetensors`, `config.json` and `tokenizer.json`, as published. Raises `ValueError`
        where these are no BERT's."""
        from tokenizers import Tokenizer

        super().__init__()
        config = read_json(folder / "config.json")
        with reading(folder / "tokenizer.json"):
            self._own = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._own.no_padding()
        self._ours, self.facts = ours, facts
        try:
            state = load_file(folder / "model.safetensors")
            self.words, self.places, self.parts = (
                nn.Embedding.from_pretrained(state[f"embeddings.{name}_embeddings.weight"], freeze=False)
                for name in ("word", "position", "token_type")
            )
            self.dim: int = config["hidden_size"]
            heads, inner, epsilon = (
                config[key] for key in ("num_attention_heads", "intermediate_size", "layer_norm_eps")
            )
            self.norm = nn.LayerNorm(self.dim, epsilon)
            self.layers = nn.ModuleList(
                nn.TransformerEncoderLayer(self.dim, heads, inner, 0.0, "gelu", epsilon, batch_first=True)
                for _ in range(config["num_hidden_layers"])
            )
            _fill(self.norm, state, "embeddings.LayerNorm")
            for number, layer in enumerate(self.layers):
                before = f"encoder.layer.{number}"
                for name, theirs in LAYER.items():
                    _fill(layer.get_submodule(name), state, f"{before}.{theirs}")
                for kind in ("weight", "bias"):
                    parts = [state[f"{before}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
                    getattr(layer.self_attn, f"in_proj_{kind}").data.copy_(torch.cat(parts))
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ValueError(f"{folder}: not the files of a BERT: {' '.join(str(error).split())[:120]}") from None
        self._own.enable_truncation(min(LONGEST, len(self.places.weight)))
        self.eval()

    def forward(self, tokens: Tensor) -> Tensor:
        """Features `(n, dim)` of tokens of ours, int64 `(n, length)`."""
        texts = decoded(self._ours, tokens.cpu().numpy())
        read = [one.ids for one in self._own.encode_batch(texts)]
        found = self.words.weight.new_empty(len(read), self.dim)
        device = found.device
        order = np.argsort([len(one) for one in read], kind="stable")
        for at in np.array_split(order, -(-len(order) // TOGETHER)) if len(order) else []:
            padded = pad_sequence([torch.tensor(read[one]) for one in at], batch_first=True)
            lengths = torch.tensor([len(read[one]) for one in at])
            there = torch.arange(padded.shape[1]) < lengths[:, None]
            found[torch.from_numpy(at).to(device)] = self.pooled(padded.to(device), there.to(device))
        return found

    def pooled(self, tokens: Tensor, there: Tensor) -> Tensor:
        """Features `(n, dim)` of its own tokens, int64 `(n, length)`, where `there`, bool, is true."""
        found = self.norm(self.words(tokens) + self.places.weight[: tokens.shape[1]] + self.parts.weight[0])
        for layer in self.layers:
            found = layer(found, src_key_padding_mask=~there)
        weights = there.unsqueeze(-1).to(found.dtype)
        return (found * weights).sum(1) / weights.sum(1).clamp_min(1)


def _fill(module: nn.Module, state: dict[str, Tensor], name: str) -> None:
    module.load_state_dict({kind: state[f"{name}.{kind}"] for kind in ("weight", "bias")})
