"""Whether several processes end where one does: `python -m benchmarks.processes --table docs/devices.md`.

Each method trains by the real loop for some steps, on tiny data and with a tiny encoder, by 1, 2 and 4 processes (gloo,
CPU) at the same batch over all processes: from the same weights, with the same views of the same examples, which is
what processes don't share otherwise (each draws its own). Then the losses of all steps, and the weights at the end,
must be those of one process but for rounding. That grows from step to step, so the arithmetic is float64's, that of
losses too, which otherwise ask for float32: a fault of the exchange would stay, rounding goes away.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from benchmarks.tables import show
from sslflow.data.fields import Fields
from sslflow.runtime.distributed import gather, own_part, rank, world_size
from sslflow.training.fit import fit
from sslflow.views.images import Views
from tests.cases import METHODS, make

CPU = torch.device("cpu")
BATCH, EPOCHS, LR = 16, 3, 0.02
WORLDS = (1, 2, 4)
CLOSE = 1e-5
"""Of the way that the weights went, and of the loss: what counts as rounding after all steps."""
OWN = ("clips correspondence", "images deepcluster", "clips ambient_sound")
"""The views of the first name other examples of a process's own part: the pairs are others. The others cluster in
float32: tests/clustering/test_kmeans.py compares two processes with one."""
NAMES = [name for name in METHODS if name not in OWN]
USUAL = [
    *(f"images {name}" for name in ("simclr", "moco_v2", "byol", "dino", "swav", "mae")),
    *("text masked_lm", "volumes simclr_3d", "clips alignment"),
]
"""One or more of each family."""


NARROWED = Tensor.float


def _widest(self: Tensor, *_: Any, **__: Any) -> Tensor:
    """What `Tensor.float` is in a step: float64 stays."""
    return self if self.dtype == torch.float64 else NARROWED(self)


class OfTheWholeBatch(Views):
    """Views of the examples of all processes, drawn by the number of the step, of which each process keeps its own."""

    def __init__(self, views: Views) -> None:
        nn.Module.__init__(self)
        self.views, self.steps = views, 0

    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        # Gloo doesn't exchange numbers of every type; float64 holds all that are read.
        whole = Fields(**{name: gather(fields[name].double()).to(fields[name].dtype) for name in fields})
        torch.manual_seed(self.steps)
        self.steps += 1
        Tensor.float = NARROWED
        made = self.views(whole)
        Tensor.float = _widest
        own = own_part(len(whole))
        return tuple(view[own].double() if view.is_floating_point() else view[own] for view in made)


def trained(name: str) -> dict[str, Any]:
    """Losses of all steps, and the weights before and after."""
    Tensor.float = NARROWED
    case = make(name)
    case.method.double()
    before = weights(case.method)
    rows = case.data.pretraining_rows[: 2 * BATCH]
    views: Any = OfTheWholeBatch(case.views)
    steps = fit(
        case.method, views, case.data, CPU, 0, rows=rows,
        epochs=EPOCHS, batch_size=BATCH, optimizer="sgd", lr=LR, memory_format="contiguous",
    )  # fmt: skip
    losses = [gather(step.losses["loss"].detach().double()[None]).mean() for step in steps]
    return {"losses": torch.stack(losses), "before": before, "after": weights(case.method)}


def weights(method: nn.Module) -> Tensor:
    """All trained numbers in a row."""
    return torch.cat([p.detach().flatten().clone() for p in method.parameters() if p.requires_grad])


def process(number: int, world: int, folder: str, names: list[str]) -> None:
    """One of `world` processes; the first writes what it found."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{world}", rank=number, world_size=world)
    assert world_size() == world
    found = {name: trained(name) for name in names}
    if not rank():
        torch.save(found, Path(folder) / f"{world}.pt")
    dist.destroy_process_group()


def compared(names: list[str]) -> list[tuple[str, list[float], list[float], float]]:
    """Of each method the difference of losses and of weights for 2 and 4 processes, and how far the loss moved."""
    with tempfile.TemporaryDirectory() as folder:
        for world in WORLDS:
            spawn(process, args=(world, folder, names), nprocs=world)
        results = [torch.load(Path(folder) / f"{world}.pt", weights_only=True) for world in WORLDS]
    lines = []
    for name in names:
        one, *several = (found[name] for found in results)
        way = (one["after"] - one["before"]).norm()
        losses = [float(((other["losses"] - one["losses"]).abs() / one["losses"].abs()).max()) for other in several]
        ends = [float((other["after"] - one["after"]).norm() / way) for other in several]
        lines.append((name, losses, ends, float(way / one["before"].norm())))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, help="a guide with the marks of `processes`")
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=USUAL)
    asked = parser.parse_args()
    lines = compared(asked.methods)
    today, steps = datetime.date.today(), 2 * EPOCHS
    table = [
        f"{len(lines)} methods, {steps} steps of {BATCH} examples, SGD, float64, {platform.machine()}, torch "
        f"{torch.__version__}; {today}. Largest difference to one process, relative: of the loss of any step, and of "
        "the weights at the end, as a share of the way that they went.",
        "",
        "| | loss, 2 | loss, 4 | weights, 2 | weights, 4 | way, of the weights' length |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | " + " | ".join(f"{value:.0e}" for value in (*losses, *ends)) + f" | {way:.1e} |"
            for name, losses, ends, way in lines
        ),
    ]
    show(table, asked.table, "processes")
    far = [name for name, losses, ends, _ in lines if max(*losses, *ends) > CLOSE]
    if far:
        raise SystemExit(f"not alike: {', '.join(far)}")


if __name__ == "__main__":
    main()
