"""BYOL, SimSiam, VICReg, MoCo: their losses against slow references and lightly, their state, and two processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from sslflow.methods.images.byol import BYOL, distance
from sslflow.methods.images.moco_v2 import MoCoV2
from sslflow.methods.images.moco_v3 import MoCoV3
from sslflow.methods.images.moco_v3 import info_nce as batch_nce
from sslflow.methods.images.simsiam import SimSiam, negative_cosine
from sslflow.methods.images.vicreg import VICReg, vicreg_terms
from sslflow.networks.encoder import Encoder
from sslflow.networks.queue import info_nce as queue_nce
from sslflow.networks.teacher import Teacher
from sslflow.runtime.distributed import average_gradients
from sslflow.runtime.rng import derive
from sslflow.training.fit import fit
from sslflow.training.method import Batch, Method

CPU = torch.device("cpu")
TEMPERATURE = 0.2


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(12, 5, dtype=torch.float64), torch.randn(12, 5, dtype=torch.float64)


@pytest.fixture
def negatives() -> Tensor:
    torch.manual_seed(1)
    return F.normalize(torch.randn(7, 5, dtype=torch.float64), dim=1)


def none_ignored(queries: Tensor, negatives: Tensor) -> Tensor:
    return torch.zeros(len(queries), len(negatives), dtype=torch.bool)


def length_1(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=1)


class Flat(nn.Module):
    """An encoder without BatchNorm, so that two processes with half a batch each can equal one with all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.layer = 4, nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images)


def flat() -> Any:
    torch.manual_seed(0)
    return Flat()


def made(kind: type[Method], **settings: Any) -> Any:
    """The method with a very small encoder, always the same."""
    torch.manual_seed(derive(0, "init"))
    return kind(Encoder(1, 28, name="resnet10", width=4, stem_stride=2), **settings)


def a_batch(seed: int, rows: range, shape: tuple[int, ...] = (6,)) -> Batch:
    """Two views of the images `rows`."""
    numbers = torch.Generator().manual_seed(seed)
    first, second = (torch.randn(len(rows), *shape, generator=numbers) for _ in range(2))
    return Batch((first, second), torch.tensor(rows), progress=0.0)


# Losses


def slow_cosine(one: Tensor, other: Tensor) -> float:
    dot = sum(float(a) * float(b) for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(float(a) ** 2 for a in one) * sum(float(b) ** 2 for b in other))


def slow_nce(query: Tensor, right: Tensor, wrong: list[Tensor]) -> float:
    scores = [math.exp(slow_cosine(query, key) / TEMPERATURE) for key in (right, *wrong)]
    return -math.log(scores[0] / sum(scores))


def slow_vicreg_terms(za: Tensor, zb: Tensor) -> dict[str, float]:
    n, dim = za.shape
    found = {"invariance": 0.0, "variance": 0.0, "covariance": 0.0}
    for i in range(n):
        for j in range(dim):
            found["invariance"] += (float(za[i, j]) - float(zb[i, j])) ** 2 / (n * dim)
    for z in (za, zb):
        centred = [[float(z[i, j]) - sum(float(z[k, j]) for k in range(n)) / n for j in range(dim)] for i in range(n)]
        for a in range(dim):
            for b in range(dim):
                c = sum(row[a] * row[b] for row in centred) / (n - 1)
                if a == b:
                    found["variance"] += max(0.0, 1 - math.sqrt(c + 1e-4)) / (2 * dim)
                else:
                    found["covariance"] += c * c / dim
    return found


def test_byol_and_simsiam_equal_the_slow_reference(pair):
    mean = sum(slow_cosine(p, z) for p, z in zip(*pair, strict=True)) / 12
    assert float(distance(*pair)) == pytest.approx(2 - 2 * mean, rel=1e-5)
    assert float(negative_cosine(*pair)) == pytest.approx(-mean, rel=1e-5)


def test_byol_is_the_squared_distance_of_unit_vectors(pair):
    p, z = (length_1(rows) for rows in pair)
    assert float(distance(*pair)) == pytest.approx(float((p - z).square().sum(dim=1).mean()), rel=1e-5)
    assert float(distance(p, 5 * p)) == pytest.approx(0, abs=1e-6)
    assert float(distance(p, -p)) == pytest.approx(4, rel=1e-6)


