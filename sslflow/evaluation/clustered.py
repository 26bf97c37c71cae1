"""The clusters of a run's features, as pseudo-labels of all examples."""

from __future__ import annotations

from sslflow import paths
from sslflow.evaluation.named import PseudoLabels
from sslflow.runtime.tables import read_parquet


def pseudolabels(method: str, seed: int, examples: int) -> PseudoLabels:
    """The pseudo-labels of a run. Raises `ValueError` where there are none, or they are of other examples."""
    file = paths.clustering(method, seed)
    if not file.exists():
        raise ValueError(
            f"{file} is missing: seed {seed} of {method} is not finished; run `dvc repro pseudolabel`, or leave it out "
            "of run.seeds"
        )
    table = read_parquet(file, ["cluster", "confidence"])
    if len(table) != examples:
        raise ValueError(f"{file} has {len(table)} rows for {examples} examples; run `dvc repro pseudolabel`")
    return PseudoLabels(table["cluster"].to_numpy(), table["confidence"].to_numpy())
