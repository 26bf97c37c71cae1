"""What the stages for images cost."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow import paths
from sslflow.clustering.agreement import agreement
from sslflow.commands.estimate.bench import Bench
from sslflow.commands.estimate.clock import cores, taking
from sslflow.commands.estimate.cost import Cost
from sslflow.commands.estimate.sample import Sample
from sslflow.commands.estimate.startup import LIGHT
from sslflow.commands.estimate.training import Steps, steps_of, watching
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.finetune import FRACTIONS, finetune
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.features.extract import CALIBRATED, extract
from sslflow.features.store import FeatureStore
from sslflow.ingest.shards import SHARD_BYTES
from sslflow.monitoring.drift import Drift
from sslflow.monitoring.watch import Watch
from sslflow.networks.batch_norm import batch_norms
from sslflow.networks.encoder import Encoder
from sslflow.networks.starts import RANDOM
from sslflow.reporting import page
from sslflow.reporting.images import atlas
from sslflow.settings.params import lookup, schema
from sslflow.stages import finetune as finetuning
from sslflow.stages import pretrain as pretraining
from sslflow.stages import preview, probe, pseudolabel
from sslflow.training.continued import Continued, hold
from sslflow.training.ingredients import build, image_rows, ingredients, of_images
from sslflow.training.method import Method, find, names
from sslflow.training.run import Journal

SKIPPED = "score"
"""A stage that loads as little as one that finds nothing to do."""
FITTED = 1000
"""Images on which a probe is fitted for the measurement, at most."""
FLOAT = 4
"""Bytes."""
TUNED = (4, 24)
"""Steps of the two trials whose difference tells what a step of fine-tuning takes."""
MAPPED = 500
"""Images that are laid out for the measurement, at most."""
MANIFEST = 200
"""Bytes of a row, about."""


def prepared(bench: Bench, sample: Sample) -> Cost:
    """Decoding by several processes, gathered by one."""
    cost, count = bench.begun("prepare"), sample.counts.images
    workers = sample.workers * sample.starting + count * sample.decoding
    gathered = count * sample.main
    at_once = max(gathered, (gathered + workers) / cores(), workers / max(1, sample.workers))
    what = "decoding" if workers / max(1, sample.workers) > gathered else "gathering, by one process,"
    cost.spend("listing", sample.listing)
    cost.spend(what, at_once)
    cost.work = sample.listing + gathered + workers
    channels, side = sample.dataset.format.channels, sample.dataset.format.size
    bench.kept(cost, count * (channels * side**2 + MANIFEST))
    cost.ram += sample.workers * bench.starts[LIGHT].ram + 2 * SHARD_BYTES
    if not sample.whole:
        cost.notes.append(f"reckoned from {len(sample.dataset):,} of about {count:,} images")
    return cost


def pretrain(bench: Bench, name: str) -> Cost:
    """Steps, rows of the curve, and what comes after the last."""
    cost, sample = bench.begun("pretrain"), bench.images
    settings = bench.settings(pretraining.schemas(name))
    kind, block, start = find(name), f"methods.{name}", Continued(**settings["start"])
    dataset, full = sample.dataset, images_of(kind, sample)
    rows, train = image_rows(kind, dataset), settings[f"{block}.train"]
    with taking() as built:
        method = _method(bench, kind, settings, name, rows, full)
    cost.spend("starting", built.seconds)
    if start.given:
        for encoder in method.encoders.values():
            hold(encoder, start.blocks, full)
    views = kind.Views(dataset.format, **settings[f"{block}.views"])
    found = steps_of(method, views, dataset, rows, full, bench.device, start if start.given else None, train)
    journal = Journal(**settings["pretrain"])
    told(cost, found, journal, train)
    memory_format = train.get("memory_format", "channels_last")
    watched = np.resize(rows, min(journal.diagnostics, full))
    watch = Watch(method, views, dataset, watched, bench.device, 0, memory_format)
    look = watching(watch, bench.device).seconds
    if start.given:
        compared = np.resize(rows, min(pretraining.COMPARED, full))
        drift = Drift(method.encoder, dataset, compared, bench.device, memory_format)
        look += watching(lambda: drift(0), bench.device).seconds
    cost.spend("diagnostics", look * rows_of_curve(found.count, journal.log_every))
    if batch_norms(method):
        bench.extract(cost, "calibrating", min(CALIBRATED, full), bench.start)
    bench.encoders[name] = method.encoder
    weights = bytes_of(method)
    bench.kept(cost, weights + sum(bytes_of(encoder) for encoder in method.encoders.values()))
    cost.disk += 3 * weights  # the checkpoint, with AdamW's two moments, while it runs
    return cost


def _method(
    bench: Bench, kind: type[Method], settings: dict[str, Any], name: str, rows: np.ndarray, full: int
) -> Method:
    """The method for as many images as there are, with the ingredients of those at hand."""
    start, dataset = Continued(**settings["start"]), bench.images.dataset
    given = {
        **of_images(dataset, rows, settings["encoder"]),
        "encoder": lambda: bench.encoder(start.weights, dataset),
        "labels": lambda: torch.from_numpy(np.resize(dataset.labels[rows], full)),
        "images": lambda: full,
        "teacher": lambda: bench.encoder(start.teacher, dataset),
    }
    return build(kind, given, settings[f"methods.{name}"])


def images_of(kind: type[Method], sample: Sample) -> int:
    """Images that a method is trained on."""
    return sample.counts.train if "labels" in ingredients(kind) else sample.counts.pretraining


def rows_of_curve(steps: int, every: int) -> int:
    """Looks at the features in a run: before the first step, every so often, after the last."""
    return 1 + steps // every + (steps % every > 0)


def told(cost: Cost, found: Steps, journal: Journal, train: dict[str, Any]) -> None:
    """What the steps take, and how it is known."""
    binds = found.reading > found.seconds
    step = max(found.seconds, found.reading)
    cost.spend("reading from the disk" if binds else "views", found.count * (step if binds else found.views))
    if not binds:
        cost.spend("the network's steps", found.count * max(0.0, step - found.views))
    if found.epoch:
        cost.spend("looking at all images between epochs", found.epochs * found.epoch)
    cost.ram += found.grown
    cost.gpu = found.gpu
    if found.tried < found.batch:
        cost.notes.append(f"reckoned from steps of {found.tried} images, not {found.batch}")
    if train.get("compile"):
        cost.notes.append("compile is not measured: steps are faster than this, and the first takes a minute or two")


def bytes_of(module: torch.nn.Module) -> int:
    """Of its weights and buffers as a file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def extracted(bench: Bench) -> Cost:
    """Features of all images."""
    cost, count = bench.begun("extract"), bench.images.counts.images
    bench.extract(cost, "the network", count, bench.start)
    bench.kept(cost, count * bench.encoder(bench.start, bench.images.dataset).dim * FLOAT)
    return cost


