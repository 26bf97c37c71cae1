"""pretrain METHOD SEED: an encoder from images alone, its training curve, and signs of collapse on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sslflow import places
from sslflow.checkpoint import Checkpoint, fingerprint
from sslflow.data.dataset import Dataset
from sslflow.device import compute
from sslflow.diagnostics import feature_std, rankme
from sslflow.distributed import process_group, rank, world_size
from sslflow.encoder import Encoder, save_encoder
from sslflow.features import extract
from sslflow.files import write_csv, write_metrics
from sslflow.method import find
from sslflow.params import Count, Positive, read
from sslflow.progress import Progress
from sslflow.rng import derive, permutation
from sslflow.stages.entry import run
from sslflow.train import NonFiniteLoss, Step, fit


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What is written down while a run goes on: a row of the curve every `log_every` steps, with the diagnostics of the
    features of `diagnostics` images, and a checkpoint every `checkpoint_seconds`."""

    log_every: Count = 20
    diagnostics: Count = 512
    checkpoint_seconds: Positive = 60


def schemas(method: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind = find(method)
    block = f"methods.{method}"
    return {
        "compute": compute,
        "encoder": Encoder,
        "pretrain": Journal,
        block: kind,
        f"{block}.views": kind.Views,
        f"{block}.train": fit,
    }


def main(method: str, seed: int) -> None:
    settings = read(schemas(method))
    device = compute(**settings["compute"])
    with process_group(device):
        _pretrain(method, seed, settings, device)


def _pretrain(name: str, seed: int, settings: dict[str, dict[str, Any]], device: torch.device) -> None:
    dataset = Dataset()
    images = dataset.pretraining_rows
    if len(images) < 2:
        raise ValueError(f"pretraining needs at least two images, and there are {len(images)}")
    journal = Journal(**settings["pretrain"])
    looked_at = images[permutation(len(images), seed, "diagnostics")[: journal.diagnostics].numpy()]

    kind = find(name)
    torch.manual_seed(derive(seed, "init"))
    encoder = Encoder(dataset.channels, dataset.image_size, **settings["encoder"])
    method = kind(encoder, **settings[f"methods.{name}"])
    views = kind.Views(dataset.format, **settings[f"methods.{name}.views"])

    depends_on = [name, seed, world_size(), str(device), settings]
    checkpoint = Checkpoint(
        "pretrain", fingerprint(depends_on, dataset.folder / "manifest.parquet", dataset.folder / "dataset.json")
    )
    state = checkpoint.load() or {"step": 0, "curve": [], "seconds": 0.0}
    curve: list[dict[str, float]] = state["curve"]
    if state["step"]:
        print(f"pretrain {name}-{seed}  goes on after step {state['step']}", flush=True)

    started = saved = time.monotonic()
    progress = None
    try:
        for step in fit(
            method, views, dataset, device, seed, state if state["step"] else None, **settings[f"methods.{name}.train"]
        ):
            if rank():
                continue
            progress = progress or Progress(f"pretrain {name}-{seed}", step.steps, "step", state["step"])
            now = time.monotonic()
            seconds = state["seconds"] + now - started
            if step.number % journal.log_every == 0 or step.number == step.steps:
                features = torch.from_numpy(extract(encoder, dataset, looked_at, device))
                method.train()
                curve.append(_row(step, features))
                speed = (step.number - state["step"]) * step.batch_size / (now - started)
                text = (
                    f"loss {curve[-1]['loss']:.4f}  lr {step.lr:.1e}  rank {curve[-1]['rankme']:.1f}  {speed:.0f} img/s"
                )
                progress.say(step.number, text)
            if now - saved > journal.checkpoint_seconds:
                checkpoint.save({**step.state(), "curve": curve, "seconds": seconds})
                saved = now
    except NonFiniteLoss as error:
        kept = (
            f"the last good checkpoint is {checkpoint.file}"
            if checkpoint.file.exists()
            else "no checkpoint was made yet"
        )
        advice = f"try a smaller lr, a longer warmup or clip in methods.{name}.train"
        raise ValueError(f"{name}, seed {seed}: {error}; {advice}; {kept}") from None
    finally:
        if progress:
            progress.close()
    if rank() == 0:
        _write(name, seed, encoder, curve, state["seconds"] + time.monotonic() - started, len(images))
        checkpoint.remove()


def _row(step: Step, features: torch.Tensor) -> dict[str, float]:
    losses = {name: float(value) for name, value in step.losses.items()}
    return {
        "step": step.number,
        "epoch": step.epoch,
        "loss": losses.pop("loss"),
        "lr": step.lr,
        "feature_std": feature_std(features),
        "rankme": rankme(features),
        **losses,
    }


def _write(name: str, seed: int, encoder: Encoder, curve: list[dict[str, float]], seconds: float, images: int) -> None:
    save_encoder(encoder, places.encoder(name, seed))
    write_csv(places.curve(name, seed), list(curve[-1]), [list(row.values()) for row in curve])
    last = curve[-1]
    metrics = {**last, "seconds": seconds, "images_per_second": last["epoch"] * images / max(seconds, 1e-9)}
    write_metrics(places.metrics("pretrain", places.run_name(name, seed)), metrics)
    print(f"pretrain {name}-{seed}  {last['step']} steps in {seconds:.0f} s, wrote {places.encoder(name, seed)}")


if __name__ == "__main__":
    run(main, str, int)
