"""The loop: repeatable, resumable to the bit, and stopping where it must."""

from __future__ import annotations

import copy
import functools
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from torch import nn

from sslflow import paths
from sslflow.methods.images.simclr import SimCLR
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder, save_encoder
from sslflow.reporting import curves
from sslflow.reporting.curves import read_curve
from sslflow.runtime.checkpoint import Checkpoint, fingerprint
from sslflow.runtime.files import sha256
from sslflow.runtime.rng import derive, permutation
from sslflow.settings.params import load
from sslflow.stages import pretrain as stage
from sslflow.training import run as training
from sslflow.training.fit import NonFiniteLoss, Step, fit
from sslflow.training.method import Batch, find
from sslflow.training.optim import make_optimizer, warmup_cosine
from tests.conftest import RECIPE, ROOT

CPU = torch.device("cpu")
SETTINGS = {"epochs": 3, "batch_size": 40, "lr": 1e-3, "clip": 1.0}


def simclr(dataset, width: int = 4):
    torch.manual_seed(derive(0, "init"))
    method = SimCLR(Encoder(1, 28, name="resnet10", width=width, stem_stride=2), projector=(16, 8))
    return method, SimCLR.Views(dataset.format)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_a_resumed_run_ends_with_the_same_bits(dataset, tmp_path, monkeypatch, optimizer):
    monkeypatch.chdir(tmp_path)
    whole, views = simclr(dataset)
    for _ in fit(whole, views, dataset, CPU, 0, optimizer=optimizer, **SETTINGS):
        pass
    killed, views = simclr(dataset)
    for step in fit(killed, views, dataset, CPU, 0, optimizer=optimizer, **SETTINGS):
        if step.number == 4:
            Checkpoint("pretrain", "x").save(step.state())
        if step.number == 5:
            break
    torch.manual_seed(99)
    resumed, views = simclr(dataset)
    state = Checkpoint("pretrain", "x").load()
    numbers = [step.number for step in fit(resumed, views, dataset, CPU, 0, state, optimizer=optimizer, **SETTINGS)]
    assert numbers == list(range(5, 10))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_another_seed_gives_other_weights_and_the_same_seed_the_same(dataset):
    def weights(seed: int) -> torch.Tensor:
        method, views = simclr(dataset)
        for _ in fit(method, views, dataset, CPU, seed, **{**SETTINGS, "epochs": 1}):
            pass
        return torch.cat([p.detach().flatten() for p in method.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_every_image_is_seen_once_an_epoch_and_no_test_image_ever(dataset, monkeypatch):
    seen: list[int] = []
    read = type(dataset).read
    monkeypatch.setattr(type(dataset), "read", lambda self, rows: (seen.extend(rows.tolist()), read(self, rows))[1])
    method, views = simclr(dataset)
    for _ in fit(method, views, dataset, CPU, 0, **SETTINGS):
        pass
    assert [sorted(seen[i : i + 120]) for i in (0, 120, 240)] == [list(range(120))] * 3
    assert seen[:120] != seen[120:240]


def test_a_loss_that_is_not_finite_stops_with_its_step_and_spoils_no_state(dataset, monkeypatch):
    method, views = simclr(dataset)
    count, step_fn = [0], method.training_step

    def broken(batch: Batch):
        count[0] += 1
        losses = step_fn(batch)
        return {"loss": losses["loss"] * (float("nan") if count[0] == 5 else 1.0)}

    monkeypatch.setattr(method, "training_step", broken)
    states: list[int] = []
    steps = (step.state()["step"] for step in fit(method, views, dataset, CPU, 0, **SETTINGS))
    with pytest.raises(NonFiniteLoss, match="nan at step 5 of 9"):
        states.extend(steps)
    assert states == [1, 2, 3, 4]


def test_a_batch_larger_than_the_data_is_the_whole_of_it(dataset):
    method, views = simclr(dataset)
    steps = list(fit(method, views, dataset, CPU, 0, epochs=2, batch_size=1000, lr=1e-3))
    assert [step.batch_size for step in steps] == [120, 120]


def test_bf16_runs_and_stays_close_to_fp32(dataset):
    losses = {}
    for precision in ("fp32", "bf16"):
        method, views = simclr(dataset, width=8)
        steps = fit(method, views, dataset, CPU, 0, precision=precision, **SETTINGS)
        losses[precision] = float(next(iter(steps)).losses["loss"])
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_warmup_rises_and_cosine_falls_to_nothing():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[-1] < 1e-3


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lars_scales_the_step_to_the_weights_and_leaves_biases_alone(weight_decay):
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    bias = nn.Parameter(torch.tensor([1.0]))
    layer = nn.Module()
    layer.weight, layer.bias = weight, bias
    optimizer = make_optimizer(layer, "lars", 2.0, weight_decay, 0.0)
    weight.grad, bias.grad = torch.tensor([[0.0, 0.5]]), torch.tensor([0.25])
    optimizer.step()
    # |w| = 5, |g| = 0.5: the step is lr * 1e-3 * 5 / (0.5 + decay * 5) * (g + decay * w).
    trust = 1e-3 * 5 / (0.5 + 5 * weight_decay)
    step = 2.0 * trust * torch.tensor([[3 * weight_decay, 0.5 + 4 * weight_decay]])
    torch.testing.assert_close(weight.data, torch.tensor([[3.0, 4.0]]) - step)
    torch.testing.assert_close(bias.data, torch.tensor([0.5]))


def test_biases_and_norms_are_not_decayed():
    optimizer = make_optimizer(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "adamw", 1.0, 0.3, 0.9)
    assert [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in optimizer.param_groups] == [
        (0.3, [2]),
        (0.0, [1, 1, 1]),
    ]


@pytest.mark.parametrize("name", ["resnet10", "vit_tiny"])
def test_lower_layers_learn_more_slowly_and_heads_at_the_full_rate(name):
    small: dict[str, Any] = (
        {"stem_stride": 2, "width": 4} if name == "resnet10" else {"width": 32, "depth": 4, "patch_size": 7}
    )
    method = SimCLR(Encoder(1, 28, name=name, **small), projector=(16, 8))
    whole = make_optimizer(method, "adamw", 1.0, 0.3, 0.9)
    layered = make_optimizer(method, "adamw", 1.0, 0.3, 0.9, layer_decay=0.5, networks=[method.encoder.network])

    def of(optimizer: torch.optim.Optimizer, key: str) -> dict[int, float]:
        return {id(p): group.get(key, 1.0) for group in optimizer.param_groups for p in group["params"]}

    assert of(layered, "weight_decay") == of(whole, "weight_decay")
    scales, names = of(layered, "lr_scale"), {id(p): name for name, p in method.named_parameters()}
    assert set(scales) == set(names)
    assert all(scales[one] == 1.0 for one, name in names.items() if name.startswith("projector"))
    order = [scales[one] for one, name in names.items() if re.search(r"(layer|blocks\.)[1-4].*weight$", name)]
    assert order == sorted(order)
    assert order[0] <= 0.25 * order[-1]


def test_the_rate_of_a_layer_is_what_it_learns_with(dataset):
    method, views = simclr(dataset)
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    next(iter(fit(method, views, dataset, CPU, 0, layer_decay=1e-9, **SETTINGS)))
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in method.named_parameters()}
    assert moved["encoder.network.conv1.weight"] < 1e-8
    assert moved["projector.0.weight"] > 1e-5


def test_betas_are_adamw_s():
    optimizer = make_optimizer(nn.Linear(2, 2), "adamw", 1.0, 0.3, 0.9, betas=(0.8, 0.95))
    assert [group["betas"] for group in optimizer.param_groups] == [(0.8, 0.95)] * 2


def test_streams_are_independent_and_the_same_on_every_machine():
    assert derive(0, "step", 3) == 2490776720285352236
    assert len({derive(seed, *path) for seed in (0, 1) for path in (("init",), ("step", 1), ("step", 2))}) == 6
    assert sorted(permutation(50, 0, "order", 1).tolist()) == list(range(50))
    assert permutation(50, 0, "order", 1).tolist() != permutation(50, 0, "order", 2).tolist()


def test_an_encoder_written_and_read_again_is_the_same(tmp_path):
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=1, grid=2).eval()
    for name in ("a", "b"):
        save_encoder(encoder, tmp_path / f"{name}.safetensors")
    assert sha256(tmp_path / "a.safetensors") == sha256(tmp_path / "b.safetensors")
    images = torch.randn(3, 1, 28, 28)
    features = load_encoder(tmp_path / "a.safetensors")(images)
    assert features.shape == (3, encoder.dim)
    assert torch.equal(features, encoder(images))


