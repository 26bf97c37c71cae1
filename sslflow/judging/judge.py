"""The verdict on a trained method, from its curve on the disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from sslflow.judging.verdict import findings
from sslflow.runtime.files import read_csv, reading, write_json
from sslflow.training.method import Method


def read_curve(file: Path) -> list[dict[str, float]]:
    """The rows of a curve. Raises `ValueError` where there is none, or none that is whole."""
    if not file.exists():
        raise ValueError(f"{file}: no curve here; run the training first")
    with reading(file):
        rows = [{name: float(value) for name, value in row.items()} for row in read_csv(file, ["step", "loss"])]
        if not rows:
            raise ValueError("it holds no rows")
        return rows


def judge(label: str, method: Method, curve: Path, batch_size: int, unit: str, file: Path) -> None:
    """Write what the curve of a run, of so many examples a step, which are called `unit`, says of it, and print it."""
    rows = read_curve(curve)
    verdict = findings(rows, method.choices(batch_size), int(rows[-1]["step"]), unit)
    write_json(file, [asdict(finding) for finding in verdict])
    for finding in verdict:
        print(f"{label}  verdict: {finding.words} {finding.advice}".rstrip())
