"""What preparing two domains and adapting from one to the other costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sslflow import paths
from sslflow.adaptation import method as adapter
from sslflow.adaptation.auxiliary import Companion
from sslflow.adaptation.inputs import Domain, Residual, image_inputs, of_features, standardised
from sslflow.adaptation.loop import adapt, judge
from sslflow.adaptation.task import Task, open_task
from sslflow.adaptation.unknown_groups import unknown_groups
from sslflow.commands.estimate.bench import SECONDS, Bench
from sslflow.commands.estimate.clock import taking
from sslflow.commands.estimate.cost import Cost
from sslflow.commands.estimate.images import FLOAT, prepared
from sslflow.commands.estimate.sample import Sample, of_prepared, sampled
from sslflow.features.extract import extract
from sslflow.ingest.domains import FACTS, default_split, prepare_domains
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder
from sslflow.runtime.files import write_json
from sslflow.settings.params import lookup
from sslflow.settings.sections import IMAGES
from sslflow.stages import adapt as adapting
from sslflow.training import method
from sslflow.training.ingredients import build

SEEN = 500
"""Images of each domain whose features stand for all, at most."""
PASSES = 3
"""How often an adapter that trains the encoder goes through all images: before it begins, and at its end."""


@dataclass(frozen=True)
class Pair:
    """Two prepared domains, or a part of each."""

    folder: Path
    source: Sample
    target: Sample

    def sizes(self, task: Task) -> tuple[int, int]:
        """Images of a task, not of the samples alone."""
        found = ((self.source, task.source_rows), (self.target, task.target_rows))
        source, target = (round(len(rows) * one.counts.images / len(one.dataset)) for one, rows in found)
        return source, target


def pair(bench: Bench, name: str) -> Pair:
    """The domains of that name, measured once."""
    if name not in bench.pairs:
        if f"domains@{name}" not in bench.stale:
            folder = paths.domains(name)
            bench.pairs[name] = Pair(folder, of_prepared(folder / "source"), of_prepared(folder / "target"))
        else:
            bench.pairs[name] = _sampled(bench, name)
    return bench.pairs[name]


def _sampled(bench: Bench, name: str) -> Pair:
    settings = dict(bench.settings({f"domains.{name}": prepare_domains})[f"domains.{name}"])
    folder = bench.folder / "domains" / name
    kinds = {domain: settings.pop(domain) for domain in ("source", "target")}
    places = {domain: settings.pop(f"{domain}_path", f"data/raw/{domain}") for domain in ("source", "target")}
    parts = {}
    kept: tuple[tuple[Literal["source", "target"], str], ...] = (("source", "drop"), ("target", "keep"))
    for domain, duplicates in kept:
        own = {"source": kinds[domain], "path": places[domain], "test_fraction": 0.0, "duplicates": duplicates}
        parts[domain] = sampled(folder / domain, {**settings, **own}, bench.tell, domain)
    split = default_split(kinds["source"], kinds["target"], settings.get("label", "category"))
    write_json(folder / FACTS, {**kinds, "split": split.as_posix() if split else ""})
    return Pair(folder, parts["source"], parts["target"])


def prepared_pair(bench: Bench, name: str) -> Cost:
    """Both domains, one after the other."""
    found = pair(bench, name)
    costs = [prepared(bench, one) for one in (found.source, found.target)]
    cost = bench.begun("domains")
    for one in costs:
        for what, seconds in one.parts.items():
            if what != "starting":
                cost.spend(what, seconds)
        cost.work, cost.disk, cost.ram = cost.work + one.work, cost.disk + one.disk, max(cost.ram, one.ram)
    cost.notes = list(dict.fromkeys(note for one in costs for note in one.notes))
    return cost


def adapted(bench: Bench, name: str) -> Cost:
    """An adapter for each setting from each start."""
    companion = lookup(bench.content, "adapt").get("companion", adapting.Plan.companion)
    settings = bench.settings(adapting.schemas(name, companion, IMAGES))
    plan, cost = adapting.Plan(**settings["adapt"]), bench.begun("adapt")
    found = pair(bench, plan.domains)
    for setting in plan.settings:
        task = open_task(found.folder, setting, Path(plan.split) if plan.split else None)
        sizes = found.sizes(task)
        for _ in plan.starts:
            (_frozen if plan.frozen else _trained)(bench, cost, name, task, sizes, plan, settings)
    return cost


def _encoder(bench: Bench, task: Task, plan: adapting.Plan) -> Encoder:
    if plan.weights and plan.weights not in lookup(bench.content, "starts"):
        return load_encoder(Path(plan.weights))
    return bench.encoder(plan.weights or bench.start(plan.start), task.target)


def _frozen(
    bench: Bench,
    cost: Cost,
    name: str,
    task: Task,
    sizes: tuple[int, int],
    plan: adapting.Plan,
    settings: Mapping[str, Any],
) -> None:
    """On features, which are made once."""
    encoder, own = _encoder(bench, task, plan), settings["extract"]
    parts = ((task.source, task.source_rows, sizes[0]), (task.target, task.target_rows, sizes[1]))
    some = [torch.from_numpy(extract(encoder, images, _some(rows), bench.device, **own)) for images, rows, _ in parts]
    source, target = standardised(*(_like(one, size) for one, size in zip(some, sizes, strict=True)))
    bench.extract(cost, "features", sum(sizes), bench.start(plan.start), task.source)
    body = Residual(encoder.dim)
    labels = torch.from_numpy(np.resize(task.source_labels.numpy(), sizes[0]))
    _loop(bench, cost, name, (of_features(source.to(bench.device)), of_features(target.to(bench.device))), body,
          encoder.dim, labels, task, settings, None)  # fmt: skip
    cost.ram += 4 * sum(sizes) * encoder.dim * FLOAT


def _some(rows: np.ndarray) -> np.ndarray:
    return rows[np.linspace(0, len(rows) - 1, min(SEEN, len(rows))).astype(int)]


def _like(features: torch.Tensor, count: int) -> torch.Tensor:
    """So many features, around those at hand."""
    numbers = torch.from_numpy(np.resize(np.arange(len(features)), count))
    return features[numbers] + 0.1 * features.std() * torch.randn(count, features.shape[1])


def _trained(
    bench: Bench,
    cost: Cost,
    name: str,
    task: Task,
    sizes: tuple[int, int],
    plan: adapting.Plan,
    settings: Mapping[str, Any],
) -> None:
    """On images, with the encoder."""
    encoder = _encoder(bench, task, plan)
    source, target, body = image_inputs(encoder, task, bench.device, settings=settings["adapt.views"])
    beside = None
    if plan.companion_weight:
        kind, block = method.find(plan.companion), f"methods.{plan.companion}"
        views = kind.Views(task.target.format, **settings[f"{block}.views"])
        given = {"encoder": lambda: encoder, "images": lambda: source.size + target.size}
        beside = Companion(build(kind, given, settings[block]), views, plan.companion_weight)
    bench.extract(cost, "features", PASSES * sum(sizes), bench.start(plan.start), task.source)
    _loop(bench, cost, name, (source, target), body, encoder.dim, task.source_labels, task, settings, beside)


def _loop(
    bench: Bench,
    cost: Cost,
    name: str,
    domains: tuple[Domain, Domain],
    body: torch.nn.Module,
    dim: int,
    labels: torch.Tensor,
    task: Task,
    settings: Mapping[str, Any],
    beside: Companion | None,
) -> None:
    source, target = domains
    model = adapter.find(name)(body, dim, len(task.classes), target.size, **settings[f"adapt_methods.{name}"])
    loop = adapt(model, source, labels, target, bench.device, 0, beside, None, **settings["adapt.train"])
    with taking(bench.device) as first:
        steps = next(loop).steps
    left, spent, count = SECONDS, 0.0, 0
    while left > 0 and count < steps - 1:
        with taking(bench.device) as taken:
            for _ in range(min(10, steps - 1 - count)):
                next(loop)
                count += 1
        left, spent = left - taken.seconds, spent + taken.seconds
    cost.ram += first.grown
    step = spent / max(1, count)
    cost.spend("the adapter's steps", first.seconds + steps * step)
    with taking(bench.device) as judged:
        found, features = judge(model, target)
        unknown_groups(found, features, 0)
    cost.spend("groups of unknown images", judged.seconds)
