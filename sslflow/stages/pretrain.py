"""pretrain METHOD SEED: an encoder from images alone, its training curve, and signs of collapse on the way."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.splits import TRAIN
from sslflow.drawing.contact_sheet import contact_sheet
from sslflow.features.extract import calibrate
from sslflow.monitoring.verdict import findings
from sslflow.monitoring.watch import Watch, first_row, row
from sslflow.networks.encoder import Encoder, save_encoder
from sslflow.progress import Progress
from sslflow.runtime.checkpoint import Checkpoint, fingerprint
from sslflow.runtime.device import compute
from sslflow.runtime.distributed import process_group, rank, world_size
from sslflow.runtime.files import replacing, write_csv, write_json, write_metrics
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Count, Over, Positive, Schemas, read
from sslflow.stages.entry import run
from sslflow.training.fit import NonFiniteLoss, fit
from sslflow.training.method import Batch, Method, find
from sslflow.training.pictures import attention
from sslflow.views.images import Views

THUMBNAIL = 72
"""Pixels: smaller images are drawn at the whole multiple that comes closest to it from below."""
ROWS = 10


@dataclass(frozen=True, kw_only=True)
class Journal:
    """What is written down while a run goes on: a row of the curve every `log_every` steps, with the diagnostics of the
    features of `diagnostics` images, and a checkpoint every `checkpoint_seconds`; at its end, what the method makes of
    `pictures` images."""

    log_every: Count = 20
    diagnostics: Annotated[int, Ge(2)] = 512
    checkpoint_seconds: Positive = 60
    pictures: Count = 64


def schemas(method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind = find(method)
    block = f"methods.{method}"
    return {
        "compute": compute,
        "encoder": Encoder,
        "pretrain": Journal,
        block: kind,
        f"{block}.views": Over("views", kind.Views),
        f"{block}.train": Over("train", fit),
    }


def main(method: str, seed: int) -> None:
    settings = read(schemas(method))
    device = compute(**settings["compute"])
    with process_group(device):
        _pretrain(method, seed, settings, device)


def _pretrain(name: str, seed: int, settings: dict[str, dict[str, Any]], device: torch.device) -> None:
    dataset = Dataset()
    kind = find(name)
    images = dataset.labelled_rows(TRAIN) if kind.needs_labels else dataset.pretraining_rows
    if len(images) < 2:
        raise ValueError(f"pretraining needs at least two images, and there are {len(images)}")
    journal = Journal(**settings["pretrain"])
    looked_at = images[permutation(len(images), seed, "diagnostics")[: journal.diagnostics].numpy()]

    torch.manual_seed(derive(seed, "init"))
    encoder = Encoder(dataset.format.channels, dataset.format.size, **settings["encoder"])
    given = (torch.from_numpy(dataset.labels[images]),) if kind.needs_labels else ()
    method = kind(encoder, *given, **settings[f"methods.{name}"])
    views = kind.Views(dataset.format, **settings[f"methods.{name}.views"])

    # What is written down, and how often, changes no bit of a run; but diagnostics of more images are others.
    of_the_run = {**settings, "pretrain": {"diagnostics": journal.diagnostics}}
    depends_on = [name, seed, world_size(), str(device), of_the_run]
    checkpoint = Checkpoint(
        "pretrain", fingerprint(depends_on, dataset.folder / "manifest.parquet", dataset.folder / "dataset.json")
    )
    state = checkpoint.load() or {"step": 0, "curve": [], "seconds": 0.0}
    curve: list[dict[str, float]] = state["curve"]
    if state["step"]:
        print(f"pretrain {name}-{seed}  goes on after step {state['step']}", flush=True)

    train = settings[f"methods.{name}.train"]
    watch = Watch(method, views, dataset, looked_at, device, seed, train.get("memory_format", "channels_last"))
    before = {} if state["step"] else watch()
    choices, said = method.choices(min(train["batch_size"], len(images))), set[str]()
    started = saved = time.monotonic()
    progress = None
    try:
        for step in fit(method, views, dataset, device, seed, state if state["step"] else None, images, **train):
            signs = {}
            if step.number % journal.log_every == 0 or step.number == step.steps:
                signs = watch()
                method.train()
            if rank():
                continue
            progress = progress or Progress(f"pretrain {name}-{seed}", step.steps, "step", state["step"])
            now = time.monotonic()
            seconds = state["seconds"] + now - started
            if step.number == 1:
                curve.append(first_row(step, before))
            if signs:
                curve.append(row(step, signs))
                speed = (step.number - state["step"]) * step.batch_size / (now - started)
                text = (
                    f"loss {curve[-1]['loss']:.4f}  lr {step.lr:.1e}  rank {curve[-1]['rankme']:.1f}  {speed:.0f} img/s"
                )
                progress.say(step.number, text)
                for finding in findings(curve, choices, step.steps) if step.number < step.steps else []:
                    if finding.kind not in said:
                        progress.note(step.number, f"warning: {finding.words} {finding.advice}")
                        said.add(finding.kind)
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
    calibrate(encoder, dataset, images, device, memory_format=watch.memory_format)
    if rank() == 0:
        _write(name, seed, encoder, curve, state["seconds"] + time.monotonic() - started, len(images))
        verdict = findings(curve, choices, int(curve[-1]["step"]))
        write_json(paths.verdict(name, seed), [asdict(finding) for finding in verdict])
        for finding in verdict:
            print(f"pretrain {name}-{seed}  verdict: {finding.words} {finding.advice}".rstrip())
        torch.manual_seed(derive(seed, "pictures"))
        _draw(paths.pictures(name, seed), method, views, dataset.read(looked_at[: journal.pictures]).to(device))
        checkpoint.remove()


def _write(name: str, seed: int, encoder: Encoder, curve: list[dict[str, float]], seconds: float, images: int) -> None:
    save_encoder(encoder, paths.encoder(name, seed))
    write_csv(paths.curve(name, seed), list(curve[-1]), [list(row.values()) for row in curve])
    last = curve[-1]
    metrics = {**last, "seconds": seconds, "images_per_second": last["epoch"] * images / max(seconds, 1e-9)}
    write_metrics(paths.metrics("pretrain", paths.run_name(name, seed)), metrics)
    print(f"pretrain {name}-{seed}  {last['step']} steps in {seconds:.0f} s, wrote {paths.encoder(name, seed)}")


def _draw(file: Path, method: Method, views: Views, fields: Fields) -> None:
    """A sheet of what the method makes of images; with a ViT, also of where it looks."""
    method.eval()
    images, rows = fields["images"], torch.arange(len(fields), device=fields.device)
    columns = dict(method.pictures(Batch(views(fields), rows, progress=1.0)))
    if method.encoder.is_vit:
        columns |= {"image": views.normalise(images), "looked at": attention(method.encoder, views.normalise(images))}
    made = [views.normalise.restore(column.float())[:ROWS] for column in columns.values()]
    # Cut to the fewest rows of any column, and to colours that can be drawn.
    height = min(len(column) for column in made)
    drawn = torch.stack([column[:height, : 3 if column.shape[1] > 2 else 1] for column in made], dim=1)
    scale = max(1, THUMBNAIL // drawn.shape[-1])
    sheet = contact_sheet(drawn.flatten(0, 1).cpu(), columns=len(made), scale=scale, column_labels=list(columns))
    with replacing(file) as temporary:
        sheet.save(temporary, format="PNG")


if __name__ == "__main__":
    run(main, str, int)
