"""adapt METHOD SEED: the source's classes carried over to a target without labels, or the word that an image is of
none."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from annotated_types import MinLen
from safetensors.torch import save_file
from torch import Tensor

from sslflow import paths
from sslflow.adaptation import method as adapter
from sslflow.adaptation.auxiliary import Companion, require_companion
from sslflow.adaptation.inputs import frozen_inputs, image_inputs
from sslflow.adaptation.loop import adapt, judge, judged_features
from sslflow.adaptation.method import Judged
from sslflow.adaptation.simulated import FEWEST_CLASSES, bars_of_source
from sslflow.adaptation.task import SETTINGS, UNKNOWN, Task, open_task, target_answers
from sslflow.adaptation.unknown_groups import unknown_groups
from sslflow.features.extract import extract
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import ENCODERS
from sslflow.networks.starts import is_name, known_by, read_start
from sslflow.networks.weights import started_from
from sslflow.runtime.checkpoint import Checkpoint, fingerprint
from sslflow.runtime.device import compute
from sslflow.runtime.files import replacing, sha256, write_json
from sslflow.runtime.rng import derive
from sslflow.settings.params import NonNegative, Over, Schemas, closest, load, lookup, read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run
from sslflow.training import method
from sslflow.training.continued import Continued
from sslflow.training.fit import fit
from sslflow.training.ingredients import build
from sslflow.views.images import CropView

Start = Literal["pretrained", "random"]

CHECKPOINT_SECONDS = 60.0
"""From one checkpoint of a run that trains the encoder to the next."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is adapted: the pair of `domains`, for each of the `settings` of which classes they share, from each of the
    `starts`: `pretrained`, an encoder of the method `start`, or where `weights` is not empty that of this name in the
    section `starts`, or of the file of this name; and `random`; with `frozen` on features that were computed once.
    `bars: source` chooses the bars of a method that asks whether anything is unknown on tasks made of the source alone,
    in place of those in its block; `given` takes these. `split` is the file that says what the settings are; where it
    is empty, that of the sample. Where the encoder is trained, the loss of the pretraining method `companion` is added,
    times `companion_weight`; 0: none."""

    domains: str = ""
    settings: Annotated[tuple[str, ...], MinLen(1)] = ("as_is",)
    split: str = ""
    start: str = "simclr"
    weights: str = ""
    starts: Annotated[tuple[Start, ...], MinLen(1)] = ("pretrained", "random")
    frozen: bool = True
    bars: Literal["given", "source"] = "given"
    companion: str = "simclr"
    companion_weight: NonNegative = 0.0

    def __post_init__(self) -> None:
        """Raises `ValueError` for a setting that there is not."""
        for name in self.settings:
            if name not in SETTINGS:
                raise ValueError(f"adapt.settings: there is no setting '{name}'{closest(name, SETTINGS)}")


@dataclass(frozen=True)
class Outcome:
    """What an adapter makes of the target after its last step."""

    judged: Judged
    target: Tensor
    """Features by which it judged, `(n, dim)`."""
    source: Tensor
    """Those of the source's images, `(m, dim)`."""
    weights: str
    """Where it started, in words."""


