"""What rows answered about language, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import TextFormat
from sslflow.data.splits import TEST
from sslflow.examination.language.exam import Asked, Examined, examine
from sslflow.examination.language.rows import Row
from sslflow.runtime.about import about
from sslflow.runtime.files import replacing, write_json, write_metrics
from sslflow.runtime.rng import derive

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


SAID = {
    "perplexity": "perplexity {:.1f}",
    "other": "what follows told from another document's {:.3f}",
    "same": "from the same document's {:.3f}",
    "wordsim353": "WordSim-353 {:.3f}",
    "analogies": "analogies {:.3f}",
}


def lacking(dataset: Dataset[Any]) -> str:
    """Why nothing can be asked of a data set; empty where something can."""
    if not isinstance(dataset.format, TextFormat):
        return f"the data are {dataset.format.kind}, no text"
    return (
        "" if len(dataset.rows(TEST)) else "there are no passages to test on: data.test_fraction holds documents back"
    )


def skip(name: str, seed: int, reason: str) -> None:
    """Write that a row was asked nothing."""
    title = paths.run_name(name, seed)
    print(f"language {title}  skipped: {reason}")
    write(paths.language(name, seed), Examined(), np.zeros(0, np.int64))
    write_metrics(paths.metrics("language", title), {})


def ask(name: str, seed: int, row: Row, dataset: Dataset[TextFormat], tokenizer: Any, asked: Asked) -> None:
    """Ask a row all that it can tell, the same of all rows and seeds, and write the answers."""
    title = paths.run_name(name, seed)
    found = examine(row, dataset, tokenizer, asked, derive(0, "language"))
    for line in found.notes:
        print(f"language {title}  {line}")
    write(paths.language(name, seed), found, dataset.rows(TEST))
    write_metrics(paths.metrics("language", title), found.metrics)
    told = [words.format(found.metrics[key]) for key, words in SAID.items() if key in found.metrics]
    print(f"language {title}  {', '.join(told)}")


def write(folder: Path, found: Examined, test: np.ndarray) -> None:
    """`passages.parquet` and `shown.json`; `test`: the rows that the data has to test on."""
    with replacing(folder / "passages.parquet") as temporary:
        table = pa.table(found.passages or {name: [] for name in PASSAGES.names}, schema=PASSAGES)
        pq.write_table(table.replace_schema_metadata(about(test)), temporary)
    write_json(folder / "shown.json", found.shown)
