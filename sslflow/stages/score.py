"""score METHOD SEED: how good an adaptation is, where the target has labels that it did not see."""

from __future__ import annotations

from pathlib import Path

import torch

from sslflow import paths
from sslflow.adaptation.task import UNKNOWN, Task, open_task, target_answers
from sslflow.examination.adaptation.scores import Decisions, adaptation_scores
from sslflow.runtime.files import read_json, reading, write_metrics
from sslflow.runtime.tables import read_parquet
from sslflow.settings.params import Schemas
from sslflow.stages.entry import run


def schemas() -> Schemas:
    """No section: what was adapted stands beside the tables that `adapt` wrote."""
    return {}


def main(name: str, seed: int) -> None:
    folder = paths.adapted(name, seed)
    metrics: dict[str, float] = {"seconds": read_json(folder / "seconds.json", float)}
    for file in sorted(folder.glob("*.parquet")):
        notes = read_json(file.with_suffix(".json"))
        with reading(file.with_suffix(".json")):
            domains, setting, split, _ = (notes.pop(key) for key in ("domains", "setting", "split", "weights"))
        of = paths.domains(domains), setting, Path(split) if split else None
        scores = adaptation_scores(decisions(file, open_task(*of)), target_answers(*of))
        prefix = file.stem.replace("-", "_")
        metrics |= {f"{prefix}_{key}": value for key, value in {**scores, **notes}.items()}
        print(f"score {name}-{seed}  {file.stem.replace('-', ', ')}: {words(scores)}", flush=True)
    write_metrics(paths.metrics("score", paths.run_name(name, seed)), metrics)


def decisions(file: Path, task: Task) -> Decisions:
    """What `adapt` wrote about the target's images."""
    table = read_parquet(file)
    numbers = {name: number for number, name in enumerate(task.classes)}
    predicted, nearest = (
        torch.tensor([numbers.get(name, UNKNOWN) for name in table[column].to_pylist()])
        for column in ("predicted", "nearest_class")
    )
    unknownness, groups = (torch.from_numpy(table[column].to_numpy().copy()) for column in ("unknownness", "group"))
    return Decisions(predicted, nearest, unknownness, groups)


def words(scores: dict[str, float]) -> str:
    """The scores that matter, in percent."""
    if "main" not in scores:
        return "the target has no labels to score by"
    if "h" in scores:
        said = f"H {100 * scores['h']:.1f} (OS* {100 * scores['os_star']:.1f}, UNK {100 * scores['unk']:.1f})"
    elif "accuracy" in scores:
        said = f"accuracy {100 * scores['accuracy']:.1f}"
    else:
        said = f"UNK {100 * scores['main']:.1f}"
    return f"{said}, {100 * scores['main_best_threshold']:.1f} at the best threshold"


if __name__ == "__main__":
    run(main, str, int)
