"""Adaptation methods on shipped pairs of domains, in four settings: `python -m benchmarks.adaptation`.

Frozen features of SimCLR encoders that were pretrained on the images of both domains without labels; with `--tuned` the
encoder is trained as well, from these weights and from random ones; with `--weights lite0` frozen features of an
ImageNet classifier as it came, on the emoji. What has been measured with the same settings and the same code is not
measured again. `--table docs/benchmarks.md` writes the tables.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from benchmarks.kept import ROOT, code_of, commit, make, note, other_code
from benchmarks.tables import show
from sslflow.adaptation import method as adapter
from sslflow.adaptation.inputs import Domain, Residual, frozen_inputs, image_inputs, of_features, standardised
from sslflow.adaptation.loop import adapt, judge
from sslflow.adaptation.task import UNKNOWN, Task, open_task, target_answers
from sslflow.adaptation.unknown_groups import unknown_groups
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ImageFormat
from sslflow.examination.adaptation.gaps import Decided, Score, Truth, gap, signed, verdict
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
PART = {
    "digits": "the target's labels were in view when `margin`, `first` and `neighbours` of `gated_dance` were set; its "
    "bars are by other sources",
    "emoji": "its sources, with their labels, had a part in the bars of `gated_dance`; no label of a target had",
}
"""What had a part in the choice of settings."""
SEEDS = (0, 1, 2)
PRETRAINED_BY = ("data", "ingest", "networks", "training", "views", "methods/images")
"""Rooms whose code an encoder depends on."""
EXTRACTED_BY = ("data", "features", "ingest", "networks")
CODE = ("adaptation", "clustering", "examination/adaptation", "methods/adaptation")
SHOWN = {
    "unk": "gated_dance: UNK",
    "main_half": "at half of ln K",
    "main_best_threshold": "at the best threshold",
}
"""Scores of gated_dance beside its main one; the best threshold needs labels."""


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


def table(found: list[Run]) -> Iterator[str]:
    """Two tables for each pair and start in Markdown: scores, and distances to doing nothing."""
    groups = list(dict.fromkeys((run.pair, run.start, run.tuned) for run in found))
    for pair, start, tuned in groups:
        here = [run for run in found if (run.pair, run.start, run.tuned) == (pair, start, tuned)]
        how = f"encoder trained, from {start} weights" if tuned else "frozen features"
        how += f" of {GIVEN.weights}" if start == LITE0 else ""
        yield from ("", f"### {pair}: {how}", "")
        methods = list(dict.fromkeys(run.method for run in here))
        columns = [*methods, *SHOWN.values()]
        yield f"| | {' | '.join(columns)} |"
        yield f"|---|{'---|' * len(columns)}"
        for setting in dict.fromkeys(run.setting for run in here):
            cells = [_spread(here, setting, method, "main") for method in methods]
            cells += [_spread(here, setting, "gated_dance", name) for name in SHOWN]
            yield f"| {setting} | {' | '.join(cells)} |"
        yield from ("", *_compared(here), "", f"Tuned where: {PART[here[0].family]}.")
        yield from note({name: _others([run for run in here if run.method == name]) for name in methods})


def _others(found: list[Run]) -> list[str]:
    return [other_code(done, code(run.method)) for run in found if (done := measured(run))]


def _values(found: list[Run], setting: str, method: str, score: str) -> list[float]:
    chosen_runs = [run for run in found if (run.setting, run.method) == (setting, method)]
    results = [done for run in chosen_runs if (done := measured(run))]
    return [100 * done[score] for done in results if score in done]


def _spread(found: list[Run], setting: str, method: str, score: str) -> str:
    values = _values(found, setting, method, score)
    if not values:
        return ""
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _between(found: list[Run], setting: str, method: str, score: Score) -> str:
    """By how much a method is above `source_only`, over the seeds that both have and images, and what that means."""
    done = {run.method: {} for run in found}
    for run in found:
        if run.setting == setting and measured(run):
            done[run.method][run.seed] = load_file(run.result.with_suffix(".safetensors"))
    ours, theirs = done.get(method, {}), done.get("source_only", {})
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return ""
    actual = ours[seeds[0]]["actual"].numpy()
    truth = Truth(actual != UNKNOWN, actual, np.arange(len(actual)))
    made = [[_decided(side[seed]["decisions"].numpy(), actual) for seed in seeds] for side in (ours, theirs)]
    between = gap(score, truth, *made)
    return f"{signed(between)} {verdict(between)}" if between else ""


def _decided(decisions: np.ndarray, actual: np.ndarray) -> Decided:
    return Decided(decisions == actual, decisions == UNKNOWN)


def _compared(found: list[Run]) -> Iterator[str]:
    """Against doing nothing: a row for each setting and method, with the interval and the word for it."""
    yield "| less source_only | | score | UNK |"
    yield "|---|---|---|---|"
    for setting in dict.fromkeys(run.setting for run in found):
        for method in dict.fromkeys(run.method for run in found if run.method != "source_only"):
            cells = [_between(found, setting, method, score) for score in ("main", "unk")]
            if any(cells):
                yield f"| {setting} | {method} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS), choices=PAIRS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    of_features = parser.add_mutually_exclusive_group()
    of_features.add_argument("--tuned", action="store_true", help="train the encoder, too")
    of_features.add_argument("--weights", default="simclr", choices=("simclr", LITE0), help="whose frozen features")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side, one thread each")
    parser.add_argument("--table", type=Path, help="write the tables to this file, between its marks")
    asked = parser.parse_args()
    wanted = runs(asked.weights, asked.tuned, asked.pairs, asked.methods, asked.settings, asked.seeds)
    for run in wanted:
        prepared(run)
        if run.start == LITE0:
            features(run)
        elif run.start != "random":
            pretrained(run.family, run.seed)
    missing = [run for run in wanted if measured(run) is None]
    print(f"{len(wanted)} runs, {len(missing)} to measure", flush=True)
    with ProcessPoolExecutor(asked.jobs) as workers:
        for future in as_completed([workers.submit(measure, run) for run in missing]):
            run = future.result()
            done = read_json(run.result)
            print(f"{' '.join(map(str, astuple(run)))}  {100 * done['main']:.1f}  {done['seconds']:.0f} s", flush=True)
    now = datetime.datetime.now(datetime.UTC).date()
    head = (
        f"{platform.machine()}, one thread a run, Python {platform.python_version()}, torch {torch.__version__}; "
        f"{now}. H, or accuracy with rejection in cda and pda, in %: mean ± standard deviation of {len(asked.seeds)} "
        "seeds."
    )
    mark = "tuned" if asked.tuned else "frozen" if asked.weights == "simclr" else f"frozen-{asked.weights}"
    show([head, *table(wanted)], asked.table, mark)


if __name__ == "__main__":
    main()
