"""What views cost, beside Kornia's and beside the step that they are for: `python -m benchmarks.views`.

Two views of each image as SimCLR draws them, at the defaults (crop, flip, colours, grey, blur), with the normalisation;
Kornia's by its own layers in the same order, from the same uint8 images. One CPU thread, seconds of the processor, so
that others on the machine don't count; both take turns, and what stands here are medians. `--table docs/stages.md`
writes the table; `--device cuda` measures on a GPU, by the clock.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import kornia
import kornia.augmentation as K
import torch
from torch import Tensor, nn

from benchmarks.tables import show
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.methods.images.simclr import SimCLR
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import layout, place
from sslflow.settings.params import Fraction
from sslflow.training.method import Batch
from sslflow.views.images import TwoViews, Views
from sslflow.views.strengths import Blur, Colour, Crop

CPU = torch.device("cpu")
SIZES = {32: 256, 64: 128, 224: 16}
"""Images in a batch of views, for each side in pixels."""
ROUNDS = 7
STEP = 8
"""Images in a step, which takes long on a CPU: of a whole batch it is taken to be so many times as long."""
LARGE = 64
"""Above this side, in pixels, the encoder has the usual stem, below one for small images."""


class Kornias(Views):
    """The same two views by Kornia's layers."""

    def __init__(
        self,
        format: ImageFormat,
        *,
        crop: Crop = Crop(),
        flip: Fraction = 0.5,
        colour: Colour = Colour(),
        blur: Blur = Blur(),
    ) -> None:
        super().__init__(format)
        side, kernel = (format.size, format.size), max(3, format.size // 10 // 2 * 2 + 1)
        self.layers = nn.Sequential(
            K.RandomResizedCrop(side, scale=(crop.smallest, 1.0)),
            K.RandomHorizontalFlip(p=flip),
            K.ColorJitter(colour.brightness, colour.contrast, colour.saturation, colour.hue, p=colour.jitter),
            K.RandomGrayscale(p=colour.grey),
            K.RandomGaussianBlur((kernel, kernel), blur.sigma, p=blur.p) if blur.p else nn.Identity(),
        )

    @torch.no_grad()
    def forward(self, fields: Fields) -> tuple[Tensor, ...]:
        images = fields["images"].float() / 255
        return self.normalise(self.layers(torch.cat([images, images])) * 255).chunk(2)


def measured(side: int, batch: int, device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of a batch: our views, Kornia's, and a step of SimCLR with a ResNet-18, forward and backward."""
    torch.manual_seed(0)
    format = ImageFormat(3, side, (0.5,) * 3, (0.25,) * 3)
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, device=device)
    fields = Fields(images=images)
    ours, theirs = TwoViews(format).to(device), Kornias(format).to(device)
    method = SimCLR(Encoder(3, side, name="resnet18", stem_stride=4 if side > LARGE else 1))
    place(method, device, "channels_last")
    memory_format = layout("channels_last")
    few = min(STEP, batch) if device.type == "cpu" else batch
    views = tuple(view[:few].contiguous(memory_format=memory_format) for view in ours(fields))
    ready = Batch(views, torch.arange(few, device=device), 0.0)

    def step() -> None:
        method.zero_grad()
        method.training_step(ready)["loss"].backward()

    runs = {"ours": lambda: ours(fields), "kornia": lambda: theirs(fields)}
    times = in_turn(runs, rounds, device)
    # A step is so long that it needn't be repeated as often.
    steps = [batch / few * seconds for seconds in in_turn({"step": step}, 3, device)["step"]]
    return {name: statistics.median(of) for name, of in {**times, "step": steps}.items()}


def synchronize(device: torch.device) -> None:
    """Wait for what the device has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> str:
    """What computes, and versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, 1 CPU thread"
    return f"{name}; torch {torch.__version__}, Kornia {kornia.__version__}"


def in_turn(runs: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each, after a turn that doesn't count."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            synchronize(device)
            started = clock()
            run()
            synchronize(device)
            if number:
                times[name].append(clock() - started)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--table", type=Path, help="the guide that the table goes into")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(asked.device)
    clock = "" if device.type == "cuda" else ", of the processor's time"
    lines = [
        f"{machine(device)}; medians of {asked.rounds} rounds{clock}.",
        "",
        "| side | images | two views, ms | by Kornia, ms | Kornia : ours | step, ms | views : step | Kornia : step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for side, batch in SIZES.items():
        found = measured(side, batch, device, asked.rounds)
        ours, theirs, step = (1000 * found[name] for name in ("ours", "kornia", "step"))
        lines.append(
            f"| {side} | {batch} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} | {step:,.0f} | {ours / step:.1%} "
            f"| {theirs / step:.1%} |"
        )
    show(lines, asked.table, "views")


if __name__ == "__main__":
    main()