def test_byol_and_simsiam_equal_lightly(pair):
    from lightly.loss import NegativeCosineSimilarity

    p, z = (rows.float() for rows in pair)
    theirs = NegativeCosineSimilarity()(p, z)
    torch.testing.assert_close(negative_cosine(p, z), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(distance(p, z), 2 + 2 * theirs, rtol=1e-5, atol=1e-5)


def test_vicreg_equals_the_slow_reference(pair):
    za, zb = pair[0] * 0.7, pair[1] * 0.9 + 1
    found = {name: float(term) for name, term in vicreg_terms(za, zb).items()}
    assert found == pytest.approx(slow_vicreg_terms(za, zb), rel=1e-5)
    assert found["variance"] > 0.01


def test_vicreg_equals_lightly(pair):
    from lightly.loss import VICRegLoss

    za, zb = (0.8 * z.float() for z in pair)
    terms = vicreg_terms(za, zb)
    ours = 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]
    torch.testing.assert_close(ours, VICRegLoss(25.0, 25.0, 1.0)(za, zb), rtol=1e-5, atol=1e-5)


def test_vicreg_sees_collapse_in_each_of_its_kinds(pair):
    to_a_point = {name: float(term) for name, term in vicreg_terms(torch.ones(9, 4), torch.ones(9, 4)).items()}
    assert to_a_point == pytest.approx({"invariance": 0, "variance": 0.99, "covariance": 0}, abs=1e-6)
    line = torch.linspace(-3, 3, 9)[:, None].expand(9, 4)
    to_a_line = {name: float(term) for name, term in vicreg_terms(line, line).items()}
    assert (to_a_line["invariance"], to_a_line["variance"]) == (0, 0)
    assert to_a_line["covariance"] == pytest.approx(2 * 3 * float(line[:, 0].var()) ** 2, rel=1e-5)
    z = torch.linalg.qr(pair[0] - pair[0].mean(dim=0))[0] * math.sqrt(11) * 1.1
    assert sum(float(term) for term in vicreg_terms(z, z).values()) == pytest.approx(0, abs=1e-6)


def test_vicreg_weights_its_terms():
    method = VICReg(flat(), projector=(3,), invariance=2.0, variance=3.0, covariance=5.0)
    found = method.training_step(a_batch(0, range(8)))
    expected = 2 * found["invariance"] + 3 * found["variance"] + 5 * found["covariance"]
    torch.testing.assert_close(found["loss"], expected)


def test_moco_v2_equals_the_slow_reference(pair, negatives):
    queries, keys = pair[0], length_1(pair[1])
    ignored = torch.rand(12, 7) < 0.3
    expected = [
        slow_nce(query, key, [wrong for wrong, out in zip(negatives, row, strict=True) if not out])
        for query, key, row in zip(queries, keys, ignored, strict=True)
    ]
    found = queue_nce(queries, keys, negatives, ignored, TEMPERATURE)
    assert float(found) == pytest.approx(sum(expected) / 12, rel=1e-5)


def test_moco_v2_equals_lightly(pair, negatives):
    from lightly.loss import NTXentLoss

    queries, keys, wrong = pair[0].float(), length_1(pair[1]).float(), negatives.float()
    theirs = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(7, 5))
    theirs.memory_bank.bank = wrong
    ours = queue_nce(queries, keys, wrong, none_ignored(queries, wrong), TEMPERATURE)
    torch.testing.assert_close(ours, theirs(queries, keys), rtol=1e-5, atol=1e-5)


def test_moco_v2_at_its_limits(pair):
    same = torch.ones(6, 4) / 2
    assert float(queue_nce(same, same, same, none_ignored(same, same), 0.1)) == pytest.approx(math.log(7), rel=1e-6)
    assert float(queue_nce(same, same, same, ~none_ignored(same, same), 0.1)) == 0
    queries, keys = (z.float() for z in pair)
    few = length_1(keys)
    losses = [queue_nce(q, few, few[:3], none_ignored(q, few[:3]), TEMPERATURE) for q in (queries, 9 * queries)]
    torch.testing.assert_close(*losses)