def clustered(bench: Bench, name: str) -> Cost:
    """K-means on features of a method, and how they agree with labels."""
    cost, sample = bench.begun("pseudolabel"), bench.images
    rows = sample.dataset.pretraining_rows[: 4 * FITTED]
    features = _features(bench, name, rows).to(bench.device)
    settings = bench.settings(pseudolabel.schemas(name))["pseudolabel"]
    classes = sample.counts.classes if sample.counts.labelled else 0
    with taking(bench.device) as taken:
        clustering, _ = pseudolabel.fit(features, 0, classes, **settings)
    above = settings.get("minibatch_above", 200_000)
    share = min(sample.counts.pretraining, above) / max(1, len(rows))
    cost.spend("K-means", taken.seconds * max(1.0, share))
    if classes:
        with taking() as agreeing:  # the first time, scikit-learn is loaded, as in a stage
            agreement(np.arange(2 * classes) % classes, np.arange(2 * classes) % len(clustering.centroids))
        bench.rates.setdefault(("agreement",), agreeing.seconds)
        cost.spend("starting", bench.rates["agreement",])
    cost.ram += 3 * sample.counts.pretraining * features.shape[1] * FLOAT
    cost.notes.append("as many iterations as on features of the little that was trained to measure")
    return cost


def _features(bench: Bench, name: str, rows: np.ndarray) -> Tensor:
    """Of those rows: of a method as far as it was trained to measure it, or, where it has ended, as it is; or of a
    control."""
    dataset = bench.images.dataset
    if name == "pixels":
        return probe.pixels(dataset, rows, torch.device("cpu"))
    if name in names() and (known := _known(bench, name)) is not None:
        return torch.from_numpy(known[rows])
    own = bench.settings({"extract": extract})["extract"]
    encoder = bench.encoders.get(name) or bench.encoder(bench.start if name in names() else name, dataset)
    return torch.from_numpy(extract(encoder, dataset, rows, bench.device, **own))