@pytest.mark.parametrize(
    ("name", "channels", "size"), [("resnet18", 3, 32), ("vit_tiny_patch16_224", 3, 32), ("convnext_atto", 1, 64)]
)
def test_encoders_by_name_tell_their_width(name, channels, size):
    encoder = Encoder(channels, size, name=name).eval()
    assert encoder(torch.randn(2, channels, size, size)).shape == (2, encoder.dim)


def test_an_unknown_encoder_is_named_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'resnet18'"):
        Encoder(3, 32, name="resnet188")


def project(folder: Path, epochs: int, lr: float = 1e-3, **journal: float) -> None:
    """A params.yaml for a short pretraining run beside the prepared images in `folder`."""
    params = load(RECIPE)
    params["encoder"] = {"name": "resnet10", "width": 4, "stem_stride": 2}
    params["pretrain"] = {"log_every": 5, "diagnostics": 32, "checkpoint_seconds": 0.1} | journal
    params["methods"] = {
        "simclr": {"projector": [16, 8], "train": {"epochs": epochs, "batch_size": 40, "lr": lr}, "views": {}}
    }
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)


def pretrain(folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "sslflow.stages.pretrain", "simclr", "0"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_kill_9_in_mid_run_changes_no_bit_of_the_encoder(dataset):
    folder = dataset.folder.parent.parent
    project(folder, epochs=15)
    whole = pretrain(folder)
    output, _ = whole.communicate(timeout=120)
    assert whole.returncode == 0, output
    encoder = folder / "artifacts/encoders/simclr-0.safetensors"
    facts = load_encoder(encoder).facts
    assert facts["images"]["mean"] == list(dataset.format.mean)
    assert facts["run"]["settings"]["methods.simclr.train"]["epochs"] == 15
    assert facts["data"] == {"examples": 120, "sha256": sha256(folder / "data/prepared/manifest.parquet")}
    said = [folder / "artifacts/curves/simclr-0.csv"]
    expected, texts = sha256(encoder), [file.read_text() for file in said]
    encoder.unlink()

    killed = pretrain(folder)
    deadline = time.monotonic() + 60
    while not list(folder.glob("work/pretrain/*/checkpoint.pt")):
        assert killed.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not encoder.exists()

    resumed = pretrain(folder)
    output, _ = resumed.communicate(timeout=120)
    assert "resumed from step" in output
    assert sha256(encoder) == expected
    assert [file.read_text() for file in said] == texts
    assert not list(folder.glob("work/pretrain/*"))


def stopped_after(fit: Callable[..., Iterator[Step]], steps: int, seen: list[int]) -> Callable[..., Iterator[Step]]:
    """`fit`, which Ctrl-C ends after so many steps, once; the numbers of all steps go to `seen`."""

    @functools.wraps(fit)
    def stopping(*given: Any, **settings: Any) -> Iterator[Step]:
        for step in fit(*given, **settings):
            yield step
            seen.append(step.number)
            if len(seen) == steps:
                raise KeyboardInterrupt

    return stopping


def curve(folder: Path) -> list[dict[str, str]]:
    return read_curve(folder / paths.curve("simclr", 0))


def test_a_run_goes_on_under_other_settings_of_what_is_written_down(dataset, monkeypatch):
    folder = dataset.folder.parent.parent
    monkeypatch.chdir(folder)
    project(folder, epochs=4, log_every=5, checkpoint_seconds=1e-9)
    stage.main("simclr", 0)
    expected, columns = sha256(folder / paths.encoder("simclr", 0)), list(curve(folder)[0])
    assert [row["step"] for row in curve(folder)] == ["0", "5", "10", "12"]

    steps: list[int] = []
    monkeypatch.setattr(training, "fit", stopped_after(fit, 6, steps))
    with pytest.raises(KeyboardInterrupt):
        stage.main("simclr", 0)
    project(folder, epochs=4, log_every=3, checkpoint_seconds=100)
    stage.main("simclr", 0)
    assert steps == list(range(1, 13)), "the seventh is the first after the stop"
    assert sha256(folder / paths.encoder("simclr", 0)) == expected
    assert [row["step"] for row in curve(folder)] == ["0", "5", "9", "12"]
    assert all(list(row) == columns and all(row.values()) for row in curve(folder))
    assert len(curves.charts("simclr", [0])) > 3


@pytest.mark.parametrize("changed", [{"diagnostics": 16}, {"lr": 2e-3}])
def test_a_run_begins_anew_under_other_settings_of_what_it_does(dataset, monkeypatch, changed):
    folder = dataset.folder.parent.parent
    monkeypatch.chdir(folder)
    project(folder, epochs=4, checkpoint_seconds=1e-9)
    steps: list[int] = []
    monkeypatch.setattr(training, "fit", stopped_after(fit, 6, steps))
    with pytest.raises(KeyboardInterrupt):
        stage.main("simclr", 0)
    project(folder, epochs=4, checkpoint_seconds=1e-9, **changed)
    stage.main("simclr", 0)
    assert steps == [*range(1, 7), *range(1, 13)]


def test_a_fingerprint_knows_settings_files_and_code(tmp_path, monkeypatch):
    file = tmp_path / "manifest"
    file.write_text("a")
    first = fingerprint({"lr": 1e-3}, file)
    assert fingerprint({"lr": 1e-3}, file) == first
    assert fingerprint({"lr": 2e-3}, file) != first
    file.write_text("b")
    assert fingerprint({"lr": 1e-3}, file) != first
    file.write_text("a")
    module = types.ModuleType("sslflow.methods.made_up")
    module.__file__ = str(file)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert fingerprint({"lr": 1e-3}, file) != first


def test_names_of_methods_are_their_classes():
    assert find("simclr") is SimCLR


def test_few_images_are_shared_by_several_processes(dataset, monkeypatch):
    sizes = []

    def epochs(dataset, rows, batch_size, device, resident):
        sizes.append(batch_size)
        raise KeyboardInterrupt

    monkeypatch.setattr("sslflow.training.fit.Epochs", epochs)
    method, views = simclr(dataset)
    for processes, batch_size in ((1, 1000), (7, 1000), (7, 14)):
        monkeypatch.setattr("sslflow.training.fit.world_size", lambda processes=processes: processes)
        with pytest.raises(KeyboardInterrupt):
            list(fit(method, views, dataset, CPU, 0, epochs=1, batch_size=batch_size, lr=1e-3))
    assert sizes == [120, 119, 14]


def test_examples_that_are_kept_on_the_device_end_with_the_same_bits(dataset, monkeypatch):
    ends, reads, read = [], [], type(dataset).read

    def counted(self, rows):
        reads.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(type(dataset), "read", counted)
    for resident in (False, True):
        reads.clear()
        method, views = simclr(dataset)
        list(fit(method, views, dataset, CPU, 0, epochs=2, batch_size=40, lr=1e-3, resident=resident))
        ends.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
    assert torch.equal(*ends)
    assert reads == [1, 120]


def test_a_fused_step_of_weights_in_any_memory_format_is_that_of_one_weight_after_another():
    torch.manual_seed(0)
    networks = [torch.nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)]
    networks.append(copy.deepcopy(networks[0]).to(memory_format=torch.contiguous_format))
    optimizers = [make_optimizer(network, "sgd", 1e-2, 0.1, 0.9) for network in networks]
    optimizers[1].defaults["fused"] = False
    for group in optimizers[1].param_groups:
        group["fused"] = False
    images = torch.randn(4, 8, 9, 9)
    for _ in range(3):
        for network, its in zip(networks, optimizers, strict=True):
            its.zero_grad()
            network(images).square().mean().backward()
            its.step()
    torch.testing.assert_close(*(list(network.parameters()) for network in networks), rtol=1e-5, atol=1e-6)
    assert optimizers[0].param_groups[0]["fused"]
    assert not make_optimizer(networks[0], "adamw", 1e-2, 0.1, 0.9).param_groups[0]["fused"], "its bits are published"
