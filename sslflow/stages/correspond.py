"""correspond METHOD SEED: encoders of pictures and of sounds from clips alone, and what they can do on sources that
they have not seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import torch
from annotated_types import Ge
from safetensors.torch import save_file
from torch import Tensor

from sslflow import paths
from sslflow.audiovisual.bundle import save_method
from sslflow.audiovisual.method import ClipMethod, PairMethod, find, names
from sslflow.audiovisual.spectrogram import LogMel, sound_statistics
from sslflow.audiovisual.windows import BATCH, settle
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.examination.exam import Exam, Examination, Findings, probe
from sslflow.networks.encoder import Encoder, load_encoder, save_encoder
from sslflow.progress import Progress
from sslflow.runtime.checkpoint import Checkpoint, fingerprint
from sslflow.runtime.device import compute
from sslflow.runtime.distributed import process_group, rank, world_size
from sslflow.runtime.files import replacing, sha256, write_csv, write_metrics
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Fraction, Over, Positive, Schemas, closest, read
from sslflow.stages.entry import run
from sslflow.training.fit import NonFiniteLoss, fit

SECTIONS = (
    "clip_train",
    "clip_views",
    "compute",
    "correspond.evaluate",
    "correspond.picture",
    "correspond.run",
    "correspond.sound",
    "correspond.${item.method}",
)
"""What `dvc.yaml` says that a method's run depends on: not the other methods' settings."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which `methods` are run."""

    methods: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raises `ValueError` for a method that there is not."""
        for name in self.methods:
            if name not in names():
                raise ValueError(f"correspond.methods: there is no method '{name}'{closest(name, names())}")


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a run goes: `start`, a file with the encoder of pictures to start from ('': random weights); `held_out`, the
    share of the training sources on which a method that needs a threshold is not trained, but which choose it; a row of
    the curve every `log_every` steps, a checkpoint every `checkpoint_seconds`."""

    start: str = ""
    held_out: Fraction = 0.1
    log_every: Annotated[int, Ge(1)] = 10
    checkpoint_seconds: Positive = 60


def schemas() -> Schemas:
    """The sections of params.yaml that this stage reads for all its methods, and what they configure."""
    found: dict[str, Callable[..., Any] | Over] = {"correspond": Plan}
    for method in names():
        found |= sections(method)
    return found


def sections(method: str) -> Schemas:
    """The sections that a run of one method reads: those of `SECTIONS`."""
    kind, block = find(method), f"correspond.{method}"
    return {
        "compute": compute,
        "correspond.run": Run,
        "correspond.picture": Encoder,
        "correspond.sound": Encoder,
        "correspond.evaluate": Examination,
        block: kind,
        f"{block}.views": Over("clip_views", kind.Views),
        f"{block}.train": Over("clip_train", fit),
    }


def main(method: str, seed: int) -> None:
    settings = read(sections(method))
    device = compute(**settings["compute"])
    with process_group(device):
        _correspond(method, seed, settings, device)


def _correspond(name: str, seed: int, settings: dict[str, dict[str, Any]], device: torch.device) -> None:
    clips, kind, block = Dataset[ClipFormat](paths.CLIPS), find(name), f"correspond.{name}"
    rows = clips.pretraining_rows
    if kind.hears != "nothing":
        rows = rows[clips.column("audible", rows)]
    if len(rows) < 2:
        raise ValueError(f"{name} needs at least two clips to train on, and there are {len(rows)}")
    if issubclass(kind, PairMethod) and len(np.unique(clips.groups[rows])) < 2:
        raise ValueError(f"{name} needs clips of at least two sources to train on: of one there are no wrong pairs")
    plan = Run(**settings["correspond.run"])
    held = held_out(kind, clips.groups, rows, plan.held_out, seed)
    rows = np.setdiff1d(rows, held)
    views = kind.Views(clips.format, **settings[f"{block}.views"])
    method = _method(kind, clips, rows, plan, seed, settings, settings[block])

    started = time.monotonic()
    curve, before = _trained(method, views, clips, rows, plan, seed, settings, name, device)
    seconds = before + time.monotonic() - started
    settle(method, views, clips, rows, device, seed)
    if rank():
        return
    size = Examination(**settings["correspond.evaluate"])
    exam = Exam(method, views, clips, rows, held if len(held) else rows, device, seed, size)
    found = exam.findings()
    _probe(exam, found, plan, settings)
    found.metrics |= {**curve[-1], "seconds": seconds, "clips": float(len(rows))}
    folder = paths.correspondence(name, seed)
    _write(folder, curve, method, found)
    if isinstance(method, PairMethod):
        save_method(
            folder / "method.safetensors", name, method, clips.format, settings[block], settings[f"{block}.views"]
        )
    write_metrics(paths.metrics("correspond", paths.run_name(name, seed)), found.metrics)
    print(f"correspond {name}-{seed}  {_words(found.metrics)}; {seconds:.0f} s", flush=True)


