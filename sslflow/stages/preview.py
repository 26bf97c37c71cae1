"""preview METHOD: what its encoder will see, as a sheet of views, and how fast augmentation and encoder are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.formats import singular
from sslflow.data.seen import Seen
from sslflow.drawing.contact_sheet import contact_sheet
from sslflow.drawing.stills import drawn
from sslflow.judging.throughput import Rates, measure
from sslflow.networks.saved import ENCODERS, new_encoder
from sslflow.runtime.device import compute
from sslflow.runtime.files import replacing, write_metrics
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import Count, Natural, Over, Positive, Schemas, read
from sslflow.stages.entry import run
from sslflow.training.continued import Continued
from sslflow.training.fit import fit
from sslflow.training.ingredients import example_rows, own_schemas
from sslflow.training.method import find, kind_of
from sslflow.views.images import Views

THUMBNAIL = 72
"""Pixels: smaller images are drawn at the whole multiple that comes closest to it from below."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """The sheet shows `images` images, at least `views` views of each, drawn with `seed`; timing takes `seconds`."""

    images: Count = 12
    views: Count = 8
    seed: Natural = 0
    seconds: Positive = 6.0


def schemas(method: str) -> Schemas:
    """The sections of params.yaml that this stage reads, and what they configure."""
    kind = find(method)
    block = f"methods.{method}"
    return {
        "preview": Look,
        "compute": compute,
        "encoder": ENCODERS[kind_of(kind)],
        block: kind,
        **own_schemas(method),
        f"{block}.start": Continued,
        f"{block}.views": Over("views", kind.Views),
        f"{block}.train": Over("train", fit),
    }


def main(method: str) -> None:
    settings = read(schemas(method))
    device = compute(**settings["compute"])
    dataset = Dataset[Any]()
    rows = example_rows(find(method), dataset)
    look = Look(**settings["preview"])
    views = find(method).Views(dataset.format, **settings[f"methods.{method}.views"]).to(device)

    torch.manual_seed(derive(look.seed, "preview", "views"))
    shown = rows[permutation(len(rows), look.seed, "preview", "images").numpy()[: look.images]]
    made = sheet_of(views, dataset, shown, device, look.views)

    train = settings[f"methods.{method}.train"]
    torch.manual_seed(derive(look.seed, "preview", "encoder"))
    encoder = new_encoder(dataset.format, settings["encoder"]).to(device)
    fields = dataset.read(np.resize(rows, train["batch_size"])).to(device)
    rates = measure(views, encoder, fields, look.seconds, Seen(dataset.format).to(device)(fields).ndim)

    file = paths.views(method)
    with replacing(file) as temporary:
        made.save(temporary, format="PNG")
    write_metrics(paths.metrics("preview", method), rates.metrics())
    print(f"preview {method}  {len(shown)} {dataset.format.unit} and their views in {file}")
    for line in findings(method, rates, train):
        print(f"preview {method}  {line}")


def sheet_of(views: Views, dataset: Dataset, rows: np.ndarray, device: torch.device, count: int) -> Image.Image:
    """A row for each example: as it was prepared, then at least `count` views of it, as pictures."""
    fields = dataset.read(rows).to(device)
    columns = [drawn(dataset, fields)]
    fields = dataset.for_views(views.resizes, device).read(rows).to(device)
    while len(columns) <= count:
        columns += [drawn(dataset, view) for view in views.shown(views(fields))]
    across = torch.stack(columns, dim=1).flatten(0, 1)
    titles = [singular(dataset.format.unit), *(f"view {number}" for number in range(1, len(columns)))]
    scale = max(1, THUMBNAIL // across.shape[-1])
    return contact_sheet(across, columns=len(columns), scale=scale, column_labels=titles)


def findings(method: str, rates: Rates, train: Mapping[str, Any]) -> list[str]:
    """What was measured, and what of `methods.<method>.train` is worth a change, one line each."""
    present = train.get("precision", "fp32"), train.get("memory_format", "channels_last")
    own = rates.of(*present)
    measured = ", ".join(f"{' '.join(choice)} {rates.of(*choice):.0f}" for choice in rates.encoder)
    lines = [f"makes {rates.view_rate:.0f} views/s; encoder, forward and backward, examples/s: {measured}"]
    if not own:
        return [*lines, f"this device can't do {present[0]}: set methods.{method}.train.precision to fp32"]
    if rates.view_rate < own:
        share = own / (own + rates.view_rate)
        lines.append(f"augmentation binds: it takes {100 * share:.0f} % of the time that both take")
    faster = rates.faster(*present)
    if faster:
        lines.append(
            f"suggestion: precision {faster[0]} and memory_format {faster[1]} in methods.{method}.train are "
            f"{rates.of(*faster) / own:.1f} times as fast as the {' '.join(present)} that is set"
        )
    return lines


if __name__ == "__main__":
    run(main, str)
