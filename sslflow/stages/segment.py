"""segment NAME SEED: the classes of pixels learnt on an encoder's maps from shares of the annotated images: that of a
method's run, one with random weights (`random`: frozen, `scratch`: trained along), or with weights that `starts`
names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sslflow import paths
from sslflow.data.annotated import as_png
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.dense.masks.segmentation import FRACTIONS, require_masks, segment
from sslflow.dense.masks.segmenter import save_segmenter
from sslflow.dense.protocols import PROTOCOLS, Protocol
from sslflow.dense.rows import annotated_shares, lacking, tell_left_out
from sslflow.dense.written import confusion, counts_of, write_segmented
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import ENCODERS
from sslflow.networks.starts import RANDOM, SCRATCH
from sslflow.networks.weights import encoder_of
from sslflow.runtime.device import compute
from sslflow.runtime.files import write_metrics
from sslflow.settings.params import read
from sslflow.settings.sections import data_kind
from sslflow.stages.entry import run
from sslflow.training.provenance import how_images_are, made_by

ROWS: Mapping[str, tuple[Protocol, ...]] = {RANDOM: ("linear", "frozen"), SCRATCH: ("tuned",)}
"""The protocols that say something of a control; of all other rows all do."""


def schemas(kind: str) -> Mapping[str, Callable[..., Any]]:
    """The sections of params.yaml that this stage reads, and what they configure."""
    return {"compute": compute, "encoder": ENCODERS[kind], "segment": segment}


def main(method: str, seed: int) -> None:
    settings = read(schemas(data_kind()))
    device = compute(**settings["compute"])
    dataset = Dataset()
    name, folder = paths.run_name(method, seed), paths.segmented(method, seed)
    if reason := lacking(dataset, "mask"):
        print(f"segment {name}  skipped: {reason}")
        write_segmented(folder, [], [], {}, dataset.annotated_rows(TEST, "mask"))
        save_segmenter(None, paths.segmenter(method, seed))
        write_metrics(paths.metrics("segment", name), {})
        return

    truth = require_masks(dataset)
    asked = settings["segment"].get("fractions", FRACTIONS)
    shares = annotated_shares(dataset, "mask", asked)
    tell_left_out(f"segment {name}", asked, shares)
    protocols, largest = ROWS.get(method, PROTOCOLS), max(shares)

    def make_encoder() -> Encoder:
        return encoder_of(method, seed, dataset.format, settings["encoder"])

    metrics: dict[str, float] = {"classes": len(truth.pixel_classes)}
    test = dataset.annotated_rows(TEST, "mask")
    counts: list[dict[str, Any]] = []
    masks: list[dict[str, Any]] = []
    last = None
    began = time.monotonic()
    for found in segment(make_encoder, dataset, device, seed, protocols, method == SCRATCH, **settings["segment"]):
        share = f"{100 * found.fraction:g}pct"
        if found.protocol == protocols[0]:
            metrics |= {f"images_{share}": found.images, f"covered_{share}": len(found.covered)}
            _tell_missing(f"segment {name}  {found.images} images", truth.pixel_classes, found.covered)
        metrics |= {
            f"{found.protocol}_miou_{share}": found.scores.miou,
            f"{found.protocol}_accuracy_{share}": found.scores.accuracy,
            f"{found.protocol}_boundary_{share}": found.scores.boundary_iou,
            f"{found.protocol}_loss_{share}": found.loss,
        }
        counts += counts_of(found.protocol, found.fraction, found.scores, test)
        if found.fraction == largest and found.protocol in ("linear", protocols[-1]):
            masks += [
                {"protocol": found.protocol, "fraction": found.fraction, "row": row, "mask": as_png(mask)}
                for row, mask in sorted(found.masks.items())
            ]
        if found.fraction == largest:
            last = found
        print(
            f"segment {name}  {found.protocol}, {found.images} images ({100 * found.fraction:g} %), {found.steps} "
            f"steps: test mIoU {100 * found.scores.miou:.1f} %",
            flush=True,
        )
    assert last is not None
    last.model.facts = {
        "images": how_images_are(dataset, dataset.format),
        "segmenter": {"protocol": last.protocol, "fraction": last.fraction},
        **made_by(method, seed, settings, dataset, last.images),
    }
    told = confusion(last.protocol, last.fraction, last.scores)
    write_segmented(folder, counts, masks, {"classes": truth.pixel_classes, **told}, test)
    save_segmenter(last.model, paths.segmenter(method, seed))
    write_metrics(paths.metrics("segment", name), {**metrics, "seconds": time.monotonic() - began})


def _tell_missing(what: str, classes: Sequence[str], covered: Sequence[int]) -> None:
    if missing := [name for number, name in enumerate(classes) if number not in covered]:
        print(f"{what}: no pixel is of {', '.join(missing)}, so hardly anything is taken for it")


if __name__ == "__main__":
    run(main, str, int)