def held_out(kind: type[ClipMethod], sources: np.ndarray, rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Those of the rows that choose a threshold, int64: the clips of a share of their sources, of which two stay to
    train on. What was trained on scores higher than anything new, and would set it too high. None for a method that
    needs no threshold, and where the share is not two sources."""
    found = np.unique(sources[rows])
    count = min(round(share * len(found)), len(found) - 2)
    if not issubclass(kind, PairMethod) or kind.threshold is not None or count < 2:
        return rows[:0]
    chosen = found[permutation(len(found), seed, "held out").numpy()[:count]]
    return rows[np.isin(sources[rows], chosen)]


def _method(
    kind: type[ClipMethod],
    clips: Dataset[ClipFormat],
    rows: np.ndarray,
    plan: Run,
    seed: int,
    settings: dict[str, dict[str, Any]],
    own: dict[str, Any],
) -> ClipMethod:
    torch.manual_seed(derive(seed, "init"))
    picture = Encoder(3, clips.format.side, **settings["correspond.picture"])
    if plan.start:
        picture = _start(Path(plan.start))
    build: Any = kind
    if kind.needs_labels:
        return build(picture, _sound_encoder(settings), torch.from_numpy(clips.labels[rows].copy()), **own)
    if kind.hears == "sound":
        return build(picture, _sound_encoder(settings), **own)
    if kind.hears == "statistics":
        return build(picture, _statistics(clips, rows), **own)
    return build(picture, **own)


def _sound_encoder(settings: dict[str, dict[str, Any]]) -> Encoder:
    # The size is for ViTs only: 64 bands; a second has 101 columns, and positions are interpolated.
    return Encoder(1, 64, **settings["correspond.sound"])


def _start(file: Path) -> Encoder:
    if not file.exists():
        raise ValueError(f"{file}: no encoder to start from (correspond.run.start)")
    encoder = load_encoder(file)
    if encoder.channels != 3:
        raise ValueError(
            f"{file} is for images of {encoder.channels} channels, and frames have 3: pretrain with data.channels: 3"
        )
    return encoder


def _statistics(clips: Dataset[ClipFormat], rows: np.ndarray) -> Tensor:
    log_mel = LogMel(clips.format.rate)
    parts = np.array_split(rows, -(-len(rows) // BATCH))
    return torch.cat([sound_statistics(log_mel(clips.read(part)["sound"])) for part in parts])


def _trained(
    method: ClipMethod,
    views: Any,
    clips: Dataset[ClipFormat],
    rows: np.ndarray,
    plan: Run,
    seed: int,
    settings: dict[str, dict[str, Any]],
    name: str,
    device: torch.device,
) -> tuple[list[dict[str, float]], float]:
    """The method trained, and its curve; seconds of the run that an earlier process had spent."""
    start = sha256(Path(plan.start)) if plan.start else ""
    # How often something is written, and what is examined once the run is over, changes no bit of it.
    of_the_run = {key: own for key, own in settings.items() if key not in ("correspond.run", "correspond.evaluate")}
    facts = [name, seed, world_size(), str(device), of_the_run, plan.held_out, start]
    checkpoint = Checkpoint(
        "correspond", fingerprint(facts, clips.folder / "manifest.parquet", clips.folder / "dataset.json")
    )
    state = checkpoint.load() or {"step": 0, "curve": [], "seconds": 0.0}
    curve: list[dict[str, float]] = state["curve"]
    if state["step"]:
        print(f"correspond {name}-{seed}  goes on after step {state['step']}", flush=True)
    started = saved = time.monotonic()
    progress = None
    train = settings[f"correspond.{name}.train"]
    try:
        for step in fit(method, views, clips, device, seed, state if state["step"] else None, rows, **train):
            if rank():
                continue
            progress = progress or Progress(f"correspond {name}-{seed}", step.steps, "step", state["step"])
            now = time.monotonic()
            if step.number % plan.log_every == 0 or step.number in (1, step.steps):
                losses = {key: float(value) for key, value in step.losses.items()}
                curve.append({"step": step.number, "epoch": step.epoch, "lr": step.lr, **_named(losses)})
                progress.say(step.number, "  ".join(f"{key} {value:.4f}" for key, value in losses.items()))
            if now - saved > plan.checkpoint_seconds:
                seconds = state["seconds"] + now - started
                checkpoint.save({**step.state(), "curve": curve, "seconds": seconds})
                saved = now
    except NonFiniteLoss as error:
        advice = f"try a smaller lr, a longer warmup or clip in correspond.{name}.train"
        raise ValueError(f"{name}, seed {seed}: {error}; {advice}") from None
    finally:
        if progress:
            progress.close()
    if not rank():
        checkpoint.remove()
    return curve, state["seconds"]


def _named(losses: dict[str, float]) -> dict[str, float]:
    """Names that scores on test clips don't have."""
    return {"loss" if name == "loss" else f"training_{name}": value for name, value in losses.items()}


def _probe(exam: Exam, found: Findings, plan: Run, settings: dict[str, dict[str, Any]]) -> None:
    """Both encoders beside such with random weights, and beside what a run started from, where clips have labels."""
    method, clips = exam.method, exam.clips
    if not clips.labelled:
        return
    torch.manual_seed(derive(exam.seed, "random"))
    random = Encoder(3, clips.format.side, **settings["correspond.picture"])
    found.add("probe_picture", probe(exam, method.encoder, sound=False))
    found.add("probe_picture_random", probe(exam, random, sound=False, settled=False))
    if plan.start:
        found.add("probe_picture_start", probe(exam, load_encoder(Path(plan.start)), False, settled=False))
    if isinstance(heard := getattr(method, "sound_encoder", None), Encoder):
        found.add("probe_sound", probe(exam, heard, sound=True))
        found.add("probe_sound_random", probe(exam, _sound_encoder(settings), sound=True, settled=False))


def _write(folder: Path, curve: list[dict[str, float]], method: ClipMethod, found: Findings) -> None:
    write_csv(folder / "curve.csv", list(curve[-1]), [list(row.values()) for row in curve])
    save_encoder(method.encoder, folder / "picture.safetensors")
    if isinstance(heard := getattr(method, "sound_encoder", None), Encoder):
        save_encoder(heard, folder / "sound.safetensors")
    for name, table in found.tables.items():
        with replacing(folder / f"{name}.parquet") as temporary:
            pq.write_table(table, temporary)
    if found.maps:
        with replacing(folder / "maps.safetensors") as temporary:
            save_file({name: tensor.contiguous() for name, tensor in found.maps.items()}, temporary)


def _words(metrics: dict[str, float]) -> str:
    if "accuracy" not in metrics:
        probes = {"frames": "probe_picture_accuracy", "sounds": "probe_sound_accuracy"}
        known = [f"{what} {100 * metrics[name]:.1f} %" for what, name in probes.items() if name in metrics]
        return f"linear probes: {', '.join(known)}" if known else "trained; there is nothing to test it on"
    low, high = (f"{100 * metrics[name]:.0f}" for name in ("low", "high"))
    said = f"{100 * metrics['accuracy']:.1f} % right ({low} to {high}, chance {100 * metrics.get('chance', 0.5):.0f})"
    if "retrieval_sound_own_r1" in metrics:
        said += f", R@1 {100 * metrics['retrieval_sound_own_r1']:.1f} of {100 * metrics['retrieval_own_r1_chance']:.1f}"
    if "localisation_hits" in metrics:
        said += f", hits {100 * metrics['localisation_hits']:.0f} (centre {100 * metrics['localisation_centre']:.0f})"
    return said


if __name__ == "__main__":
    run(main, str, int)
