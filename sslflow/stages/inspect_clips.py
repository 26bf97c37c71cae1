"""inspect_clips METHOD SEED: what the curve of a run on clips says about it, and what its method makes of a few."""

from __future__ import annotations

import torch

from sslflow import paths
from sslflow.audiovisual.ingredients import clip_rows, of_clips
from sslflow.audiovisual.method import find
from sslflow.audiovisual.plan import Plan, sections
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.judging.judge import judge
from sslflow.judging.pictures import Shown, sheet
from sslflow.runtime.device import compute, place
from sslflow.runtime.files import replacing
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Schemas, read
from sslflow.stages.entry import run
from sslflow.training.ingredients import build
from sslflow.training.saved import load_weights


def schemas(clip_method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {**sections(clip_method), "inspect": Shown}


def main(name: str, seed: int) -> None:
    settings = read(schemas(name))
    device = compute(**settings["compute"])
    kind, block = find(name), f"clip_methods.{name}"
    plan, train = Plan(**settings["pretrain_clips"]), settings[f"{block}.train"]
    clips = Dataset[ClipFormat](paths.clips(plan.clips))
    rows, _ = clip_rows(kind, name, clips, plan.held_out, seed)
    given = of_clips(clips, rows, settings["clip_encoders.picture"], settings["clip_encoders.sound"], plan.start)
    method, under = build(kind, given, settings[block]), paths.OF_CLIPS
    load_weights(method, paths.trained(name, seed, under), "pretrain_clips")
    place(method, device, train.get("memory_format", "channels_last"))
    batch_size, verdict = min(train["batch_size"], len(rows)), paths.verdict(name, seed, under)
    judge(
        f"inspect_clips {name}-{seed}", method, paths.curve(name, seed, under), batch_size, clips.format.unit, verdict
    )

    views = kind.Views(clips.format, **settings[f"{block}.views"]).to(device)
    shown = permutation(len(rows), seed, "diagnostics")[: Shown(**settings["inspect"]).pictures].numpy()
    fields = clips.read(rows[shown]).to(device)
    torch.manual_seed(derive(seed, "pictures"))
    with replacing(paths.pictures(name, seed, under)) as temporary:
        sheet(method, views.eval()(fields), fields, clips).save(temporary, format="PNG")


if __name__ == "__main__":
    run(main, str, int)