def _known(bench: Bench, name: str) -> np.ndarray | None:
    """Features that are up to date."""
    for seed in lookup(bench.content, "run")["seeds"]:
        run = paths.run_name(name, seed)
        if f"extract@{run}" not in bench.stale and (paths.features(name, seed) / "meta.json").exists():
            return FeatureStore(paths.features(name, seed)).array
    return None


def probed(bench: Bench, name: str) -> Cost:
    """A linear classifier and kNN on features of a method or of a control."""
    counts = bench.images.counts
    cost = bench.begun("probe" if counts.labelled else SKIPPED)
    if not counts.labelled:
        return cost
    if name != "pixels" and name not in names():
        bench.extract(cost, "the network", counts.train + counts.test, name)
    fit, near, dim = _fits(bench, name)
    cost.spend("the linear classifier", fit * counts.train)
    cost.spend("kNN", near * counts.train * counts.test)
    cost.ram += 4 * counts.train * dim * FLOAT
    cost.notes.append("reckoned from a fit on a part of the images, which needs about as many iterations")
    return cost


def _fits(bench: Bench, name: str) -> tuple[float, float, int]:
    """Seconds an image to train on of the linear classifier, and a pair of kNN; the width of the features."""
    key = ("fit", name)
    if (*key, "linear") not in bench.rates:
        dataset, settings = bench.images.dataset, bench.settings(probe.schemas())
        parts = []
        for split, most in ((TRAIN, FITTED), (TEST, FITTED // 4)):
            rows = dataset.labelled_rows(split)
            rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
            parts += [_features(bench, name, rows).to(bench.device), torch.from_numpy(dataset.labels[rows])]
        x, y, x_test, _ = parts
        y, classes = y.to(bench.device), len(dataset.classes)
        with taking(bench.device) as fitted:
            fit_linear(x, y, classes, 0, **settings["probe.linear"])
        with taking(bench.device) as near:
            knn_predict(x, y, x_test, classes, **settings["probe.knn"])
        bench.rates[*key, "linear"] = fitted.seconds / len(x)
        bench.rates[*key, "near"] = near.seconds / len(x) / len(x_test)
        bench.rates[*key, "dim"] = x.shape[1]
    linear, near_, dim = (bench.rates[*key, what] for what in ("linear", "near", "dim"))
    return linear, near_, int(dim)


def tuned(bench: Bench, name: str) -> Cost:
    """Fine-tuning on each share of the labels, and a test after each."""
    sample = bench.images
    skipped = not sample.counts.labelled or name == finetuning.SUPERVISED
    cost = bench.begun(SKIPPED if skipped else "finetune")
    if skipped:
        return cost
    settings = bench.settings(finetuning.schemas())["finetune"]
    weights = bench.start if name in ("", finetuning.SCRATCH) else name
    step, test, grown = _tuning(bench, RANDOM if name == finetuning.SCRATCH else weights, settings)
    batch = settings.get("batch_size", 32)
    for fraction in settings.get("fractions", FRACTIONS):
        labels = max(sample.counts.classes, round(fraction * sample.counts.train))
        steps = max(settings.get("epochs", 10) * max(1, labels // batch), settings.get("min_steps", 200))
        cost.spend("the network's steps", steps * step)
        cost.spend("testing", sample.counts.test * test)
    cost.ram += grown
    return cost


def _tuning(bench: Bench, weights: str, settings: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds of a step and of an image that is tested, and bytes."""
    key, dataset = ("tuning", weights), bench.images.dataset
    if (*key, "step") not in bench.rates:
        own = {**settings, "fractions": (1e-6,), "epochs": 1}
        times, grown = [], 0
        for steps in TUNED:
            with taking(bench.device) as taken:
                list(
                    finetune(
                        lambda: bench.encoder(weights, dataset),
                        dataset,
                        bench.device,
                        0,
                        **{**own, "min_steps": steps},
                    )
                )
            times.append(taken.seconds)
            grown = max(grown, taken.grown)
        step = max(1e-6, (times[1] - times[0]) / (TUNED[1] - TUNED[0]))
        tested = len(dataset.labelled_rows(TEST))
        bench.rates[*key, "step"] = step
        bench.rates[*key, "test"] = max(0.0, times[0] - TUNED[0] * step) / max(1, tested)
        bench.rates[*key, "grown"] = grown
    step, test, memory = (bench.rates[*key, what] for what in ("step", "test", "grown"))
    return step, test, int(memory)


def previewed(bench: Bench, name: str) -> Cost:
    """As long as its settings say, and the sheet."""
    cost = bench.begun("preview")
    look = preview.Look(**bench.settings(preview.schemas(name))["preview"])
    cost.spend("timing, as long as preview.seconds says,", look.seconds)
    return cost


def reported(bench: Bench) -> Cost:
    """Maps of features, one for each method, and one for adaptation."""
    cost, settings = bench.begun("report"), bench.settings({"report": page.render})["report"]
    most = settings.get("map_images", schema(page.render)["map_images"].default)
    count = min(most, bench.images.counts.images)
    dim = bench.encoder(bench.start, bench.images.dataset).dim
    drawn = min(count, MAPPED)
    features = np.random.default_rng(0).normal(size=(drawn, dim)).astype(np.float32)
    with taking() as loaded:
        atlas.embed(features[:5], 0)
    cost.spend("starting", loaded.seconds)
    with taking() as taken:
        atlas.embed(features, 0)
    run = lookup(bench.content, "run")
    maps = len(run["methods"]) + bool(run.get("adapt_methods"))
    cost.spend("maps", taken.seconds * count / drawn * maps)
    return cost


def misgivings(bench: Bench) -> list[str]:
    """What of the images doesn't go together with the settings."""
    sample, side = bench.images, bench.images.dataset.format.size
    found = []
    if sample.counts.pretraining < FEW:
        found.append(
            f"{sample.counts.pretraining} images to pretrain on: too few to learn an encoder from; take weights that "
            "exist (docs/starts.md), or add images"
        )
    if sample.widths and (width := statistics.median(sample.widths)) * ENLARGED <= side:
        found.append(
            f"images are {width:.0f} pixels wide (median) and data.image_size is {side}: enlarging adds no detail and "
            f"costs {(side / width) ** 2:.0f} times the time; set it to about {width:.0f}"
        )
    if bench.start == RANDOM:
        rows = _map_side(bench, side)
        if rows == 1:
            name = bench.settings({"encoder": Encoder})["encoder"].get("name", "resnet18")
            found.append(
                f"encoder {name} brings images of {side} pixels to a map of a single cell: too large a network for so "
                "small images; a smaller encoder.stem_stride or patch_size, or a larger data.image_size, keeps more"
            )
    return found


FEW = 100
"""Images below which pretraining makes no sense."""
ENLARGED = 1.5
"""So many times as large as they are, images are said to be enlarged."""


@torch.no_grad()
def _map_side(bench: Bench, side: int) -> int:
    encoder = bench.encoder(RANDOM, bench.images.dataset).eval()
    try:
        return encoder.map(torch.zeros(1, encoder.channels, side, side)).shape[-1]
    except ValueError:  # a network without a map
        return side
