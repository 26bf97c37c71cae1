"""adapt METHOD SEED: the source's classes carried over to a target without labels, or the word that an image is of
none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sslflow import adapter, places
from sslflow.adapt import Centred, Domain, Residual, adapt, judge, of_features, of_images, standardised
from sslflow.adapter import Adapter, Judged
from sslflow.data.domains import SETTINGS, UNKNOWN, UNLABELLED, Answers, Task, default_split, open_task, target_answers
from sslflow.data.prepare_domains import prepare_domains
from sslflow.device import compute
from sslflow.discovery import discover
from sslflow.encoder import Encoder, load_encoder
from sslflow.evaluation.density import neighbourhood_density
from sslflow.evaluation.open_set import best_threshold, open_set_scores
from sslflow.features import extract
from sslflow.files import replacing, write_metrics
from sslflow.params import Count, closest, read, schema
from sslflow.reporting import leaderboard
from sslflow.rng import derive
from sslflow.stages.entry import run
from sslflow.views import CropView, Normalise

Start = Literal["pretrained", "random"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is adapted: each of the `methods`, for each of the `settings` of which classes the domains share, from each
    of the `starts`; with `frozen` on features that were worked out once. The target is judged `looks` times on the way,
    and of these the one with the densest neighbourhoods is kept. `split` is the file that tells the settings; where it
    is empty, that of the sample."""

    methods: tuple[str, ...]
    settings: tuple[str, ...] = ("as_is",)
    split: str = ""
    starts: tuple[Start, ...] = ("pretrained", "random")
    frozen: bool = True
    looks: Count = 5

    def __post_init__(self) -> None:
        """Raises `ValueError` for a method or a setting that there is not."""
        for name in self.settings:
            if name not in SETTINGS:
                raise ValueError(f"adapt.settings: there is no setting '{name}'{closest(name, SETTINGS)}")
        for name in self.methods:
            if name not in adapter.names():
                raise ValueError(
                    f"adapt.methods: there is no adaptation method '{name}'{closest(name, adapter.names())}"
                )


@dataclass(frozen=True)
class Look:
    """What the adapter made of the target after some steps."""

    judged: Judged
    features: Tensor
    density: float


def schemas() -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {
        "compute": compute,
        "domains": prepare_domains,
        "encoder": Encoder,
        "extract": extract,
        "run": leaderboard.run,
        "adapt": Plan,
        "adapt.train": adapt,
        "adapt.views": CropView,
        **{f"adapt.{name}": adapter.find(name) for name in adapter.names()},
    }


def main(method: str, seed: int) -> None:
    settings = read(schemas())
    device = compute(**settings["compute"])
    plan = Plan(**settings["adapt"])
    domains = {name: setting.default for name, setting in schema(prepare_domains).items()} | settings["domains"]
    split = default_split(domains["source"], domains["target"], domains["label"])
    split = Path(plan.split) if plan.split else split
    started = time.monotonic()
    metrics: dict[str, float] = {}
    for setting in plan.settings:
        task, answers = open_task(places.DOMAINS, setting, split), target_answers(places.DOMAINS, setting, split)
        for start in plan.starts:
            looks = list(_adapted(method, seed, start, task, plan, settings, device))
            best = max(looks, key=lambda look: look.density)
            groups = _groups(best, seed)
            _write(places.adapted(method, seed) / f"{setting}-{start}.parquet", task, best.judged, groups, answers)
            scores = _scores(best, looks, groups, answers)
            metrics |= {f"{setting}_{start}_{name}": value for name, value in scores.items()}
            metrics |= {f"{setting}_{start}_{name}": value for name, value in best.judged.notes.items()}
            print(f"adapt {method}-{seed}  {setting}, {start}: {_words(groups, scores)}", flush=True)
    write_metrics(
        places.metrics("adapt", places.run_name(method, seed)), {**metrics, "seconds": time.monotonic() - started}
    )


def _adapted(
    method: str, seed: int, start: Start, task: Task, plan: Plan, settings: dict[str, Any], device: torch.device
) -> Iterator[Look]:
    """What is made of the target on the way to the last step, `looks` times."""
    encoder = _encoder(start, seed, task, settings)
    source, target, body = _inputs(encoder, task, plan.frozen, settings, device)
    torch.manual_seed(derive(seed, "adapter"))
    model: Adapter = adapter.find(method)(
        body, encoder.dim, len(task.classes), target.size, **settings[f"adapt.{method}"]
    )
    for step in adapt(model, source, task.source_labels, target, device, seed, **settings["adapt.train"]):
        if step.number * plan.looks % step.steps < plan.looks:
            judged, features = judge(model, target)
            yield Look(judged, features, neighbourhood_density(judged.probabilities))


