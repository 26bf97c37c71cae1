"""examine METHOD SEED: what a method for clips can do on sources that it has not seen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from sslflow import paths
from sslflow.audiovisual.ingredients import clip_rows, of_clips, picture_encoder, sound_encoder, started_picture
from sslflow.audiovisual.method import find
from sslflow.audiovisual.plan import Plan, sections
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.examination.clips.exam import Exam, Examination, Findings, probe
from sslflow.runtime.device import compute, place
from sslflow.runtime.files import replacing, write_metrics
from sslflow.runtime.rng import derive
from sslflow.settings.params import Schemas, read
from sslflow.stages.entry import run
from sslflow.training.ingredients import build
from sslflow.training.saved import load_weights


def schemas(clip_method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {**sections(clip_method), "examine": Examination}


def main(name: str, seed: int) -> None:
    settings = read(schemas(name))
    device, started = compute(**settings["compute"]), time.monotonic()
    kind, block = find(name), f"clip_methods.{name}"
    plan = Plan(**settings["pretrain_clips"])
    clips = Dataset[ClipFormat](paths.clips(plan.clips))
    rows, held = clip_rows(kind, name, clips, plan.held_out, seed)
    given = of_clips(clips, rows, settings["clip_encoders.picture"], settings["clip_encoders.sound"], plan.start)
    method = build(kind, given, settings[block])
    load_weights(method, paths.trained(name, seed, paths.OF_CLIPS), "pretrain_clips")
    place(method, device, settings[f"{block}.train"].get("memory_format", "channels_last"))
    views = kind.Views(clips.format, **settings[f"{block}.views"])
    size = Examination(**settings["examine"])
    exam = Exam(method, views, clips, rows, held if len(held) else rows, device, seed, size)
    found = exam.findings()
    _probe(exam, found, plan, settings)
    _write(paths.examined(name, seed), found)
    found.metrics["seconds"] = time.monotonic() - started
    write_metrics(paths.metrics("examine", paths.run_name(name, seed)), found.metrics)
    print(f"examine {name}-{seed}  {_words(found.metrics)}", flush=True)


def _probe(exam: Exam, found: Findings, plan: Plan, settings: dict[str, dict[str, Any]]) -> None:
    """Both encoders beside such with random weights, and beside what a run started from, where clips have labels."""
    encoders, clips = exam.method.encoders, exam.clips
    if not clips.labelled:
        return
    torch.manual_seed(derive(exam.seed, "random"))
    random = picture_encoder(clips, settings["clip_encoders.picture"])
    found.add("probe_picture", probe(exam, encoders["picture"], sound=False))
    found.add("probe_picture_random", probe(exam, random, sound=False, settled=False))
    if plan.start:
        found.add("probe_picture_start", probe(exam, started_picture(clips, plan.start), False, settled=False))
    if "sound" in encoders:
        found.add("probe_sound", probe(exam, encoders["sound"], sound=True))
        random = sound_encoder(settings["clip_encoders.sound"])
        found.add("probe_sound_random", probe(exam, random, sound=True, settled=False))


def _write(folder: Path, found: Findings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
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
        return f"linear probes: {', '.join(known)}" if known else "there is nothing to test it on"
    low, high = (f"{100 * metrics[name]:.0f}" for name in ("low", "high"))
    said = f"{100 * metrics['accuracy']:.1f} % right ({low} to {high}, chance {100 * metrics.get('chance', 0.5):.0f})"
    if "retrieval_sound_own_r1" in metrics:
        said += f", R@1 {100 * metrics['retrieval_sound_own_r1']:.1f} of {100 * metrics['retrieval_own_r1_chance']:.1f}"
    if "localisation_hits" in metrics:
        said += f", hits {100 * metrics['localisation_hits']:.0f} (centre {100 * metrics['localisation_centre']:.0f})"
    return said


if __name__ == "__main__":
    run(main, str, int)
