"""language NAME SEED: what a row knows of language, on test passages: that of a method's run, one with random weights
(`random`), or one that counts (`unigram`, `trigram`, `words`)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import TextFormat
from sslflow.data.splits import TEST
from sslflow.data.tokens import load_tokenizer
from sslflow.examination.language.exam import Asked, Examined, examine
from sslflow.examination.language.rows import COUNTED, Row, counting, of_encoder, of_method
from sslflow.networks.starts import RANDOM
from sslflow.networks.text import TextEncoder
from sslflow.networks.weights import encoder_of
from sslflow.runtime.about import about
from sslflow.runtime.device import compute
from sslflow.runtime.files import replacing, write_json, write_metrics
from sslflow.runtime.rng import derive
from sslflow.settings.params import Schemas, read
from sslflow.stages.entry import run
from sslflow.training.ingredients import build, example_rows, of_examples
from sslflow.training.method import find
from sslflow.training.saved import load_weights

PASSAGES = pa.schema(
    [
        ("row", pa.int64()),
        ("group", pa.int64()),
        ("words", pa.int64()),
        ("log_likelihood", pa.float64()),
        ("other", pa.float64()),
        ("same", pa.float64()),
        ("order", pa.float64()),
    ]
)
"""Of each test passage that was asked about: its document; its words, and the sum of the logarithms of their
probabilities; whether what follows it was told from each kind of wrong passage: 1, 0, or ½ at the same score. Null
where that wasn't asked, or the row can't tell."""


def schemas(name: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    found: dict[str, Any] = {"compute": compute, "encoder": TextEncoder, "language": Asked}
    return found if name in (RANDOM, *COUNTED) else {**found, f"methods.{name}": find(name)}


def main(name: str, seed: int) -> None:
    settings = read(schemas(name))
    device = compute(**settings["compute"])
    dataset, title, folder = Dataset(), paths.run_name(name, seed), paths.language(name, seed)
    if reason := _lacking(dataset):
        print(f"language {title}  skipped: {reason}")
        _write(folder, Examined(), np.zeros(0, np.int64))
        write_metrics(paths.metrics("language", title), {})
        return
    began = time.monotonic()
    row = _row(name, seed, dataset, device, settings)
    tokenizer = load_tokenizer(dataset.folder)
    asked = Asked(**settings["language"])
    # The same questions for all seeds: rows are compared passage by passage.
    found = examine(row, dataset, tokenizer, asked, derive(0, "language"))
    for line in found.notes:
        print(f"language {title}  {line}")
    _write(folder, found, dataset.rows(TEST))
    write_metrics(paths.metrics("language", title), {**found.metrics, "seconds": time.monotonic() - began})
    said = {
        "perplexity": "perplexity {:.1f}",
        "other": "following told from other documents' {:.3f}",
        "same": "from the same document's {:.3f}",
        "wordsim353": "WordSim-353 {:.3f}",
    }
    told = [words.format(found.metrics[key]) for key, words in said.items() if key in found.metrics]
    print(f"language {title}  {', '.join(told)}")


def _lacking(dataset: Dataset[Any]) -> str:
    """Why nothing can be asked; empty where something can."""
    if not isinstance(dataset.format, TextFormat):
        return f"the data are {dataset.format.kind}, no text"
    return "" if len(dataset.rows(TEST)) else "there are no passages to test on: data.test_fraction holds documents back"


def _row(
    name: str, seed: int, dataset: Dataset[TextFormat], device: torch.device, settings: dict[str, dict[str, Any]]
) -> Row:
    if name in COUNTED:
        return counting(name, dataset)
    if name == RANDOM:
        return of_encoder(encoder_of(name, seed, dataset.format, settings["encoder"]).to(device).eval(), device)
    kind = find(name)
    given = of_examples(dataset, example_rows(kind, dataset), settings["encoder"])
    method: nn.Module = build(kind, given, settings[f"methods.{name}"])
    load_weights(method, paths.trained(name, seed))
    return of_method(method.to(device).eval(), dataset.format, device)


def _write(folder: Path, found: Examined, test: np.ndarray) -> None:
    with replacing(folder / "passages.parquet") as temporary:
        table = pa.table(found.passages or {name: [] for name in PASSAGES.names}, schema=PASSAGES)
        pq.write_table(table.replace_schema_metadata(about(test)), temporary)
    write_json(folder / "shown.json", found.shown)


if __name__ == "__main__":
    run(main, str, int)
