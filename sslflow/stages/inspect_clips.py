"""inspect_clips METHOD SEED: what the curve of a run on clips says about it, and what its method makes of a few."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sslflow import paths
from sslflow.audiovisual.ingredients import clip_rows, of_clips
from sslflow.audiovisual.method import find
from sslflow.audiovisual.plan import Plan
from sslflow.data.clips import Clips
from sslflow.data.raw import stills
from sslflow.judging.judge import judge
from sslflow.judging.pictures import Shown, sheet
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import compute, place
from sslflow.runtime.files import replacing
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import read
from sslflow.stages.entry import run
from sslflow.training.fit import fit
from sslflow.training.ingredients import build
from sslflow.training.saved import load_weights

SECTIONS = (
    "compute",
    "correspond.picture",
    "correspond.run",
    "correspond.sound",
    "correspond.${item.method}",
    "inspect",
)
"""What `dvc.yaml` says that it depends on: not the other methods' settings."""


def schemas(method: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind, block = find(method), f"correspond.{method}"
    return {
        "compute": compute,
        "correspond.run": Plan,
        "correspond.picture": Encoder,
        "correspond.sound": Encoder,
        "inspect": Shown,
        block: kind,
        f"{block}.views": kind.Views,
        f"{block}.train": fit,
    }


def main(name: str, seed: int) -> None:
    settings = read(schemas(name))
    device = compute(**settings["compute"])
    clips, kind, block = Clips(), find(name), f"correspond.{name}"
    plan, train = Plan(**settings["correspond.run"]), settings[f"{block}.train"]
    rows, _ = clip_rows(kind, name, clips, plan.held_out, seed)
    given = of_clips(clips, rows, settings["correspond.picture"], settings["correspond.sound"], plan.start)
    method, under = build(kind, given, settings[block]), paths.OF_CLIPS
    load_weights(method, paths.trained(name, seed, under), "pretrain_clips")
    place(method, device, train.get("memory_format", "channels_last"))
    batch_size, verdict = min(train["batch_size"], len(rows)), paths.verdict(name, seed, under)
    judge(f"inspect_clips {name}-{seed}", method, paths.curve(name, seed, under), batch_size, verdict)

    views = kind.Views(clips.format, **settings[f"{block}.views"]).to(device)
    shown = permutation(len(rows), seed, "diagnostics")[: Shown(**settings["inspect"]).pictures].numpy()
    raw = clips.read(rows[shown]).to(device)
    torch.manual_seed(derive(seed, "pictures"))
    with replacing(paths.pictures(name, seed, under)) as temporary:
        sheet(method, views.eval()(raw), stills(raw), views.normalise).save(temporary, format="PNG")


if __name__ == "__main__":
    run(main, str, int)
