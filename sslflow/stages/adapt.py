"""adapt METHOD SEED: the source's classes carried over to a target without labels, or the word that an image is of
none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import Tensor

from sslflow import paths
from sslflow.adaptation import method as adapter
from sslflow.adaptation.auxiliary import Companion
from sslflow.adaptation.inputs import frozen_inputs, image_inputs
from sslflow.adaptation.loop import adapt, judge, judged_features
from sslflow.adaptation.method import Judged
from sslflow.adaptation.scores import adaptation_scores
from sslflow.adaptation.task import SETTINGS, UNKNOWN, Answers, Task, default_split, open_task, target_answers
from sslflow.clustering.groups import unknown_groups
from sslflow.features.extract import extract
from sslflow.ingest.domains import prepare_domains
from sslflow.networks.encoder import Encoder, load_encoder
from sslflow.reporting import leaderboard
from sslflow.runtime.checkpoint import Checkpoint, fingerprint
from sslflow.runtime.device import compute
from sslflow.runtime.files import replacing, write_metrics
from sslflow.runtime.rng import derive
from sslflow.settings.params import NonNegative, closest, load, read, schema
from sslflow.stages.entry import run
from sslflow.training import method
from sslflow.training.fit import fit
from sslflow.views.images import CropView

Start = Literal["pretrained", "random"]

CHECKPOINT_SECONDS = 60.0
"""From one checkpoint of a run that trains the encoder to the next."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is adapted: each of the `methods`, for each of the `settings` of which classes the domains share, from each
    of the `starts`; with `frozen` on features that were worked out once. `split` is the file that tells the settings;
    where it is empty, that of the sample. Where the encoder is trained, the pretraining method `companion` goes on
    beside it, its loss times `companion_weight`; 0: none."""

    methods: tuple[str, ...]
    settings: tuple[str, ...] = ("as_is",)
    split: str = ""
    starts: tuple[Start, ...] = ("pretrained", "random")
    frozen: bool = True
    companion: str = "simclr"
    companion_weight: NonNegative = 0.0

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
class Outcome:
    """What an adapter makes of the target after its last step."""

    judged: Judged
    target: Tensor
    """Features by which it judged, `(n, dim)`."""
    source: Tensor
    """Those of the source's images, `(m, dim)`."""


def schemas(companion: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind, block = method.find(companion), f"methods.{companion}"
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
        block: kind,
        f"{block}.views": kind.Views,
        f"{block}.train": fit,
    }


def main(name: str, seed: int) -> None:
    settings = read(schemas(_companion()))
    device = compute(**settings["compute"])
    plan = Plan(**settings["adapt"])
    domains = {name: setting.default for name, setting in schema(prepare_domains).items()} | settings["domains"]
    split = default_split(domains["source"], domains["target"], domains["label"])
    split = Path(plan.split) if plan.split else split
    started = time.monotonic()
    metrics: dict[str, float] = {}
    for setting in plan.settings:
        task, answers = open_task(paths.DOMAINS, setting, split), target_answers(paths.DOMAINS, setting, split)
        for start in plan.starts:
            found = _adapted(name, seed, setting, start, task, plan, settings, device)
            groups = unknown_groups(found.judged, found.target, seed)
            file = paths.adapted(name, seed) / f"{setting}-{start}.parquet"
            _write(file, task, found, groups, answers)
            scores = adaptation_scores(found.judged, groups, answers)
            metrics |= {f"{setting}_{start}_{key}": value for key, value in {**scores, **found.judged.notes}.items()}
            print(f"adapt {name}-{seed}  {setting}, {start}: {_words(groups, scores)}", flush=True)
            _checkpoint(name, seed, setting, start, settings, device).remove()
    write_metrics(
        paths.metrics("adapt", paths.run_name(name, seed)), {**metrics, "seconds": time.monotonic() - started}
    )


def _companion() -> str:
    """The method whose settings the stage reads besides its own."""
    return (load().get("adapt") or {}).get("companion", Plan.companion)


def _checkpoint(
    name: str, seed: int, setting: str, start: Start, settings: dict[str, Any], device: torch.device
) -> Checkpoint:
    depends_on = [name, seed, setting, start, str(device), settings]
    files = [paths.DOMAINS / domain / "manifest.parquet" for domain in ("source", "target")]
    if start == "pretrained":
        files.append(_weights(seed, settings))
    return Checkpoint("adapt", fingerprint(depends_on, *files))


def _weights(seed: int, settings: dict[str, Any]) -> Path:
    """The file of the encoder to start from: the one given, or that of the first of `run.methods`."""
    return Path(settings["domains"].get("encoder") or paths.encoder(settings["run"]["methods"][0], seed))


def _adapted(
    name: str,
    seed: int,
    setting: str,
    start: Start,
    task: Task,
    plan: Plan,
    settings: dict[str, Any],
    device: torch.device,
) -> Outcome:
    """Train an adapter and judge the target. Where the encoder is trained, which takes minutes, a run that was stopped
    is resumed from its last checkpoint."""
    encoder = _encoder(start, seed, task, settings)
    if plan.frozen:
        source, target, body = frozen_inputs(encoder, task, device, settings=settings["extract"])
    else:
        source, target, body = image_inputs(encoder, task, device, settings=settings["adapt.views"])
    torch.manual_seed(derive(seed, "adapter"))
    model = adapter.find(name)(body, encoder.dim, len(task.classes), target.size, **settings[f"adapt.{name}"])
    checkpoint = None if plan.frozen else _checkpoint(name, seed, setting, start, settings, device)
    companion = None
    if plan.companion_weight:
        kind, block = method.find(plan.companion), f"methods.{plan.companion}"
        views = kind.Views(task.target.format, **settings[f"{block}.views"])
        companion = Companion(kind(encoder, **settings[block]), views, plan.companion_weight)
    state = checkpoint.load() if checkpoint else None
    labels, train = task.source_labels, settings["adapt.train"]
    steps = adapt(model, source, labels, target, device, seed, companion, state, **train)
    saved = time.monotonic()
    for step in steps:
        if checkpoint and time.monotonic() - saved >= CHECKPOINT_SECONDS:
            checkpoint.save(step.state())
            saved = time.monotonic()
    before = judged_features(model, source)
    judged, features = judge(model, target)
    return Outcome(judged, features, before)


def _encoder(start: Start, seed: int, task: Task, settings: dict[str, Any]) -> Encoder:
    """The encoder to start from: that of the file, or one with random weights."""
    if start == "random":
        torch.manual_seed(derive(seed, "init"))
        return Encoder(task.target.channels, task.target.image_size, **settings["encoder"])
    file = _weights(seed, settings)
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


def _write(file: Path, task: Task, found: Outcome, groups: Tensor, answers: Answers) -> None:
    """A row for each target image: path, class or `unknown`, the confidence, the group of an unknown one, the truth;
    and beside it, for the report, the features of both domains and the threshold."""
    judged = found.judged
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
    drawn = {
        "source": found.source.half(),
        "source_labels": task.source_labels,
        "target": found.target.half(),
        "threshold": torch.tensor([judged.threshold]),
    }
    with replacing(file.with_suffix(".safetensors")) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in drawn.items()}, temporary)


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