def _encoder(start: Start, seed: int, task: Task, settings: dict[str, Any]) -> Encoder:
    """The encoder to start from: of the file given, or of the first of `run.methods`; or one with random weights."""
    if start == "random":
        torch.manual_seed(derive(seed, "init"))
        return Encoder(task.target.channels, task.target.image_size, **settings["encoder"])
    file = Path(settings["domains"].get("encoder") or places.encoder(settings["run"]["methods"][0], seed))
    if not file.exists():
        raise ValueError(f"{file}: no encoder to start from; run `dvc repro pretrain`, or name one in domains.encoder")
    encoder = load_encoder(file)
    wanted = encoder.settings["channels"], encoder.settings["image_size"]
    found = task.target.channels, task.target.image_size
    if wanted != found:
        raise ValueError(
            f"{file} is for images of {wanted[0]} channels and {wanted[1]} pixels, the domains have {found[0]} and "
            f"{found[1]}: set data.channels and data.image_size to the encoder's"
        )
    return encoder


def _inputs(
    encoder: Encoder, task: Task, frozen: bool, settings: dict[str, Any], device: torch.device
) -> tuple[Domain, Domain, torch.nn.Module]:
    """Both domains as inputs of a body, and the body."""
    if frozen:
        found = [
            torch.from_numpy(extract(encoder, images, rows, device, **settings["extract"])).to(device)
            for images, rows in ((task.source, task.source_rows), (task.target, task.target_rows))
        ]
        source, target = standardised(*found)
        return of_features(source), of_features(target), Residual(encoder.dim)
    domains = []
    for images, rows in ((task.source, task.source_rows), (task.target, task.target_rows)):
        views = CropView(images.format, **settings["adapt.views"]).to(device)
        normalise = Normalise(images.format.mean, images.format.std).to(device)
        domains.append(of_images(images, torch.from_numpy(rows), views, normalise, device))
    return domains[0], domains[1], Centred(encoder)


def _groups(look: Look, seed: int) -> Tensor:
    """The group of each image that was judged unknown, from 0, −1 for the others, int64 `(n,)`."""
    rejected = look.judged.decisions == UNKNOWN
    known = (look.features[~rejected], look.judged.classes[~rejected]) if not rejected.all() else ()
    column = torch.full_like(look.judged.decisions, -1)
    column[rejected] = discover(look.features[rejected], derive(seed, "groups"), *known).labels
    return column.cpu()


def _scores(best: Look, looks: list[Look], groups: Tensor, answers: Answers) -> dict[str, float]:
    """Scores of the look that was kept; the H, or accuracy, of the last look, and what knowing the labels would give:
    of the best look, and at the best threshold. Nothing without labels."""
    labelled = answers.labels != UNLABELLED
    if not labelled.any():
        return {}
    actual = answers.labels[labelled]
    names = sorted(set(answers.names))
    fine = torch.tensor([names.index(name) for name in answers.names])[labelled]

    def columns(look: Look) -> tuple[Tensor, Tensor, Tensor]:
        judged = look.judged
        decisions, classes, unknownness = (
            column.cpu()[labelled] for column in (judged.decisions, judged.classes, judged.unknownness)
        )
        return decisions, classes, unknownness

    def score(look: Look) -> dict[str, float]:
        return open_set_scores(actual, *columns(look))

    def main_score(found: dict[str, float]) -> float:
        return found.get("h", found.get("accuracy", found.get("unk", 0.0)))

    decisions, classes, unknownness = columns(best)
    found = open_set_scores(actual, decisions, classes, unknownness, groups[labelled], fine)
    every = [main_score(score(look)) for look in looks]
    _, possible = best_threshold(actual, classes, unknownness)
    return {
        **found,
        "main": main_score(found),
        "main_last": every[-1],
        "main_best_look": max(every),
        "main_best_threshold": possible,
    }


def _write(file: Path, task: Task, judged: Judged, groups: Tensor, answers: Answers) -> None:
    """A row for each target image: path, class or `unknown`, the confidence, the group of an unknown one, the truth."""
    decisions, classes = judged.decisions.cpu(), judged.classes.cpu()
    table = pa.table(
        {
            "path": [task.target.paths[row] for row in task.target_rows],
            "predicted": ["unknown" if one == UNKNOWN else task.classes[one] for one in decisions.tolist()],
            "nearest_class": [task.classes[one] for one in classes.tolist()],
            "confidence": judged.probabilities.max(dim=1).values.cpu().numpy(),
            "unknownness": judged.unknownness.cpu().numpy(),
            "group": groups.numpy(),
            "actual": answers.names,
        }
    )
    with replacing(file) as temporary:
        pq.write_table(table, temporary)


def _words(groups: Tensor, scores: dict[str, float]) -> str:
    rejected, count = float((groups >= 0).float().mean()), int(groups.max()) + 1
    words = f"{100 * rejected:.0f} % judged unknown" + (f" in {count} group{'s' * (count > 1)}" if count else "")
    if "h" in scores:
        words += f"; H {100 * scores['h']:.1f} (OS* {100 * scores['os_star']:.1f}, UNK {100 * scores['unk']:.1f})"
    elif "accuracy" in scores:
        words += f"; accuracy {100 * scores['accuracy']:.1f}"
    if "main" in scores:
        words += f", {100 * scores['main_best_threshold']:.1f} at the best threshold"
    return words


if __name__ == "__main__":
    run(main, str, int)
