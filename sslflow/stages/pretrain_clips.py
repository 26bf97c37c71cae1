"""pretrain_clips METHOD SEED: encoders of pictures and of sounds from clips alone, and their training curve."""

from __future__ import annotations

from typing import Any

import torch

from sslflow import paths
from sslflow.audiovisual.bundle import facts_of
from sslflow.audiovisual.ingredients import clip_rows, of_clips
from sslflow.audiovisual.method import find
from sslflow.audiovisual.plan import Plan, sections
from sslflow.audiovisual.windows import settle
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.monitoring.watch import Watch
from sslflow.networks.saved import save_encoder
from sslflow.networks.starts import is_name, known_by
from sslflow.runtime.device import compute
from sslflow.runtime.distributed import process_group, rank
from sslflow.runtime.files import sha256, write_metrics
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Schemas, read
from sslflow.stages.entry import run
from sslflow.training.continued import Continued, hold
from sslflow.training.ingredients import build
from sslflow.training.provenance import how_images_are, made_by
from sslflow.training.run import Run
from sslflow.training.saved import save_method


def schemas(clip_method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return sections(clip_method)


def main(method: str, seed: int) -> None:
    settings = read(schemas(method))
    device = compute(**settings["compute"])
    with process_group(device):
        _pretrain(method, seed, settings, device)


def _pretrain(name: str, seed: int, settings: dict[str, dict[str, Any]], device: torch.device) -> None:
    kind, block = find(name), f"clip_methods.{name}"
    plan = Plan(**settings.pop("pretrain_clips"))
    clips = Dataset[ClipFormat](paths.clips(plan.clips))
    rows, _ = clip_rows(kind, name, clips, plan.held_out, seed)
    torch.manual_seed(derive(seed, "init"))
    given = of_clips(clips, rows, settings["clip_encoders.picture"], settings["clip_encoders.sound"], plan.start)
    method = build(kind, given, settings[block])
    continued = Continued(weights=plan.start) if is_name(plan.start) else None
    if continued:
        hold(method.encoder, continued.blocks, len(rows))
    views = kind.Views(clips.format, **settings[f"{block}.views"])

    facts = [settings, plan.held_out, sha256(known_by(plan.start)) if plan.start else ""]
    files = clips.folder / "manifest.parquet", clips.folder / "dataset.json"
    training = Run("pretrain_clips", name, seed, plan.journal, device, facts, *files, unit=clips.format.unit)
    train = settings[f"{block}.train"]
    watched = rows[permutation(len(rows), seed, "diagnostics")[: plan.diagnostics].numpy()]
    watch = Watch(method, None, clips, watched, device, seed, train.get("memory_format", "channels_last"))
    for moment in training.train(method, views, clips, rows, f"{block}.train", continued=continued, **train):
        training.look(moment, watch, f"{block}.train")
    settle(method, views, clips, rows, device, seed)
    if rank():
        return
    for part, encoder in method.encoders.items():
        encoder.facts = made_by(name, seed, settings, clips, len(rows))
        if part == "picture":
            encoder.facts["images"] = how_images_are(clips, clips.format.picture)
        save_encoder(encoder, paths.clip_encoder(name, seed, part))
    file = paths.trained(name, seed, paths.OF_CLIPS)
    save_method(method, file, facts_of(name, method, clips.format, settings[block], settings[f"{block}.views"]))
    training.write_curve(paths.curve(name, seed, paths.OF_CLIPS))
    write_metrics(paths.metrics("pretrain_clips", paths.run_name(name, seed)), training.metrics(len(rows), "clips"))
    training.remove_checkpoint()
    print(f"{training.label}  {training.curve[-1]['step']} steps in {training.seconds:.0f} s, wrote {file}")


if __name__ == "__main__":
    run(main, str, int)
