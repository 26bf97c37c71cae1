"""probe NAME SEED: how well frozen features tell the classes apart; NAME is a method, the control `random` or
`pixels` (`words`, `voxels`), or weights that `starts` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST, TRAIN
from sslflow.evaluation.efficiency import Few, Fit, draws_of, write_few
from sslflow.evaluation.knn import knn_predict
from sslflow.evaluation.linear import fit_linear
from sslflow.evaluation.same_class import find_same
from sslflow.features.extract import NotFinite, extract, extract_together
from sslflow.features.pixels import PIXELS
from sslflow.features.raw import raw, raw_name
from sslflow.features.store import FeatureStore
from sslflow.networks.saved import ENCODERS, new_encoder
from sslflow.networks.starts import RANDOM, RAW
from sslflow.networks.weights import started
from sslflow.runtime.device import compute
from sslflow.runtime.distributed import all_reduce_sum, gather_uneven, own_part, process_group, rank, world_size
from sslflow.runtime.files import sha256, write_csv, write_metrics
from sslflow.runtime.parts import held, taken
from sslflow.runtime.rng import derive
from sslflow.settings.params import Count, Positive, read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run

COLUMNS = ("row", "actual", "predicted", "neighbours")
"""Of the table of predictions: by the linear classifier, and by the nearest neighbours. What each test image finds as a
query follows, in columns named as the metrics."""


@dataclass(frozen=True, kw_only=True)
class Knn:
    """The k-nearest-neighbours vote: `k` neighbours, weights exp(cosine / `temperature`)."""

    k: Count = 20
    temperature: Positive = 0.1


def schemas(kind: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {
        "compute": compute,
        "encoder": ENCODERS[kind],
        "extract": extract,
        "probe": probe,
        "probe.knn": Knn,
        "probe.linear": fit_linear,
        "probe.few": Few,
    }


def probe() -> None:
    """The section `probe` has no settings of its own."""


def main(name: str, seed: int) -> None:
    settings = read(schemas(data_kind()))
    device = compute(**settings["compute"])
    with process_group(device):
        _probe(name, seed, settings, device)


def _probe(name: str, seed: int, settings: dict[str, dict[str, Any]], device: torch.device) -> None:
    dataset = Dataset[Any]()
    title = paths.run_name(name, seed)
    if not dataset.labelled and rank():
        return
    if not dataset.labelled:
        print(f"probe {title}  skipped: the {dataset.format.unit} have no labels to train a probe on and to test it on")
        write_csv(paths.predictions(name, seed), COLUMNS, ())
        write_few(paths.few(name, seed), np.zeros(0, np.int64), np.zeros(0, np.int64), {})
        write_metrics(paths.metrics("probe", title), {})
        return

    read_features = _features(name, seed, dataset, device, settings)

    def features(rows: np.ndarray) -> Tensor:
        return held(_finite(read_features(rows), rows, dataset), device)

    train, test = (dataset.labelled_rows(split) for split in (TRAIN, TEST))
    x_train, y_train = features(train), torch.from_numpy(dataset.labels[train]).to(device)
    classes = len(dataset.classes)
    fitted = fit_linear(x_train, y_train, classes, derive(seed, "probe"), together=True, **settings["probe.linear"])
    if not fitted.converged and not rank():
        print(f"probe {title}  the linear classifier did not converge: raise probe.linear.iterations")

    # The test images are looked at here and nowhere above.
    x_test, y_test = features(test), torch.from_numpy(dataset.labels[test]).to(device)
    predicted = fitted.predict(x_test)
    # Each process asks for a part of the test images.
    own = own_part(len(test))
    neighbours = gather_uneven(knn_predict(x_train, y_train, x_test[own], classes, **settings["probe.knn"]))
    same = find_same(x_train, y_train, x_test[own], y_test[own])
    retrieved = {"map": same.average_precision, **{f"recall{depth}": hits for depth, hits in same.recall.items()}}
    retrieved = {key: gather_uneven(torch.from_numpy(hits).to(device)).cpu().numpy() for key, hits in retrieved.items()}
    few: dict[Fit, np.ndarray] = {}
    fits = draws_of(dataset, Few(**settings["probe.few"]))
    for number, (way, labels, draw, chosen) in enumerate(fits):
        told = torch.zeros(2, len(test), dtype=torch.int64, device=device)
        if number % world_size() == rank():
            at = torch.from_numpy(np.searchsorted(train, chosen))
            x_few, y_few = held(x_train[at.to(x_train.device)], device), taken(y_train, at, device)
            small = fit_linear(x_few, y_few, classes, derive(seed, "few", draw), **settings["probe.linear"])
            voted = knn_predict(x_few, y_few, x_test, classes, **settings["probe.knn"])
            told = torch.stack([small.predict(x_test), voted])
        few["linear", way, labels, draw], few["knn", way, labels, draw] = told.cpu().numpy()
    # What one process has answered is 0 in all others.
    for key, told in few.items():
        few[key] = all_reduce_sum(torch.from_numpy(told).to(device)).cpu().numpy()
    if rank():
        return
    metrics = {
        "linear": _accuracy(predicted, y_test),
        "knn": _accuracy(neighbours, y_test),
        **{metric: float(each.mean()) for metric, each in retrieved.items()},
        "linear_train": _accuracy(fitted.predict(x_train), y_train),
        "linear_validation": fitted.validation_accuracy,
        "regularisation": fitted.regularisation,
        "converged": int(fitted.converged),
        "dim": x_train.shape[1],
        "train_images": len(train),
        "test_images": len(test),
    }
    if name == "pixels" and dataset.format.size > PIXELS:
        metrics["side"] = PIXELS
    names = [dataset.classes[number] for number in range(classes)]
    answers = ([names[number] for number in told.tolist()] for told in (y_test, predicted, neighbours))
    queries = ([f"{value:.6g}" for value in each] for each in retrieved.values())
    table = zip(test.tolist(), *answers, *queries, strict=True)
    write_csv(paths.predictions(name, seed), (*COLUMNS, *retrieved), table)
    write_few(paths.few(name, seed), test, dataset.labels[test], few)
    write_metrics(paths.metrics("probe", title), metrics)
    reached = f"linear {100 * metrics['linear']:.1f} %, kNN {100 * metrics['knn']:.1f} %"
    print(f"probe {title}  {reached} on {len(test)} {dataset.format.unit}")


def _features(
    name: str, seed: int, dataset: Dataset[Any], device: torch.device, settings: dict[str, dict[str, Any]]
) -> Callable[[np.ndarray], Tensor]:
    """Rows to features `(rows, dim)`, on the device or on the CPU: of a method's frozen encoder, or of a control."""
    if name in RAW:
        if name != raw_name(dataset):
            raise ValueError(
                f"run.controls: {name} are no features of {dataset.format.unit}; name {raw_name(dataset)} instead"
            )
        return lambda rows: raw(dataset, rows, device)
    if name == RANDOM or paths.start(name).exists():
        # Random ones are those that every method of this seed starts from.
        torch.manual_seed(derive(seed, "init"))
        encoder = new_encoder(dataset.format, settings["encoder"]) if name == RANDOM else started(name, dataset.format)

        def extracted(rows: np.ndarray) -> Tensor:
            parts = extract_together(encoder, dataset, rows, device, **settings["extract"])
            return torch.from_numpy(np.concatenate(list(parts)))

        return extracted
    store = FeatureStore(paths.features(name, seed))
    file = paths.encoder(name, seed)

    def read_features(rows: np.ndarray) -> Tensor:
        if sha256(file) != store.encoder_sha256:
            raise ValueError(f"{file} is not the encoder that {paths.features(name, seed)} came from; run `dvc repro`")
        return store.part(rows)

    return read_features


def _finite(features: Tensor, rows: np.ndarray, dataset: Dataset) -> Tensor:
    """The features of these rows. Raises `NotFinite` where some are NaN or infinite, which no probe can use."""
    wrong = rows[(~torch.cat([part.isfinite().all(dim=1) for part in features.split(4096)])).cpu().numpy()]
    if len(wrong):
        raise NotFinite(
            f"the features of {len(wrong):,} of {len(rows):,} {dataset.format.unit} are NaN or infinite, the first "
            f"of them those of {dataset.column('path', wrong[:1])[0]}; extract.precision: fp32, or other weights, may "
            "know them"
        )
    return features


def _accuracy(predicted: Tensor, actual: Tensor) -> float:
    return float((predicted == actual).float().mean())


if __name__ == "__main__":
    run(main, str, int)
