"""segment_volumes NAME SEED: the classes of voxels learnt on an encoder's maps from shares of the labelled blocks: that
of a method's run, or one with random weights (`random`: frozen, `scratch`: trained along)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sslflow import paths
from sslflow.data.annotated import as_png
from sslflow.data.dataset import Dataset
from sslflow.data.formats import VolumeFormat
from sslflow.data.splits import TEST
from sslflow.dense.protocols import PROTOCOLS, Protocol
from sslflow.dense.rows import annotated_shares, lacking, tell_left_out
from sslflow.dense.volumes.segmentation import FRACTIONS, require_tissues, segment_volumes
from sslflow.dense.written import confusion, counts_of, write_segmented
from sslflow.networks.saved import ENCODERS
from sslflow.networks.starts import RANDOM, SCRATCH
from sslflow.networks.volumes import VolumeEncoder
from sslflow.networks.weights import encoder_of
from sslflow.runtime.device import compute
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run

ROWS: Mapping[str, tuple[Protocol, ...]] = {RANDOM: ("linear", "frozen"), SCRATCH: ("tuned",)}
"""The protocols that say something of a control; of all other rows all do."""


def schemas(kind: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "encoder": ENCODERS[kind], "segment_volumes": segment_volumes}


def main(method: str, seed: int) -> None:
    settings = read(schemas(data_kind()))
    device = compute(**settings["compute"])
    dataset = Dataset[Any]()
    name, folder = paths.run_name(method, seed), paths.segmented_volumes(method, seed)
    test = dataset.annotated_rows(TEST, "mask")
    images = dataset.format.kind != VolumeFormat.kind
    if images or lacking(dataset, "mask"):
        what = f"data.kind is {dataset.format.kind}" if images else "no label volumes to train on and to test on"
        print(f"segment_volumes {name}  skipped: {what}")
        write_segmented(folder, [], [], {}, test)
        write_metrics(paths.metrics("segment_volumes", name), {})
        return

    truth = require_tissues(dataset)
    asked = settings["segment_volumes"].get("fractions", FRACTIONS)
    shares = annotated_shares(dataset, "mask", asked)
    tell_left_out(f"segment_volumes {name}", asked, shares)
    protocols, largest = ROWS.get(method, PROTOCOLS), max(shares)

    def make_encoder() -> VolumeEncoder:
        return encoder_of(method, seed, dataset.format, settings["encoder"])

    metrics: dict[str, float] = {"classes": len(truth.pixel_classes)}
    counts: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    told: dict[str, Any] = {}
    began = time.monotonic()
    for found in segment_volumes(
        make_encoder, dataset, device, seed, protocols, method == SCRATCH, **settings["segment_volumes"]
    ):
        share, way = f"{100 * found.fraction:g}pct", (found.protocol, found.fraction)
        metrics |= {
            f"blocks_{share}": found.images,
            f"covered_{share}": len(found.covered),
            f"{found.protocol}_miou_{share}": found.scores.miou,
            f"{found.protocol}_dice_{share}": found.scores.dice,
            f"{found.protocol}_accuracy_{share}": found.scores.accuracy,
            f"{found.protocol}_loss_{share}": found.loss,
        }
        counts += counts_of(*way, found.scores, test)
        if found.fraction == largest:
            told = {"classes": truth.pixel_classes, **confusion(*way, found.scores)}
        if found.fraction == largest and found.protocol == protocols[-1]:
            masks += [
                {
                    "protocol": found.protocol,
                    "fraction": found.fraction,
                    "row": row,
                    "mask": as_png(mask.reshape(len(mask), -1)),
                }
                for row, mask in sorted(found.masks.items())
            ]
        print(
            f"segment_volumes {name}  {found.protocol}, {found.images} blocks ({100 * found.fraction:g} %), "
            f"{found.steps} steps: test mIoU {100 * found.scores.miou:.1f} %, Dice {100 * found.scores.dice:.1f} %",
            flush=True,
        )
    write_segmented(folder, counts, masks, told, test)
    write_metrics(paths.metrics("segment_volumes", name), {**metrics, "seconds": time.monotonic() - began})


if __name__ == "__main__":
    run(main, str, int)
