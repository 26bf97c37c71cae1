"""Distillation: its loss against a slow reference and lightly, and a teacher that stays as it is and is in no file."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sslflow import paths
from sslflow.methods.images.distillation import Distillation, cosine_distance, on_one_grid
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import save_encoder
from sslflow.networks.starts import Start, write_start
from sslflow.networks.teacher import Frozen
from sslflow.stages import inspect, pretrain
from sslflow.training.fit import fit
from sslflow.training.ingredients import build, of_examples
from sslflow.training.method import Batch
from sslflow.training.saved import load_weights, save_method

CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_distance(a: Tensor, b: Tensor) -> float:
    found = []
    for one, other in zip(a.flatten(0, -2).double(), b.flatten(0, -2).double(), strict=True):
        dot = sum(float(x) * float(y) for x, y in zip(one, other, strict=True))
        found.append(1 - dot / math.sqrt(sum(float(x) ** 2 for x in one) * sum(float(y) ** 2 for y in other)))
    return sum(found) / len(found)


def test_the_distance_equals_the_slow_reference_and_lightly() -> None:
    from lightly.loss import NegativeCosineSimilarity

    a, b = drawn(6, 5), drawn(6, 5, seed=1)
    assert float(cosine_distance(a, b)) == pytest.approx(slow_distance(a, b), rel=1e-5)
    torch.testing.assert_close(cosine_distance(a, b), 1 + NegativeCosineSimilarity()(a, b))
    a, b = drawn(2, 3, 5), drawn(2, 3, 5, seed=1)
    assert float(cosine_distance(a, b)) == pytest.approx(slow_distance(a, b), rel=1e-5)


@pytest.mark.parametrize(
    ("a", "b", "grid"), [((4, 4), (2, 2), (2, 2)), ((2, 6), (4, 3), (2, 3)), ((3, 3), (3, 3), (3, 3))]
)
def test_maps_are_compared_on_the_coarser_grid(a: tuple[int, int], b: tuple[int, int], grid: tuple[int, int]) -> None:
    for given, found in zip(
        (drawn(2, 3, *a), drawn(2, 5, *b)), on_one_grid(drawn(2, 3, *a), drawn(2, 5, *b)), strict=True
    ):
        assert found.shape[2:] == grid
        torch.testing.assert_close(found.mean(dim=(2, 3)), given.mean(dim=(2, 3)))


def encoder(seed: int, **settings: int) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(1, 28, **{"name": "resnet10", "width": 4, "stem_stride": 2, **settings})  # pyright: ignore[reportArgumentType]


def made(maps: float = 1.0, seed: int = 0) -> Distillation:
    teacher = encoder(7, width=8, stem_stride=1)
    torch.manual_seed(seed)
    return Distillation(encoder(seed, grid=2), teacher, maps=maps)


def a_batch() -> Batch:
    return Batch(tuple(torch.rand(2, 5, 1, 28, 28, generator=torch.Generator().manual_seed(1))), torch.arange(5), 0.0)


def standardised(rows: Tensor) -> Tensor:
    """Rows `(…, dim)`, each dimension less its mean, by its deviation."""
    flat = rows.flatten(0, -2)
    return (rows - flat.mean(dim=0)) / (flat.var(dim=0, correction=0) + 1e-5).sqrt()


@pytest.mark.parametrize("maps", [0.0, 0.5])
def test_the_loss_equals_the_slow_reference(maps: float) -> None:
    method, given = made(maps).eval(), a_batch()
    method.standard.train()
    method.map_standard.train()
    found = float(method.training_step(given)["loss"].detach())
    with torch.no_grad():
        view, teacher = torch.cat(given.views), method.teacher.network
        expected = slow_distance(method.projector(method.encoder(view)), standardised(teacher(view)))
        if method.map_projector is not None:
            last, its = (one.flatten(2).mT for one in on_one_grid(method.encoder.map(view), teacher.map(view)))
            expected += maps * slow_distance(method.map_projector(last), standardised(its))
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_teacher_stays_as_it_is_and_is_in_no_state_and_no_optimiser(dataset, tmp_path: Path) -> None:
    method = made()
    before = copy.deepcopy(method.teacher.network.state_dict())
    own = {id(parameter) for parameter in method.teacher.network.parameters()}
    assert own
    assert own.isdisjoint(id(parameter) for parameter in method.parameters())
    assert not [name for name in method.state_dict() if name.startswith("teacher")]
    settings = {"epochs": 1, "batch_size": 40, "lr": 1e-3}
    for _ in fit(method, Distillation.Views(dataset.format), dataset, CPU, 0, **settings):
        assert not method.teacher.network.training
    assert all(torch.equal(value, before[name]) for name, value in method.teacher.network.state_dict().items())

    save_method(method, tmp_path / "method.safetensors")
    other = made(seed=1)
    load_weights(other, tmp_path / "method.safetensors")
    torch.testing.assert_close(other.eval().training_step(a_batch()), method.eval().training_step(a_batch()))


def test_what_is_frozen_goes_where_its_holder_goes() -> None:
    frozen = Frozen(nn.Conv2d(1, 2, 3))
    holder, held = nn.Sequential(frozen), frozen.network
    holder.to(torch.float64)
    assert held.weight.dtype == torch.float64
    assert not held.weight.requires_grad
    assert not list(holder.parameters())
    assert copy.deepcopy(frozen).network.weight is not held.weight


def test_without_a_teacher_it_is_refused(dataset) -> None:
    small = {"name": "resnet10", "width": 4, "stem_stride": 2}
    with pytest.raises(ValueError, match=r"start\.teacher is random, .* set it to a name in starts"):
        build(Distillation, of_examples(dataset, dataset.pretraining_rows, small), {})


PARAMS = """
compute: {device: cpu, threads: 1}
encoder: {name: resnet10, width: 4}
pretrain: {log_every: 2, diagnostics: 32}
inspect: {pictures: 4}
start: {teacher: mine}
methods:
  distillation: {train: {epochs: 2, batch_size: 40, lr: 1e-3}}
"""


def test_stages_find_the_teacher_by_its_name(dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    save_encoder(encoder(7, width=8), tmp_path / "teacher.safetensors")
    write_start("mine", Start(weights="teacher.safetensors"))
    pretrain.main("distillation", 0)
    inspect.main("distillation", 0)
    torch.use_deterministic_algorithms(False)
    kept = load_file(paths.trained("distillation", 0))
    assert not [name for name in kept if "teacher" in name]
    assert kept["projector.weight"].shape == (64, 32)
    assert paths.pictures("distillation", 0).exists()
