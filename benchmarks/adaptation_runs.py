"""The runs that `benchmarks.adaptation` compares: pairs, settings and methods, and what of them has been measured."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from benchmarks.kept import ROOT, code_of, commit, make
from sslflow.adaptation import method as adapter
from sslflow.adaptation.inputs import Domain, Residual, frozen_inputs, image_inputs, of_features, standardised
from sslflow.adaptation.loop import adapt, judge
from sslflow.adaptation.task import Task, open_task, target_answers
from sslflow.adaptation.unknown_groups import unknown_groups
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.examination.adaptation.scores import Decisions, adaptation_scores
from sslflow.features.extract import extract
from sslflow.ingest.domains import prepare_domains
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder
from sslflow.networks.starts import Start
from sslflow.networks.weights import given
from sslflow.runtime.files import read_json, replacing, sha256, write_json
from sslflow.runtime.rng import derive
from sslflow.settings.params import load, lookup, read
from sslflow.views.images import CropView

WORK = ROOT / "work/benchmarks/adaptation"
CPU = torch.device("cpu")
FORMATS: dict[str, dict[str, Any]] = {
    "digits": {"image_size": 28, "channels": 1},
    "emoji": {"image_size": 32, "channels": 3},
    "fashion": {"image_size": 28, "channels": 1},
}
LITE0 = "lite0"
GIVEN = Start(weights="package:efficientnet-lite0", side=96)
GIVEN_SIZE = 64
"""Pixels of the images that are brought to the `side` of the weights, as in `benchmarks.starts`."""
PRETRAINING: dict[str, dict[str, Any]] = {
    "digits": {"train": {"epochs": 24}, "views": {"flip": 0.0}},
    "emoji": {"train": {"epochs": 11}, "views": {}},
    "fashion": {"train": {"epochs": 6}, "views": {}},
}
PAIRS = {
    "digits": ("samples:digits/clean", "samples:digits/photo"),
    "noto-twemoji": ("samples:emoji/noto", "samples:emoji/twemoji"),
    "twemoji-openmoji": ("samples:emoji/twemoji", "samples:emoji/openmoji"),
    "openmoji-noto": ("samples:emoji/openmoji", "samples:emoji/noto"),
}
SPLITS = {"digits": "digits", "emoji": "emoji-category"}
TUNED = ("digits", "noto-twemoji")
COLOURED = ("noto-twemoji", "twemoji-openmoji")
"""Pairs on which weights that exist are tried."""
SETTINGS = ("cda", "pda", "oda", "opda")
TOLD = "gated_dance, told"
"""`gated_dance` by somebody who knows whether anything is unknown, and says so."""
METHODS = ("source_only", "dance", "ovanet", "gated_dance", TOLD)
KNOWN = {"cda": "none", "pda": "none", "oda": "some", "opda": "some"}
SEEDS = (0, 1, 2)
PRETRAINED_BY = ("data", "ingest", "networks", "training", "views", "methods/images")
"""Rooms whose code an encoder depends on."""
EXTRACTED_BY = ("data", "features", "ingest", "networks")
CODE = ("adaptation", "clustering", "examination/adaptation", "methods/adaptation")


@dataclass(frozen=True)
class Run:
    """One method on one pair of domains in one setting."""

    pair: str
    setting: str
    method: str
    seed: int
    start: str = "simclr"
    tuned: bool = False

    @property
    def family(self) -> str:
        """What the domains show."""
        return "digits" if self.pair == "digits" else "emoji"

    @property
    def form(self) -> dict[str, Any]:
        """What the images are prepared as."""
        return {**FORMATS[self.family], **({"image_size": GIVEN_SIZE} if self.start == LITE0 else {})}

    @property
    def domains(self) -> Path:
        """Where the prepared domains lie."""
        return WORK / "domains" / (f"{self.pair}-{GIVEN_SIZE}" if self.start == LITE0 else self.pair)

    @property
    def result(self) -> Path:
        """Where what was measured is kept."""
        return WORK / "results" / f"{'-'.join(map(str, astuple(self))).replace(', ', '_')}.json"

    @property
    def name(self) -> str:
        """The file of the method."""
        return self.method.partition(",")[0]


def settings() -> dict[str, dict[str, Any]]:
    """Those of recipes/full.yaml."""
    blocks = {f"adapt_methods.{name}": adapter.find(name) for name in METHODS if name != TOLD}
    return read(
        {"adapt.train": adapt, "adapt.views": CropView, "encoder": Encoder, **blocks}, ROOT / "recipes/full.yaml"
    )


def encoder_file(family: str, seed: int) -> Path:
    """Where the encoder of a seed lies."""
    return WORK / family / f"artifacts/encoders/simclr-{seed}.safetensors"


def pretrained(family: str, seed: int) -> Path:
    """The encoder of a seed, by the stage pretrain on all images of the sample, without labels."""
    folder, file = WORK / family, encoder_file(family, seed)
    prepared, sample = folder / "data/prepared", f"samples:{family}"
    params = load(ROOT / "recipes/full.yaml")
    made_of = [FORMATS[family], PRETRAINING[family], *(params[name] for name in ("encoder", "train", "views"))]
    made_of.append(lookup(params, "methods.simclr"))
    make(
        prepared,
        FORMATS[family],
        ("data", "ingest"),
        lambda: prepare(prepared, print, source=sample, **FORMATS[family]),
    )
    make(file, made_of, PRETRAINED_BY, lambda: _pretrain(folder, family, seed))
    return file


def _pretrain(folder: Path, family: str, seed: int) -> None:
    params = load(ROOT / "recipes/full.yaml")
    params["compute"] |= {"device": "cpu", "threads": 1}
    for part, changed in PRETRAINING[family].items():
        params["methods"]["simclr"][part] = {**lookup(params, f"methods.simclr.{part}"), **changed}
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)
    words = [sys.executable, "-m", "sslflow.stages.pretrain", "simclr", str(seed)]
    subprocess.run(words, cwd=folder, check=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def prepared(run: Run) -> Path:
    """The prepared domains of a run."""
    source, target = PAIRS[run.pair]
    make(
        run.domains,
        [source, target, run.form],
        ("data", "ingest"),
        lambda: prepare_domains(run.domains, print, source=source, target=target, **run.form),
    )
    return run.domains


def features(run: Run) -> Path:
    """Features of all images of both domains by the weights as they came: once for all settings, methods and seeds."""
    file = WORK / "features" / f"{run.pair}-{run.start}.safetensors"

    def work_out() -> None:
        datasets = {name: Dataset[ImageFormat](prepared(run) / name) for name in ("source", "target")}
        encoder = given(GIVEN, datasets["target"].format)
        rows = {name: extract(encoder, one, np.arange(len(one)), CPU) for name, one in datasets.items()}
        with replacing(file) as temporary:
            save_file({name: torch.from_numpy(part) for name, part in rows.items()}, temporary)

    make(file, [astuple(GIVEN), PAIRS[run.pair], run.form], EXTRACTED_BY, work_out)
    return file


def kept_inputs(run: Run, task: Task) -> tuple[Domain, Domain, Residual, int]:
    """What `frozen_inputs` gives, from features that are kept; and their width."""
    found = load_file(features(run))
    source, target = standardised(found["source"][task.source_rows], found["target"][task.target_rows])
    dim = source.shape[1]
    return of_features(source), of_features(target), Residual(dim), dim


def key(run: Run) -> str:
    """Changes when the settings, the code of adaptation, the images or the encoder do. What other code below adaptation
    has made is kept, and said below the table."""
    files = [file for room in CODE for file in sorted((ROOT / "sslflow" / room).glob("*.py"))]
    files += [run.domains / domain / "manifest.parquet" for domain in ("source", "target")]
    if run.start == LITE0:
        files.append(features(run))
    elif (encoder := encoder_file(run.family, run.seed)).exists():
        files.append(encoder)
    content = [astuple(run), settings(), [sha256(file) for file in files]]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def code(method: str) -> dict[str, str]:
    """The code that a run reaches today."""
    return code_of(("adapt", "score"), f"sslflow.methods.adaptation.{method}")


def measured(run: Run) -> dict[str, Any] | None:
    """The result, where it was measured with the present settings and code."""
    found = read_json(run.result) if run.result.exists() else None
    return found if found and found["key"] == key(run) else None


def measure(run: Run) -> Run:
    """Adapt, score, keep the scores."""
    torch.set_num_threads(1)
    found, folder = settings(), prepared(run)
    split = ROOT / f"data/samples/splits/{SPLITS[run.family]}.json"
    task, answers = open_task(folder, run.setting, split), target_answers(folder, run.setting, split)
    run.result.parent.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    if run.start == LITE0:
        source, target, body, dim = kept_inputs(run, task)
    else:
        encoder = _encoder(run, task, found["encoder"])
        dim = encoder.dim
        if run.tuned:
            source, target, body = image_inputs(encoder, task, CPU, settings=found["adapt.views"])
        else:
            source, target, body = frozen_inputs(encoder, task, CPU, settings={})
    torch.manual_seed(derive(run.seed, "adapter"))
    own = found[f"adapt_methods.{run.name}"] | ({"unknown": KNOWN[run.setting]} if run.method == TOLD else {})
    model = adapter.find(run.name)(body, dim, len(task.classes), target.size, **own)
    for _ in adapt(model, source, task.source_labels, target, CPU, run.seed, **found["adapt.train"]):
        pass
    judged, features = judge(model, target)
    groups = unknown_groups(judged, features, run.seed)
    scores = adaptation_scores(Decisions(judged.decisions, judged.classes, judged.unknownness, groups), answers)
    seconds = time.process_time() - begun
    kept = {"decisions": judged.decisions, "actual": answers.labels}
    save_file({name: part.contiguous() for name, part in kept.items()}, run.result.with_suffix(".safetensors"))
    made = {"commit": commit(), "code": code(run.method)}
    write_json(run.result, {"key": key(run), "seconds": seconds, **scores, "notes": judged.notes, **made})
    return run


def _encoder(run: Run, task: Task, settings: dict[str, Any]) -> Encoder:
    if run.start != "random":
        return load_encoder(pretrained(run.family, run.seed))
    torch.manual_seed(derive(run.seed, "init"))
    return Encoder(task.target.format.channels, task.target.format.size, **settings)


def runs(
    weights: str, tuned: bool, pairs: list[str], methods: list[str], settings: list[str], seeds: list[int]
) -> list[Run]:
    """All that is to be measured."""
    starts = (weights, "random") if tuned else (weights,)
    return [
        Run(pair, setting, method, seed, start, tuned)
        for seed in seeds
        for pair in pairs
        if (not tuned or pair in TUNED) and (weights != LITE0 or pair in COLOURED)
        for start in starts
        for setting in settings
        for method in methods
    ]
