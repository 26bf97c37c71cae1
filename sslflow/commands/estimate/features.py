"""What the stages cost that judge features: clusters, probes, fine-tuning, the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow import paths
from sslflow.audit import findings as auditing
from sslflow.audit.looks import SMALL
from sslflow.clustering.agreement import agreement
from sslflow.commands.estimate.bench import Bench
from sslflow.commands.estimate.clock import taking
from sslflow.commands.estimate.cost import Cost
from sslflow.commands.estimate.images import FLOAT
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.efficiency import Few
from sslflow.evaluation.finetune import DRAWS, FRACTIONS, finetune
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.evaluation.same_class import find_same
from sslflow.features.extract import extract
from sslflow.features.pixels import pixels
from sslflow.features.store import FeatureStore
from sslflow.networks.starts import BLIND, RANDOM, SCRATCH
from sslflow.pseudolabels.audit import ROUND_ROWS
from sslflow.pseudolabels.findings import AuditClusters
from sslflow.pseudolabels.numbers import grid, tried
from sslflow.reporting import page
from sslflow.reporting.images import atlas
from sslflow.runtime.parts import HELD
from sslflow.settings.params import lookup, schema
from sslflow.settings.sections import IMAGES
from sslflow.stages import finetune as finetuning
from sslflow.stages import probe, pseudolabel
from sslflow.stages import report as reporting
from sslflow.training.method import names

SKIPPED = "score"
"""A stage that loads as little as one that finds nothing to do."""
FITTED = 1000
"""Images on which a probe is fitted for the measurement, at most."""
FEW = 50
"""Of these, those on which a fit takes as long as its iterations."""
TUNED = (4, 24)
"""Steps of the two trials whose difference tells what a step of fine-tuning takes."""
MAPPED = 500
"""Images that are laid out for the measurement, at most."""


def audited(bench: Bench) -> Cost:
    """The features of all images, and comparing them."""
    cost, dataset, count = bench.begun("audit"), bench.images.dataset, bench.images.counts.images
    known = lookup(bench.content, "starts")
    name = next((one for one in lookup(bench.content, "run").get("controls") or () if one in known), "")
    if name:
        bench.extract(cost, "the network", count, name)
    asked = auditing.Audit(**bench.settings({"audit": auditing.Audit})["audit"])
    looked = min(len(dataset), FITTED)
    with taking(bench.device) as taken:
        auditing.audit(
            dataset, lambda rows: pixels(dataset, rows, bench.device), bench.device, replace(asked, most=looked)
        )
    compared = min(count, asked.most)
    cost.spend("comparing images", taken.seconds * compared / max(1, looked))
    cost.ram += max(taken.grown, compared * bench.images.dataset.format.channels * SMALL**2 * FLOAT)
    cost.notes.append("comparing grows with the number of images, from some 20,000 on faster than reckoned")
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


def clusters_audited(bench: Bench, name: str) -> Cost:
    """K-means in other rounds and with other numbers of clusters, and comparing images."""
    cost, sample = bench.begun("audit_clusters"), bench.images
    rows = sample.dataset.pretraining_rows[:FITTED]
    features = _features(bench, name, rows).to(bench.device)
    settings = bench.settings({"audit_clusters": AuditClusters, "pseudolabel": pseudolabel.fit})
    asked, own = AuditClusters(**settings["audit_clusters"]), settings["pseudolabel"]
    classes = sample.counts.classes if sample.counts.labelled else 0
    with taking(bench.device) as taken:
        clustering, metric = pseudolabel.fit(features, 0, classes, **own)
    above = min(sample.counts.pretraining, ROUND_ROWS) / max(1, len(rows))
    cost.spend("K-means", asked.rounds * taken.seconds * max(1.0, above))
    with taking(bench.device) as trying:
        tried(features, grid(len(features), len(clustering.centroids)), 0, metric)
    compared = min(asked.sample, sample.counts.pretraining)
    cost.spend("numbers of clusters", trying.seconds * max(1.0, compared / max(1, len(rows))))
    cost.ram += 4 * sample.counts.images * features.shape[1] * FLOAT + 3 * compared**2 * FLOAT
    return cost


def matched(bench: Bench, name: str) -> Cost:
    """Features of images with captions, and comparing these."""
    counts, known = bench.images.counts, "captions" in bench.images.dataset.beside
    cost = bench.begun("match" if known else SKIPPED)
    if known and name not in ("pixels", BLIND):
        bench.extract(cost, "the network", counts.images, bench.start(name) if name in names() else name)
    if known:
        cost.notes.append("comparing captions is not reckoned with: seconds for some thousands of images")
    return cost


def _features(bench: Bench, name: str, rows: np.ndarray) -> Tensor:
    """Of those rows: of a method as far as it was trained to measure it, or, where it has ended, as it is; or of a
    control."""
    dataset = bench.images.dataset
    if name == "pixels":
        return pixels(dataset, rows, torch.device("cpu"))
    if name in names() and (known := _known(bench, name)) is not None:
        return torch.from_numpy(known[rows])
    own = bench.settings({"extract": extract})["extract"]
    encoder = bench.encoders.get(name) or bench.encoder(bench.start(name) if name in names() else name, dataset)
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
    fit, small, near, dim = _fits(bench, name)
    cost.spend("the linear classifier", fit * counts.train)
    cost.spend("kNN and retrieval", near * counts.train * counts.test)
    few = Few(**bench.settings(probe.schemas(IMAGES))["probe.few"])
    # On few labels a fit takes as long as its iterations, however few images they see.
    fits = (len(few.each) + len(few.shares)) * few.draws
    shares = few.draws * sum(few.shares)
    cost.spend("probes on few labels", fits * small + shares * counts.train * (fit + near * counts.test))
    table = counts.train * dim * FLOAT
    # Features of a method are mapped; those of a control lie in memory.
    cost.ram += 3 * min(table, HELD) + (0 if name in names() else table)
    cost.notes.append("reckoned from a fit on a part of the images, which needs about as many iterations")
    return cost


def _fits(bench: Bench, name: str) -> tuple[float, float, float, int]:
    """Seconds an image to train on of the linear classifier, of a fit on very few, and a pair of kNN and retrieval; the
    width of the features."""
    key = ("fit", name)
    if (*key, "linear") not in bench.rates:
        dataset, settings = bench.images.dataset, bench.settings(probe.schemas(IMAGES))
        parts = []
        for split, most in ((TRAIN, FITTED), (TEST, FITTED // 4)):
            rows = dataset.labelled_rows(split)
            rows = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
            parts += [_features(bench, name, rows).to(bench.device), torch.from_numpy(dataset.labels[rows])]
        x, y, x_test, y_test = parts
        y, classes = y.to(bench.device), len(dataset.classes)
        with taking(bench.device) as fitted:
            fit_linear(x, y, classes, 0, **settings["probe.linear"])
        with taking(bench.device) as small:
            fit_linear(x[:FEW], y[:FEW], classes, 0, **settings["probe.linear"])
        with taking(bench.device) as near:
            knn_predict(x, y, x_test, classes, **settings["probe.knn"])
            find_same(x, y, x_test, y_test.to(bench.device))
        bench.rates[*key, "linear"] = fitted.seconds / len(x)
        bench.rates[*key, "small"] = small.seconds
        bench.rates[*key, "near"] = near.seconds / len(x) / len(x_test)
        bench.rates[*key, "dim"] = x.shape[1]
    linear, small_, near_, dim = (bench.rates[*key, what] for what in ("linear", "small", "near", "dim"))
    return linear, small_, near_, int(dim)


def tuned(bench: Bench, name: str) -> Cost:
    """Fine-tuning on each share of the labels, and a test after each."""
    sample = bench.images
    skipped = not sample.counts.labelled or name == finetuning.SUPERVISED
    cost = bench.begun(SKIPPED if skipped else "finetune")
    if skipped:
        return cost
    settings = bench.settings(finetuning.schemas(IMAGES))["finetune"]
    weights = bench.start(name) if name in names() else RANDOM if name == SCRATCH else name
    step, test, grown = _tuning(bench, weights, settings)
    batch = settings.get("batch_size", 32)
    counts = [
        max(sample.counts.classes, round(one * sample.counts.train)) for one in settings.get("fractions", FRACTIONS)
    ]
    counts += [sample.counts.classes * one for one in settings.get("each", ())] * settings.get("draws", DRAWS)
    for labels in counts:
        steps = max(settings.get("epochs", 10) * max(1, labels // batch), settings.get("min_steps", 200))
        cost.spend("the network's steps", steps * step)
        cost.spend("testing", sample.counts.test * test)
    cost.ram += grown
    return cost


def _tuning(bench: Bench, weights: str, settings: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds of a step and of an image that is tested, and bytes."""
    key, dataset = ("tuning", weights), bench.images.dataset
    if (*key, "step") not in bench.rates:
        own = {**settings, "fractions": (1e-6,), "each": (), "epochs": 1}
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


def reported(bench: Bench) -> Cost:
    """Maps of features, one for each method, and one for adaptation."""
    cost, settings = bench.begun("report"), bench.settings(reporting.schemas())["report"]
    most = settings.get("map_images", schema(page.render)["map_images"].default)
    count = min(most, bench.images.counts.images)
    dim = bench.encoder(bench.start(), bench.images.dataset).dim
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
