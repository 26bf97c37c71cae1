"""Teachers, schedules and heads: what several methods are made of."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from sslflow.networks.heads import Prototypes, mlp
from sslflow.networks.teacher import EarlierBatches, Teacher
from sslflow.training.schedules import cosine, linear


@pytest.fixture
def student() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), mlp(4 * 16, 8, 3))


def images(seed: int = 1, count: int = 10) -> torch.Tensor:
    return torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def test_a_teacher_moves_by_its_share_of_the_way(student):
    teacher = Teacher(student)
    before = [p.clone() for p in teacher.network.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.add_(torch.randn_like(p))
    teacher.follow(student, 0.75)
    for mine, old, its in zip(teacher.network.parameters(), before, student.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.75 * old + 0.25 * its.detach())
        assert not torch.equal(mine, old)


def test_a_teacher_with_momentum_1_stays_and_with_0_is_the_student(student):
    teacher = Teacher(student)
    before = [p.clone() for p in teacher.network.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    teacher.follow(student, 1.0)
    assert all(torch.equal(mine, old) for mine, old in zip(teacher.network.parameters(), before, strict=True))
    teacher.follow(student, 0.0)
    torch.testing.assert_close(list(teacher.network.parameters()), [p.detach() for p in student.parameters()])


def test_a_teacher_takes_no_gradients_and_copies_buffers_of_all_types(student):
    teacher = Teacher(student)
    for _ in range(3):
        student(images())
    teacher.follow(student, 0.9)
    assert not teacher(images()).requires_grad
    assert not any(p.requires_grad for p in teacher.parameters())
    teacher.follow(student, 0.9)
    for mine, its in zip(teacher.network.buffers(), student.buffers(), strict=True):
        assert torch.equal(mine, its)
    assert int(teacher.get_buffer("network.1.num_batches_tracked")) == 3


def test_a_key_depends_on_its_own_image_and_on_earlier_batches_only(student):
    teachers = [Teacher(student, batch_statistics=False) for _ in range(2)]
    for teacher in teachers:
        teacher(images(1))
    alone, among_others = (teacher(batch) for teacher, batch in zip(teachers, (images(2)[:4], images(2)), strict=True))
    torch.testing.assert_close(alone, among_others[:4])
    leaky = Teacher(student)
    assert not torch.allclose(leaky(images(2)[:4]), leaky(images(2))[:4], atol=1e-3)


def test_the_first_batch_is_normalised_by_itself(student):
    torch.testing.assert_close(Teacher(student, batch_statistics=False)(images()), Teacher(student)(images()))


def test_statistics_of_earlier_batches_are_a_running_mean_of_the_teachers_own():
    norm = nn.BatchNorm2d(3)
    teacher = Teacher(nn.Sequential(norm), batch_statistics=False)
    batches = [torch.randn(5, 3, 2, 2) * (i + 1) + i for i in range(3)]
    mean, var = batches[0].mean((0, 2, 3)), batches[0].var((0, 2, 3), correction=0)
    for number, batch in enumerate(batches):
        expected = (batch - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
        torch.testing.assert_close(teacher(batch), expected)
        share = EarlierBatches.SHARE if number else 0.0
        mean = torch.lerp(mean, batch.mean((0, 2, 3)), share)
        var = torch.lerp(var, batch.var((0, 2, 3), correction=0), share)
    kept = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    teacher.follow(nn.Sequential(norm), 0.5)
    teacher.eval()(batches[0])
    assert all(torch.equal(buffer, kept[name]) for name, buffer in teacher.named_buffers())
    assert torch.equal(norm.get_buffer("running_mean"), torch.zeros(3)), "the student's own statistics were changed"


def test_a_teachers_own_statistics_survive_a_checkpoint(student):
    teacher, other = (Teacher(student, batch_statistics=False) for _ in range(2))
    for seed in range(3):
        teacher(images(seed))
    other.load_state_dict(teacher.state_dict())
    assert torch.equal(other(images(7)), teacher(images(7)))


def test_cosine_is_slow_fast_slow():
    values = [cosine(2.0, 5.0, i / 10) for i in range(11)]
    assert values[0] == pytest.approx(2.0)
    assert values[5] == pytest.approx(3.5)
    assert values[10] == pytest.approx(5.0)
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert all(step > 0 for step in steps)
    assert steps[:5] == sorted(steps[:5])
    assert steps[5:] == sorted(steps[5:], reverse=True)


def test_linear_arrives_and_stays():
    assert [linear(1.0, 3.0, p, until=0.5) for p in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([1.0, 2.0, 3.0, 3.0])
    assert linear(1.0, 3.0, 0.5) == pytest.approx(2.0)
    assert linear(1.0, 3.0, 0.0, until=0.0) == 3.0


def test_prototypes_compare_directions():
    torch.manual_seed(0)
    prototypes = Prototypes(6, 4)
    inputs = torch.randn(5, 6)
    found = prototypes(inputs).detach()
    for i, j in itertools.product(range(5), range(4)):
        one, other = inputs[i], prototypes.weight[j].detach()
        assert float(found[i, j]) == pytest.approx(float(one @ other / one.norm() / other.norm()), abs=1e-6)
    torch.testing.assert_close(prototypes(7 * inputs).detach(), found)
    with torch.no_grad():
        prototypes.weight.mul_(3)
    torch.testing.assert_close(prototypes(inputs).detach(), found)
    assert prototypes(inputs.bfloat16()).dtype == torch.float32


def test_mlp_normalises_between_layers_and_at_the_end_only_if_asked():
    kinds = [type(layer) for layer in mlp(4, 5, 6)]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    *_, last = mlp(4, 5, 6)
    assert last.bias is not None
    normed = mlp(4, 5, 6, last_norm=True)
    assert all(layer.bias is None for layer in normed if isinstance(layer, nn.Linear)), "BatchNorm takes them away"
    out = normed(torch.randn(64, 4) * 5 + 2)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(dim=0, correction=0), torch.ones(6), atol=1e-2, rtol=0)
    assert [p.shape for p in normed.parameters()] == [(5, 4), (5,), (5,), (6, 5)]
