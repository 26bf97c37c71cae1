"""depth NAME SEED: how far away things are, learnt on an encoder's maps from shares of the depth maps: that of a
method's run, one with random weights (`random`: frozen, `scratch`: trained along), or with weights that `starts` names;
`mean`: the mean of the maps, whatever the image."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.depth import FIELD
from sslflow.data.splits import TEST
from sslflow.dense.depth.estimation import FRACTIONS, PROTOCOLS, Estimated, estimate_depth, mean_maps
from sslflow.dense.depth.estimator import DepthEstimator, save_estimator
from sslflow.dense.depth.scores import ERRORS
from sslflow.dense.protocols import Protocol
from sslflow.dense.rows import FEWEST, annotated_shares, lacking, tell_left_out
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import ENCODERS
from sslflow.networks.starts import MEAN, RANDOM, SCRATCH
from sslflow.networks.weights import encoder_of
from sslflow.runtime.about import about
from sslflow.runtime.device import compute
from sslflow.runtime.files import replacing, write_metrics
from sslflow.settings.params import read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run
from sslflow.training.provenance import how_images_are, made_by

STEP = 0.001
"""Metres from one value of a predicted map to the next, as it is kept."""
WAY = [("protocol", pa.string()), ("fraction", pa.float64()), ("row", pa.int64())]
TABLES = {
    "errors": pa.schema([*WAY, *((name, pa.float64()) for name in ERRORS)]),
    "maps": pa.schema([*WAY, ("map", pa.binary())]),
}
"""The errors of each test image; and what was predicted for some of them, PNG files of 16 bits in steps of `STEP`."""
ROWS: Mapping[str, tuple[Protocol, ...]] = {RANDOM: ("frozen",), SCRATCH: ("tuned",)}
"""The protocols that say something of a control; of all other rows all do."""


def schemas(kind: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "encoder": ENCODERS[kind], "depth": estimate_depth}


def main(method: str, seed: int) -> None:
    settings = read(schemas(data_kind()))
    device = compute(**settings["compute"])
    dataset, name = Dataset(), paths.run_name(method, seed)
    test = dataset.annotated_rows(TEST, FIELD)
    if reason := lacking(dataset, FIELD) or _too_few(dataset):
        print(f"depth {name}  skipped: {reason}")
        _write(method, seed, {"errors": [], "maps": []}, test)
        save_estimator(None, paths.estimator(method, seed))
        write_metrics(paths.metrics("depth", name), {})
        return
    asked = settings["depth"].get("fractions", FRACTIONS)
    tell_left_out(f"depth {name}", asked, shares := annotated_shares(dataset, FIELD, asked))
    tables: dict[str, list[dict[str, Any]]] = {"errors": [], "maps": []}
    metrics: dict[str, float] = {}
    began = time.monotonic()

    def make_encoder() -> Encoder:
        return encoder_of(method, seed, dataset.format, settings["encoder"])

    protocols = ROWS.get(method, PROTOCOLS)
    every = (
        mean_maps(dataset, seed, asked)
        if method == MEAN
        else estimate_depth(make_encoder, dataset, device, seed, protocols, method == SCRATCH, **settings["depth"])
    )
    last: DepthEstimator | None = None
    for found in every:
        metrics |= _metrics(found)
        way = {"protocol": found.protocol, "fraction": found.fraction}
        for row, own in zip(test.tolist(), found.errors.tolist(), strict=True):
            tables["errors"].append({**way, "row": row, **dict(zip(ERRORS, own, strict=True))})
        if found.fraction == max(shares) and (last := found.model):
            last.facts = {
                "images": how_images_are(dataset, dataset.format),
                "estimator": {"protocol": found.protocol, "fraction": found.fraction},
                **made_by(method, seed, settings, dataset, found.images),
            }
        if found.fraction == max(shares):
            tables["maps"] += [{**way, "row": row, "map": _png(one)} for row, one in sorted(found.maps.items())]
        print(
            f"depth {name}  {found.protocol}, {found.images} images ({100 * found.fraction:g} %), {found.steps} steps: "
            f"test error {100 * found.errors[:, 0].mean():.1f} % of the depth",
            flush=True,
        )
    _write(method, seed, tables, test)
    save_estimator(last, paths.estimator(method, seed))
    write_metrics(paths.metrics("depth", name), {**metrics, "seconds": time.monotonic() - began})


def _too_few(dataset: Dataset) -> str:
    count = len(dataset.annotated_rows("train", FIELD))
    return f"{FEWEST} images with depth to train on are needed, and there is one" if count < FEWEST else ""


def _metrics(found: Estimated) -> dict[str, float]:
    """Means over the test images: `frozen_abs_rel_10pct`, `frozen_rmse_10pct` and so on."""
    means = dict(zip(ERRORS, found.errors.mean(axis=0).tolist(), strict=True))
    named: dict[str, float] = {
        "abs_rel": means["abs_rel"],
        "rmse": means["squared"] ** 0.5,
        "within": means["within"],
        "silog": means["log_variance"] ** 0.5,
        "loss": found.loss,
    }
    share = f"{100 * found.fraction:g}pct"
    return {f"images_{share}": found.images, **{f"{found.protocol}_{key}_{share}": one for key, one in named.items()}}


def _png(metres: np.ndarray) -> bytes:
    content = io.BytesIO()
    steps = np.clip(np.round(metres / STEP), 1, 2**16 - 1).astype(np.uint16)
    Image.fromarray(steps).save(content, "PNG")
    return content.getvalue()


def _write(method: str, seed: int, tables: Mapping[str, list[dict[str, Any]]], test: np.ndarray) -> None:
    for name, rows in tables.items():
        schema = TABLES[name].with_metadata(about(test))
        with replacing(paths.depths(method, seed) / f"{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)


if __name__ == "__main__":
    run(main, str, int)