def test_moco_v3_equals_the_slow_reference(pair):
    predictions, keys = pair[0][:5], pair[1]
    for first in (0, 7):
        expected = [
            slow_nce(p, keys[first + i], [key for j, key in enumerate(keys) if j != first + i])
            for i, p in enumerate(predictions)
        ]
        assert float(batch_nce(predictions, keys, first, TEMPERATURE)) == pytest.approx(sum(expected) / 5, rel=1e-5)


def test_moco_v3_equals_lightly_with_the_rest_of_the_batch_as_its_bank(pair):
    from lightly.loss import NTXentLoss

    predictions, keys = pair[0].float(), length_1(pair[1]).float()
    theirs = []
    for i in range(12):
        loss = NTXentLoss(temperature=TEMPERATURE, memory_bank_size=(11, 5))
        loss.memory_bank.bank = torch.cat([keys[:i], keys[i + 1 :]])
        theirs.append(loss(predictions[i : i + 1], keys[i : i + 1]))
    ours = batch_nce(predictions, keys, 0, TEMPERATURE)
    torch.testing.assert_close(ours, torch.stack(theirs).mean(), rtol=1e-5, atol=1e-5)


def test_moco_v3_of_one_answer_for_all_is_the_log_of_the_batch():
    same = torch.ones(8, 4)
    assert float(batch_nce(same, 3 * same, 0, 0.1)) == pytest.approx(math.log(8), rel=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        distance,
        negative_cosine,
        lambda a, b: sum(vicreg_terms(a, b).values()),
        lambda a, b: queue_nce(a, length_1(b), length_1(b[:3]), torch.eye(6, 3, dtype=torch.bool), 0.3),
        lambda a, b: batch_nce(a[:4], b, 2, 0.3),
    ],
    ids=["byol", "simsiam", "vicreg", "moco_v2", "moco_v3"],
)
def test_gradients(pair, loss, monkeypatch):
    # The losses work in float32 for the sake of half precision; a numerical gradient needs float64.
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)
    za, zb = ((0.4 * z[:6]).requires_grad_() for z in pair)
    assert torch.autograd.gradcheck(loss, (za, zb))


# What a step does


def test_byol_sums_both_directions():
    method = made(BYOL, projector=(8, 6), predictor=5)
    batch = a_batch(0, range(10), (1, 28, 28))
    pa, pb = (method.predictor(method.projector(method.encoder(view))) for view in batch.views)
    ta, tb = (method.teacher(view) for view in batch.views)
    expected = 4 - 2 * (F.cosine_similarity(pa, tb) + F.cosine_similarity(pb, ta)).mean()
    torch.testing.assert_close(method.training_step(batch)["loss"], expected)


def test_simsiam_holds_its_targets_still():
    batch = a_batch(0, range(10), (1, 28, 28))
    method, other = (made(SimSiam, projector=(8, 6), predictor=3) for _ in range(2))
    method.training_step(batch)["loss"].backward()
    with torch.no_grad():
        ta, tb = (other.projector(other.encoder(view)) for view in batch.views)
    pa, pb = (other.predictor(other.projector(other.encoder(view))) for view in batch.views)
    (-(F.cosine_similarity(pa, tb) + F.cosine_similarity(pb, ta)).mean() / 2).backward()
    for mine, its in zip(method.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad)


@pytest.mark.parametrize("kind", [BYOL, MoCoV3])
def test_momentum_rises_to_1(kind):
    method = made(kind, projector=(8, 6), predictor=5, momentum=0.8)
    moved = []
    for progress in (0.0, 0.5, 1.0):
        with torch.no_grad():
            for mine, its in zip(method.teacher.parameters(), method.encoder.parameters(), strict=False):
                mine.copy_(its)
                its.add_(1.0)
        before = next(method.teacher.parameters()).clone()
        method.after_step(progress)
        moved.append(float((next(method.teacher.parameters()) - before).mean()))
    assert moved == pytest.approx([0.2, 0.1, 0.0], abs=1e-6)


