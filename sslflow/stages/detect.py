"""detect NAME SEED: things found by a detector on an encoder's maps, learnt from shares of the annotated images: the
encoder of a method's run, one with random weights (`random`: frozen, `scratch`: trained along), or with weights that
`starts` names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.dense.boxes.detection import FRACTIONS, PROTOCOLS, Detected, detect, require_boxes
from sslflow.dense.boxes.localisation import localise
from sslflow.dense.protocols import Protocol
from sslflow.dense.rows import annotated_shares, lacking, tell_left_out
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import ENCODERS
from sslflow.networks.starts import RANDOM, SCRATCH
from sslflow.networks.weights import encoder_of
from sslflow.runtime.about import about
from sslflow.runtime.device import compute
from sslflow.runtime.files import replacing, write_metrics
from sslflow.settings.params import read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run
from sslflow.training.provenance import how_images_are, made_by

DETECTIONS = pa.schema(
    [
        ("protocol", pa.string()),
        ("fraction", pa.float64()),
        ("row", pa.int64()),
        ("label", pa.int32()),
        ("score", pa.float32()),
        ("left", pa.float32()),
        ("top", pa.float32()),
        ("right", pa.float32()),
        ("bottom", pa.float32()),
    ]
)
"""What was found in the annotated test images, in pixels of the prepared images; `label` is a class's number."""
LOCALISED = pa.schema(
    [
        ("row", pa.int64()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("hit", pa.bool_()),
        ("centre", pa.bool_()),
        ("pixels", pa.bool_()),
        ("covered", pa.float64()),
    ]
)
"""Where, without any label, something stands out in the test images that show something: whether a thing is there, in
the middle, and where the pixels' colours stand out; the share of the image that things cover."""
ROWS: Mapping[str, tuple[Protocol, ...]] = {RANDOM: ("frozen",), SCRATCH: ("tuned",)}
"""The protocols that say something of a control; of all other rows all do."""


def schemas(kind: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "encoder": ENCODERS[kind], "detect": detect}


def main(method: str, seed: int) -> None:
    from sslflow.dense.boxes.detector import save_detector  # of torchvision, which the check of settings doesn't need

    settings = read(schemas(data_kind()))
    device = compute(**settings["compute"])
    dataset = Dataset()
    name, folder = paths.run_name(method, seed), paths.detected(method, seed)
    if reason := lacking(dataset, "boxes"):
        print(f"detect {name}  skipped: {reason}")
        _write(folder / "detections.parquet", [DETECTIONS.empty_table()], dataset.annotated_rows(TEST, "boxes"))
        _write(folder / "localised.parquet", [LOCALISED.empty_table()], dataset.annotated_rows(TEST, "boxes"))
        save_detector(None, paths.detector(method, seed))
        write_metrics(paths.metrics("detect", name), {})
        return

    truth, test = require_boxes(dataset), dataset.annotated_rows(TEST, "boxes")
    asked = settings["detect"].get("fractions", FRACTIONS)
    shares = annotated_shares(dataset, "boxes", asked)
    tell_left_out(f"detect {name}", asked, shares)
    protocols, largest = ROWS.get(method, PROTOCOLS), max(shares)

    def make_encoder() -> Encoder:
        return encoder_of(method, seed, dataset.format, settings["encoder"])

    metrics: dict[str, float] = {"classes": len(truth.thing_classes)}
    tables: list[pa.Table] = []
    last = None
    began = time.monotonic()
    for found in detect(make_encoder, dataset, device, seed, protocols, method == SCRATCH, **settings["detect"]):
        share = f"{100 * found.fraction:g}pct"
        if found.protocol == protocols[0]:
            metrics |= {f"images_{share}": found.images, f"things_{share}": sum(found.things)}
            if missing := [one for one, count in zip(truth.thing_classes, found.things, strict=True) if not count]:
                print(f"detect {name}  {found.images} images: none shows {', '.join(missing)}, so hardly any is found")
        metrics |= {
            f"{found.protocol}_map_{share}": found.mean,
            f"{found.protocol}_map50_{share}": found.at_half,
            f"{found.protocol}_loss_{share}": found.loss,
        }
        tables.append(_table(found, test))
        if found.fraction == largest:
            last = found
        print(
            f"detect {name}  {found.protocol}, {found.images} images ({100 * found.fraction:g} %), "
            f"{sum(found.things)} things, {found.steps} steps: test mAP {100 * found.mean:.1f} %, "
            f"mAP50 {100 * found.at_half:.1f} %",
            flush=True,
        )
    assert last is not None
    last.detector.facts = {
        "images": how_images_are(dataset, dataset.format),
        "detector": {"protocol": last.protocol, "fraction": last.fraction},
        **made_by(method, seed, settings, dataset, last.images),
    }
    _write(folder / "detections.parquet", tables, test)
    if method != SCRATCH:
        metrics |= _localised(make_encoder(), dataset, device, folder / "localised.parquet")
        print(
            f"detect {name}  without labels: something is where its maps stand out in {100 * metrics['pointing']:.1f} %"
        )
    save_detector(last.detector, paths.detector(method, seed))
    write_metrics(paths.metrics("detect", name), {**metrics, "seconds": time.monotonic() - began})


def _localised(encoder: Encoder, dataset: Dataset, device: torch.device, file: Path) -> dict[str, float]:
    """Where the encoder's maps stand out, written to the file, and how often something is there."""
    found = localise(encoder, dataset, device)
    x, y = found.points.T
    columns = (found.rows, x, y, found.hit, found.centre, found.pixels, found.covered)
    _write(file, [pa.table(dict(zip(LOCALISED.names, columns, strict=True))).cast(LOCALISED)], found.rows)
    return {
        "pointing": float(found.hit.mean()),
        "pointing_centre": float(found.centre.mean()),
        "pointing_pixels": float(found.pixels.mean()),
        "pointing_chance": float(found.covered.mean()),
    }


def _table(found: Detected, rows: np.ndarray) -> pa.Table:
    seen = found.found
    left, top, right, bottom = seen.boxes.T
    columns = (rows[seen.image], seen.label, seen.score, left, top, right, bottom)
    same = [np.full(len(seen.label), value) for value in (found.protocol, found.fraction)]
    return pa.table(dict(zip(DETECTIONS.names, [*same, *columns], strict=True))).cast(DETECTIONS)


def _write(file: Path, tables: list[pa.Table], rows: np.ndarray) -> None:
    with replacing(file) as temporary:
        pq.write_table(pa.concat_tables(tables).replace_schema_metadata(about(rows)), temporary)


if __name__ == "__main__":
    run(main, str, int)