def schemas(adaptation_method: str, companion: str, kind: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    auxiliary, block = method.find(companion), f"methods.{companion}"
    return {
        "compute": compute,
        "encoder": ENCODERS[kind],
        "extract": extract,
        "adapt": Plan,
        "adapt.train": adapt,
        "adapt.views": CropView,
        f"adapt_methods.{adaptation_method}": adapter.find(adaptation_method),
        block: auxiliary,
        f"{block}.start": Continued,
        f"{block}.views": Over("views", auxiliary.Views),
        f"{block}.train": Over("train", fit),
    }


def main(name: str, seed: int) -> None:
    settings = read(schemas(name, lookup(load(), "adapt").get("companion", Plan.companion), data_kind()))
    device = compute(**settings["compute"])
    plan = Plan(**settings["adapt"])
    folder, split = paths.domains(plan.domains), Path(plan.split) if plan.split else None
    started = time.monotonic()
    for setting in plan.settings:
        task, answers = open_task(folder, setting, split), target_answers(folder, setting, split)
        for start in plan.starts:
            found = _adapted(name, seed, setting, start, task, plan, settings, device)
            groups = unknown_groups(found.judged, found.target, seed)
            file = paths.adapted(name, seed) / f"{setting}-{start}.parquet"
            _write(file, task, found, groups, answers.names)
            facts = {"domains": plan.domains, "setting": setting, "split": plan.split, "weights": found.weights}
            write_json(file.with_suffix(".json"), {**facts, **found.judged.notes})
            print(f"adapt {name}-{seed}  {setting}, {start}: {_words(groups)}", flush=True)
            _checkpoint(name, seed, setting, start, plan, settings, device).remove()
    write_json(paths.adapted(name, seed) / "seconds.json", time.monotonic() - started)


def _checkpoint(
    name: str, seed: int, setting: str, start: Start, plan: Plan, settings: dict[str, Any], device: torch.device
) -> Checkpoint:
    depends_on = [name, seed, setting, start, str(device), settings]
    files = [paths.domains(plan.domains) / domain / "manifest.parquet" for domain in ("source", "target")]
    if start == "pretrained":
        files.append(known_by(plan.weights) if plan.weights else paths.encoder(plan.start, seed))
    if plan.split:
        files.append(Path(plan.split))
    return Checkpoint("adapt", fingerprint(depends_on, *files))


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
    encoder = _encoder(start, seed, task, plan, settings)
    weights = _origin(start, plan, encoder)
    if plan.frozen:
        source, target, body = frozen_inputs(encoder, task, device, settings=settings["extract"])
    else:
        source, target, body = image_inputs(encoder, task, device, settings=settings["adapt.views"])
    adapted_by, own = adapter.find(name), settings[f"adapt_methods.{name}"]
    if plan.bars == "source" and adapted_by.gated:
        own = {**own, **_bars(encoder, task, own, device, settings["extract"])}
    torch.manual_seed(derive(seed, "adapter"))
    model = adapted_by(body, encoder.dim, len(task.classes), target.size, **own)
    checkpoint = None if plan.frozen else _checkpoint(name, seed, setting, start, plan, settings, device)
    companion = None
    if plan.companion_weight:
        kind, block = method.find(plan.companion), f"methods.{plan.companion}"
        views = kind.Views(task.target.format, **settings[f"{block}.views"])
        require_companion(kind)
        given = {"encoder": lambda: encoder, "images": lambda: source.size + target.size}
        companion = Companion(build(kind, given, settings[block]), views, plan.companion_weight)
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
    return Outcome(judged, features, before, weights)


def _bars(
    encoder: Encoder, task: Task, own: dict[str, Any], device: torch.device, extraction: dict[str, Any]
) -> dict[str, float]:
    """The bars by the source alone, as settings; none where it is too small to make tasks of."""
    asked = {name: own[name] for name in ("temperature", "neighbours") if name in own}
    found = bars_of_source(
        encoder, task.source, task.source_rows, task.source_labels, device, settings=extraction, **asked
    )
    if found is None:
        print(
            f"adapt: adapt.bars is source, but {len(task.source_rows)} images of {len(task.classes)} classes are too "
            f"few to leave classes out ({FEWEST_CLASSES} classes are needed); the bars given are taken",
            flush=True,
        )
        return {}
    print(f"adapt: bars by the source: open from {found.open:.2f}, closed below {found.closed:.2f}", flush=True)
    return {"open": found.open, "closed": found.closed}


def _encoder(start: Start, seed: int, task: Task, plan: Plan, settings: dict[str, Any]) -> Encoder:
    """The encoder to start from: of the weights that are named, or of the method; or one with random weights."""
    if start == "random":
        torch.manual_seed(derive(seed, "init"))
        return Encoder(task.target.format.channels, task.target.format.size, **settings["encoder"])
    file = paths.encoder(plan.start, seed)
    if not plan.weights and not file.exists():
        raise ValueError(
            f"{file}: no encoder to start from; run `dvc repro pretrain`, or set adapt.weights to a name in starts or "
            "a file"
        )
    return started_from(plan.weights or str(file), task.target.format, f"domains.{plan.domains}")


def _origin(start: Start, plan: Plan, encoder: Encoder) -> str:
    """Where the weights come from, in words: source, licence and hash, as far as they are known."""
    if start == "random":
        return ""
    before = encoder.given.words if encoder.given else ""
    if not plan.weights:
        return f"those of {plan.start}, trained here" + (f", which went on from {before}" if before else "")
    place, named = plan.weights, ""
    if is_name(plan.weights):
        place, named = read_start(plan.weights).weights, f"{plan.weights}: "
        if encoder.given and encoder.given.weights == place:
            return f"{named}{before}"
    return f"{named}{place}, sha256 {sha256(Path(place))[:12]}…" + (f", which went on from {before}" if before else "")


def _write(file: Path, task: Task, found: Outcome, groups: Tensor, actual: list[str]) -> None:
    """A row for each target image: path, class or `unknown`, the confidence, the group of an unknown one, the truth;
    and beside it the features of both domains, the threshold and what it rests on."""
    judged = found.judged
    decisions, classes = judged.decisions.cpu(), judged.classes.cpu()
    table = pa.table(
        {
            "path": task.target.column("path", task.target_rows),
            "predicted": ["unknown" if one == UNKNOWN else task.classes[one] for one in decisions.tolist()],
            "nearest_class": [task.classes[one] for one in classes.tolist()],
            "confidence": judged.probabilities.max(dim=1).values.cpu().numpy(),
            "unknownness": judged.unknownness.cpu().numpy(),
            "group": groups.numpy(),
            "actual": actual,
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


def _words(groups: Tensor) -> str:
    rejected, count = float((groups >= 0).float().mean()), int(groups.max()) + 1
    return f"{100 * rejected:.0f} % judged unknown" + (f" in {count} group{'s' * (count > 1)}" if count else "")


if __name__ == "__main__":
    run(main, str, int)