def test_moco_v3_is_the_mean_of_both_directions():
    method = made(MoCoV3, projector=(8, 6), predictor=5, temperature=0.3)
    batch = a_batch(0, range(10), (1, 28, 28))
    pa, pb = (method.predictor(method.projector(method.encoder(view))) for view in batch.views)
    ta, tb = (method.teacher(view) for view in batch.views)
    found = method.training_step(batch)
    a, b = batch_nce(pa, tb, 0, 0.3), batch_nce(pb, ta, 0, 0.3)
    torch.testing.assert_close(found["loss"], (a + b) / 2)


def test_moco_v3_leaves_patches_as_they_are_where_asked():
    encoder = Encoder(1, 28, name="vit_tiny", width=32, depth=1, patch_size=7)
    method = MoCoV3(encoder, projector=(8, 6), predictor=5, freeze_patches=True)
    before = {name: p.clone() for name, p in method.named_parameters()}
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1.0)
    method.training_step(a_batch(0, range(10), (1, 28, 28)))["loss"].backward()
    optimizer.step()
    method.after_step(0.0)
    still = {name for name, p in method.named_parameters() if torch.equal(p, before[name])}
    frozen = {f"patch_embed.proj.{part}" for part in ("weight", "bias")}
    assert {f"encoder.network.{name}" for name in frozen} <= still
    assert all(name.endswith(tuple(frozen)) for name in still)


def test_moco_v3_says_that_patches_need_a_vit():
    with pytest.raises(ValueError, match=r"needs a ViT: set encoder\.name to vit_tiny"):
        made(MoCoV3, freeze_patches=True)


# The queue


def queue_after(*batches: Batch, queue: int) -> MoCoV2:
    method = MoCoV2(flat(), projector=(), queue=queue)
    for batch in batches:
        method.training_step(batch)
    return method


def keys_of(method: MoCoV2, *batches: Batch) -> Tensor:
    return torch.cat([length_1(method.teacher(batch.views[1])) for batch in batches])


@pytest.mark.parametrize(("queue", "steps"), [(10, 2), (10, 5), (6, 3), (4, 2), (7, 4)])
def test_the_queue_holds_the_last_keys_whatever_its_size(queue, steps):
    batches = [a_batch(step, range(6 * step, 6 * step + 6)) for step in range(steps)]
    method = queue_after(*batches, queue=queue)
    newest = 6 * steps - queue
    in_order = method.queue.rows.roll(-int(method.queue.oldest))
    assert in_order.tolist() == list(range(newest, 6 * steps))
    torch.testing.assert_close(
        method.queue.vectors.roll(-int(method.queue.oldest), 0), keys_of(method, *batches)[newest:]
    )


def test_a_queue_that_is_not_full_repeats_the_keys_of_the_first_step():
    batch = a_batch(0, range(6))
    method = MoCoV2(flat(), projector=(), queue=20)
    loss = method.training_step(batch)["loss"]
    assert sorted(method.queue.rows.tolist()) == sorted([*range(6)] * 3 + [0, 1])
    queries, keys = length_1(method.encoder(batch.views[0])), keys_of(method, batch)
    expected = [
        slow_nce(queries[i].detach(), keys[i], [keys[k % 6] for k in range(20) if k % 6 != i]) for i in range(6)
    ]
    assert float(loss.detach()) == pytest.approx(sum(expected) / 6, rel=1e-5)


def test_no_key_of_the_same_image_stands_against_a_query():
    """With one image and another, a queue full of the first one's keys is no task for it, and one for the other."""
    of_the_first = a_batch(0, range(1))
    method = queue_after(of_the_first, of_the_first, queue=5)
    assert method.queue.rows.tolist() == [0] * 5
    assert float(method.training_step(of_the_first)["loss"].detach()) == 0
    assert float(method.training_step(a_batch(1, range(1, 2)))["loss"].detach()) > 0.1


def test_the_present_keys_enter_the_queue_after_the_loss():
    first, second = a_batch(0, range(6)), a_batch(1, range(6, 12))
    method = queue_after(first, queue=6)
    queue, keys = method.queue.vectors.clone(), keys_of(method, second)
    loss = method.training_step(second)["loss"]
    expected = queue_nce(method.encoder(second.views[0]), keys, queue, torch.zeros(6, 6, dtype=torch.bool), TEMPERATURE)
    torch.testing.assert_close(loss, expected)
    loss.backward()  # which still needs the queue as it was


