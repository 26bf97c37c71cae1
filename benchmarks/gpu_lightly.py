"""Lightly's loop on a GPU, as its documentation shows it: its transforms on PIL images in processes of torch's
DataLoader, its heads and losses, mixed precision; the encoder and the optimiser are ours."""

from __future__ import annotations

import inspect
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from benchmarks.gpu_data import images_in_memory
from benchmarks.gpu_report import SEED, Line
from benchmarks.gpu_speed import Model, forward_backward, pace, synchronize
from benchmarks.lightly_methods import Theirs, transform_of
from sslflow.networks.encoder import Encoder
from sslflow.runtime.device import autocast, place
from sslflow.runtime.rng import derive
from sslflow.training.method import find
from sslflow.training.optim import make_optimizer

ROUNDS = 2
"""Rounds in which every process of the loader gives a batch, after a first that isn't counted."""


class Pictures(TorchDataset):
    """Images in memory, as PIL has them when a file is decoded: nothing is read or decoded here, which is in lightly's
    favour."""

    def __init__(self, images: Tensor, count: int, transform: Callable[[Image.Image], Any]) -> None:
        self.images, self.count, self.transform = images.permute(0, 2, 3, 1).contiguous().numpy(), count, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        return self.transform(Image.fromarray(self.images[number % len(self.images)]))


def defaults(kind: Any) -> dict[str, Any]:
    """The settings of a constructor that have a default."""
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def speed(model: Model, device: torch.device, threads: int, batch: int, line: Line) -> None:
    """Steps of the whole loop, by rounds of as many batches as the loader has processes; and forward and backward of
    the same method alone, on views that lie on the device."""
    kind = find(model.method)
    data = images_in_memory(min(batch, 256), model.side)
    transform = transform_of(model.method, data.format, defaults(kind.Views))
    count = batch * threads * (ROUNDS + 3)
    loader = DataLoader(
        Pictures(data.fields["images"], count, transform),
        batch_size=batch, shuffle=True, drop_last=True, num_workers=threads, pin_memory=device.type == "cuda",
    )  # fmt: skip
    torch.manual_seed(derive(SEED, "init"))
    encoder = Encoder(3, model.side, **model.encoder)
    method = Theirs(model.method, encoder, {**defaults(kind), **model.settings})
    place(method.train(), device, "channels_last")
    updates = make_optimizer(method, "adamw", 1e-4, 1e-4, 0.9)
    last: list[Tensor] = []

    def step(views: list[Tensor]) -> None:
        nonlocal last
        last = [view.to(device, non_blocking=True, memory_format=torch.channels_last) for view in views]
        with autocast(device, "bf16"):
            loss = method.step(last, 0.0)
        updates.zero_grad()
        loss.backward()
        updates.step()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    batches, took = iter(loader), []
    line.values["batch"] = batch
    for round in range(1 + ROUNDS):
        started = time.perf_counter()
        for views in itertools.islice(batches, threads):
            step(views)
        synchronize(device)
        if round:
            took.append(time.perf_counter() - started)
    del batches
    real = statistics.mean(took) / threads
    line.values["images/s"] = batch / real
    if device.type == "cuda":
        line.values["peak memory, GiB"] = torch.cuda.max_memory_allocated(device) / 2**30
    alone = pace(lambda: forward_backward(method, lambda: method.step(last, 0.0), device), device, 0.3)
    line.values |= {"bare, images/s": batch / alone, "step : bare": real / alone}
    line.note = f"{threads} processes load"