# A run that is killed and resumed


RESUMED = {
    "byol": lambda: made(BYOL, projector=(16, 8), predictor=16),
    "moco_v2": lambda: made(MoCoV2, projector=(16, 8), queue=100, momentum=0.9),
    "moco_v3": lambda: made(MoCoV3, projector=(16, 8), predictor=16),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_ends_with_the_same_bits(dataset, name, tmp_path):
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 40, "lr": 1e-3}
    whole = RESUMED[name]()
    views = whole.Views(dataset.format)
    for step in fit(whole, views, dataset, CPU, 0, **settings):
        if step.number == 4:
            torch.save(step.state(), tmp_path / "state.pt")
    torch.manual_seed(99)
    resumed = RESUMED[name]()
    with torch.no_grad():
        for tensor in resumed.state_dict().values():
            tensor.add_(1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert [step.number for step in fit(resumed, views, dataset, CPU, 0, state, **settings)] == [5, 6]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


# Two processes


def a_vicreg() -> Method:
    return VICReg(flat(), projector=(3,), invariance=1.0, variance=2.0)


def a_moco_v2() -> Method:
    return MoCoV2(flat(), projector=(3,), queue=13, momentum=0.5)


def a_moco_v3() -> Method:
    method = MoCoV3(flat(), projector=(), predictor=3, momentum=0.5)
    method.predictor = nn.Sequential(nn.Linear(4, 4))  # without BatchNorm
    return method


SPREAD = {"vicreg": a_vicreg, "moco_v2": a_moco_v2, "moco_v3": a_moco_v3}


def train(name: str, mine: slice) -> dict[str, Tensor]:
    """Losses of four steps on eight images each, of which this process sees its own, and what is left behind."""
    method = SPREAD[name]()
    trainable = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    found: dict[str, Tensor] = {}
    for step in range(4):
        whole = a_batch(step, range(5 * step, 5 * step + 8))
        first, second = whole.views
        loss = method.training_step(Batch((first[mine], second[mine]), whole.rows[mine], step / 4))["loss"]
        optimizer.zero_grad()
        loss.backward()
        average_gradients(trainable)
        for number, p in enumerate(trainable):
            assert p.grad is not None
            found[f"gradient {step} {number}"] = p.grad.clone()
        optimizer.step()
        method.after_step((step + 1) / 4)
        found[f"loss {step}"] = loss.detach()
    return found | method.state_dict()


def teacher_statistics(mine: slice) -> dict[str, Tensor]:
    """Of a teacher that saw three batches, in parts."""
    teacher = Teacher(nn.Sequential(nn.BatchNorm1d(6)), batch_statistics=False)
    for seed in range(3):
        out = teacher(a_batch(seed, range(8)).views[0][mine] * (seed + 1))
    return {"out": out} | teacher.state_dict()


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    mine = slice(4 * number, 4 * number + 4)
    results = {name: train(name, mine) for name in SPREAD} | {"teacher": teacher_statistics(mine)}
    torch.save(results, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("gloo")
    spawn(process, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


@pytest.mark.parametrize("name", SPREAD)
def test_two_processes_equal_one(results, name):
    one = train(name, slice(0, 8))
    first, second = (of_process[name] for of_process in results)
    for key, expected in one.items():
        if key.startswith("loss"):  # of the own queries: MoCo's differ, their mean is the loss
            torch.testing.assert_close((first[key] + second[key]) / 2, expected, msg=key)
        else:
            torch.testing.assert_close(first[key], expected, msg=key)
            torch.testing.assert_close(second[key], expected, msg=key)


def test_queues_are_equal_to_the_bit_in_all_processes(results):
    first, second = (of_process["moco_v2"] for of_process in results)
    for key in ("queue.vectors", "queue.rows", "queue.oldest"):
        assert torch.equal(first[key], second[key])
    assert int(first["queue.oldest"]) == 4 * 8 % 13


def test_a_teachers_statistics_are_those_of_all_processes(results):
    one = teacher_statistics(slice(0, 8))
    torch.testing.assert_close(torch.cat([of_process["teacher"].pop("out") for of_process in results]), one.pop("out"))
    for of_process in results:
        torch.testing.assert_close(of_process["teacher"], one)
