"""Adaptation methods: their terms against slow references, their memory, their loop, and when they reject."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslflow.adaptation import inputs as domain
from sslflow.adaptation import loop
from sslflow.adaptation import method as adapter
from sslflow.adaptation.has_unknown import Openness, evidence, look_for_unknown, second_half
from sslflow.adaptation.memory import Memory, averaged, entropy_separation, neighbourhood_entropy
from sslflow.adaptation.method import Adapter, Pair, entropy_share
from sslflow.adaptation.task import UNKNOWN, Answers
from sslflow.adaptation.threshold import NOTHING, best_expected, without_best
from sslflow.adaptation.unknown_groups import unknown_groups
from sslflow.examination.adaptation.scores import Decisions, adaptation_scores
from sslflow.methods.adaptation import gated_dance
from sslflow.methods.adaptation.dance import DANCE
from sslflow.methods.adaptation.gated_dance import GatedDANCE
from sslflow.methods.adaptation.ovanet import OVANet, answer_entropy, hard_one_vs_all
from tests.cases import Layer, domains

CPU = torch.device("cpu")
TEMPERATURE = 0.1


def rows_of_length_1(count: int, dim: int = 4, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def slow_entropy(logits: list[float]) -> float:
    total = sum(math.exp(value) for value in logits)
    shares = [math.exp(value) / total for value in logits]
    return -sum(share * math.log(share + 1e-5) for share in shares)


def slow_one_vs_all(answers: list[list[list[float]]], labels: list[int]) -> tuple[float, float]:
    """The one-vs-all loss and the entropy of answers, as in the authors' code: `[no of each class, yes of each]`."""
    yes, no, undecided = 0.0, 0.0, 0.0
    for (nays, yeas), label in zip(answers, labels, strict=True):
        shares = [math.exp(yea) / (math.exp(nay) + math.exp(yea)) for nay, yea in zip(nays, yeas, strict=True)]
        yes += -math.log(shares[label] + 1e-8) / len(answers)
        no += max(-math.log(1 - share + 1e-8) for k, share in enumerate(shares) if k != label) / len(answers)
        entropies = [-share * math.log(share) - (1 - share) * math.log(1 - share) for share in shares]
        undecided += sum(entropies) / len(shares) / len(answers)
    return 0.5 * (yes + no), undecided


@pytest.mark.parametrize("official", [True, False])
def test_neighbourhood_entropy_equals_the_slow_reference(official):
    features, prototypes, memory = rows_of_length_1(5), rows_of_length_1(3, seed=1), rows_of_length_1(9, seed=2)
    rows = torch.tensor([7, 0, 3, 8, 1])
    hidden = -1 / TEMPERATURE if official else -math.inf
    expected = []
    for i, feature in enumerate(features):
        logits = [float(feature @ prototype) / TEMPERATURE for prototype in prototypes]
        for j, remembered in enumerate(memory):
            if j not in rows.tolist():
                logits.append(float(feature @ remembered) / TEMPERATURE)
            elif official:
                logits.append(hidden)
        for j, other in enumerate(features):
            if j != i:
                logits.append(float(feature @ other) / TEMPERATURE)
            elif official:
                logits.append(hidden)
        expected.append(slow_entropy(logits))
    found = neighbourhood_entropy(features, features @ prototypes.T / TEMPERATURE, memory, rows, TEMPERATURE, hidden)
    assert float(found) == pytest.approx(sum(expected) / 5, rel=1e-6)


def test_separation_counts_distances_within_the_margin_as_the_margin():
    logits = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    boundary, margin = math.log(6) / 2, 0.4
    distances = [abs(slow_entropy(row.tolist()) - boundary) for row in logits]
    assert min(distances) < margin < max(distances)
    expected = -sum(max(distance, margin) for distance in distances) / 20
    assert float(entropy_separation(logits, boundary, margin)) == pytest.approx(expected, rel=1e-6)


def test_who_is_undecided_gets_no_gradient():
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.7, 0.1, 0.0]], requires_grad=True)
    shares = entropy_share(logits.detach().softmax(dim=1)) * math.log(3)
    boundary = float(shares[1]) + 0.1
    entropy_separation(logits, boundary, 0.2).backward()
    assert logits.grad is not None
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


def test_memory_keeps_what_was_seen_last_and_passes_no_gradient():
    memory = Memory(4, 3)
    assert not memory.features.any()
    seen = torch.tensor([[0.0, 3.0, 4.0], [2.0, 0.0, 0.0]], requires_grad=True)
    memory.put(torch.tensor([2, 0]), seen)
    assert memory.features.tolist() == [[1, 0, 0], [0, 0, 0], [0, pytest.approx(0.6), pytest.approx(0.8)], [0, 0, 0]]
    assert not memory.features.requires_grad
    memory.put(torch.tensor([2]), torch.tensor([[1.0, 0.0, 0.0]]))
    assert memory.features[2].tolist() == [1, 0, 0]


def test_one_vs_all_equals_the_slow_reference():
    answers = torch.randn(7, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    one_vs_all, undecided = slow_one_vs_all(answers.tolist(), labels.tolist())
    assert float(hard_one_vs_all(answers, labels)) == pytest.approx(one_vs_all, rel=1e-6)
    assert float(answer_entropy(answers)) == pytest.approx(undecided, rel=1e-6)


def test_a_step_of_ovanet_equals_the_slow_reference():
    torch.manual_seed(0)
    source, labels, target, _ = domains()
    source, labels, target = source[:9].double(), labels[:9], target[:7].double()
    method = OVANet(nn.Identity(), 6, 4, len(target), weight=0.3).double()
    known = method.classifier.weight.detach().clone()
    with torch.no_grad():
        method.open.weight.mul_(3)
    rows = [[value / math.hypot(*row) for value in row] for row in method.open.weight.tolist()]
    losses = method.training_step(Pair(source, labels, target, torch.arange(7), 0.0))

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    expected = 0.0
    for feature, label in zip(source.tolist(), labels.tolist(), strict=True):
        powers = [math.exp(dot(feature, row)) for row in known.tolist()]
        expected -= math.log(powers[label] / sum(powers)) / 9
    told = [
        [[[dot(feature, row) for row in half] for half in (rows[:4], rows[4:])] for feature in features.tolist()]
        for features in (source, target)
    ]
    one_vs_all, undecided = slow_one_vs_all(told[0], labels.tolist())[0], slow_one_vs_all(told[1], [0] * 7)[1]
    assert losses["loss"].item() == pytest.approx(expected + one_vs_all + 0.3 * undecided, rel=1e-6)
    assert method.open.weight.norm(dim=1).tolist() == pytest.approx([1] * 8)
    assert torch.equal(method.classifier.weight, known)


def test_averaged_takes_the_mean_over_the_nearest():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
    values = torch.tensor([[1.0], [3.0], [10.0], [20.0]])
    assert averaged(values, features, 2).flatten().tolist() == [2, 2, 15, 15]
    assert torch.equal(averaged(values, features, 1), values)
    assert averaged(values, features, 9).flatten().tolist() == [8.5] * 4


def test_without_best_is_the_entropy_of_the_rest():
    probabilities = torch.tensor([[0.8, 0.1, 0.1], [0.0, 0.5, 0.5], [0.7, 0.3, 0.0]])
    assert without_best(probabilities).tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert without_best(torch.tensor([[0.9, 0.1]])).tolist() == [1]


def mixture(known: int, unknown: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Entropies of images that are known (low) and unknown (high), and simulated ones like the latter."""
    numbers = torch.Generator().manual_seed(seed)
    low = (torch.randn(known, generator=numbers) * 0.6 - 3.5).exp()
    high = (torch.randn(unknown, generator=numbers) * 0.35 - 0.5).exp()
    simulated = (torch.randn(known + unknown, generator=numbers) * 0.35 - 0.5).exp()
    return torch.cat([low, high]).clamp(0, 1), simulated.clamp(0, 1)


def test_the_expected_threshold_lies_between_known_and_unknown():
    entropy, simulated = mixture(300, 200)
    threshold = best_expected(entropy, simulated)
    assert (entropy[:300] > threshold).float().mean() < 0.05
    assert (entropy[300:] > threshold).float().mean() > 0.9


def test_two_classes_say_nothing_of_a_third():
    probabilities = torch.tensor([[0.9, 0.1], [0.55, 0.45], [0.02, 0.98]])
    assert best_expected(entropy_share(probabilities), without_best(probabilities)) == 0.5


def test_evidence_is_strong_with_unknown_images_and_weak_without():
    assert evidence(*mixture(300, 200)) > 0.3
    assert evidence(*mixture(500, 0)) < 0.02
    same = torch.full((50,), 0.3)
    assert evidence(same, same) == 0
    assert evidence(same[:3], same[:3]) == 0


def adapted(name: str, seed: int = 0, unknown: bool = True, steps: int = 60) -> tuple[adapter.Judged, Tensor]:
    source, labels, target, truth = domains(unknown=unknown)
    torch.manual_seed(seed)
    method = adapter.find(name)(Layer(), 6, 4, len(target))
    for _ in loop.adapt(method, domain.of_features(source), labels, domain.of_features(target), CPU, seed, steps=steps):
        pass
    return loop.judge(method, domain.of_features(target))[0], truth


@pytest.mark.parametrize("name", adapter.names())
def test_every_method_learns_the_classes_and_repeats_itself(name):
    judged, truth = adapted(name)
    known = truth >= 0
    assert (judged.classes == truth)[known].float().mean() > 0.9
    assert judged.probabilities.sum(dim=1).tolist() == pytest.approx([1] * len(truth), abs=1e-5)
    assert judged.unknownness.min() >= 0
    assert judged.unknownness.max() <= 1
    again, _ = adapted(name)
    assert torch.equal(again.unknownness, judged.unknownness)
    assert again.threshold == judged.threshold
    other, _ = adapted(name, seed=1)
    assert not torch.equal(other.unknownness, judged.unknownness)


def test_unknown_images_are_rejected_and_known_ones_kept():
    judged, truth = adapted("gated_dance", unknown=True, steps=150)
    assert judged.threshold <= 0.5
    assert (judged.decisions == -1)[truth < 0].float().mean() > 0.6
    assert (judged.decisions == truth)[truth >= 0].float().mean() > 0.8
    closed, truth = adapted("gated_dance", unknown=False, steps=150)
    nothing, _ = adapted("source_only", unknown=False, steps=150)
    assert (closed.decisions == truth).sum() >= (nothing.decisions == truth).sum() - 1


@pytest.mark.parametrize("name", adapter.names())
@pytest.mark.parametrize("case", ["ten images", "target is source", "nothing in common", "a class with one image"])
def test_odd_domains_get_sensible_answers(name, case):
    source, labels, target, truth = domains()
    if case == "ten images":
        target, truth = target[:10], truth[:10]
    elif case == "target is source":
        target, truth = source.clone(), labels.clone()
    elif case == "nothing in common":
        target, truth = -target, torch.full_like(truth, -1)
    else:
        kept = torch.cat([(labels != 0).nonzero().flatten(), torch.tensor([0])])
        source, labels = source[kept], labels[kept]
    torch.manual_seed(0)
    method = adapter.find(name)(Layer(), 6, 4, len(target))
    ours, theirs = domain.of_features(source), domain.of_features(target)
    for _ in loop.adapt(method, ours, labels, theirs, CPU, 0, steps=60):
        pass
    judged, features = loop.judge(method, theirs)
    groups = unknown_groups(judged, features, 0)
    names = [str(number) for number in truth.tolist()]
    scores = adaptation_scores(
        Decisions(judged.decisions, judged.classes, judged.unknownness, groups), Answers(truth, names)
    )
    assert len(groups) == len(target)
    assert all(0 <= score <= 1 for score in scores.values())
    if case == "target is source" and name != "ovanet":
        assert scores["accuracy"] > 0.9
    if case == "nothing in common":
        assert scores["main"] == scores["unk"]


def test_official_dance_scales_prototypes_before_a_step_only():
    torch.manual_seed(0)
    method = DANCE(Layer(), 6, 4, 8)
    source, labels, target, _ = domains()
    with torch.no_grad():
        method.classifier.weight.mul_(3)
    method.training_step(Pair(source[:8], labels[:8], target[:8], torch.arange(8), 0.0))
    assert method.classifier.weight.norm(dim=1).tolist() == pytest.approx([1] * 4)
    with torch.no_grad():
        method.classifier.weight.mul_(3)
        longer = method.judge(target).unknownness
        method.classifier.weight.div_(3)
    assert (longer < method.judge(target).unknownness).all()


def test_dance_remembers_after_the_step_what_it_saw_in_it():
    torch.manual_seed(0)
    source, labels, target, _ = domains()
    method = DANCE(Layer(), 6, 4, len(target))
    rows = torch.tensor([5, 2, 40])
    method.training_step(Pair(source[:8], labels[:8], target[rows], rows, 0.0))
    assert not method.memory.features.any()
    method.after_step(0.1)
    torch.testing.assert_close(method.memory.features[rows], F.normalize(method.body(target[rows])).detach())
    assert method.memory.features.any(dim=1).sum() == 3


@pytest.mark.parametrize(("openness", "terms"), [(0, {"neighbours"}), (1, set()), (2, {"neighbours", "separation"})])
def test_gated_dance_does_what_it_saw_reason_for(openness, terms):
    torch.manual_seed(0)
    source, labels, target, _ = domains()
    method = GatedDANCE(Layer(), 6, 4, len(target), first=0.5)
    method.start(source, labels, target)
    torch.testing.assert_close(method.memory.features, F.normalize(target))
    method.seen[0] = openness
    rows = torch.arange(10)
    early = method.training_step(Pair(source, labels, target[rows], rows, 0.4))
    assert set(early) == {"loss", "known"}
    late = method.training_step(Pair(source, labels, target[rows], rows, 0.5))
    assert set(late) == {"loss", "known", *terms}
    judged = method.judge(target)
    expected = judged.notes["expected_threshold"]
    assert judged.threshold == [NOTHING, max(expected, 0.5), expected][openness]


@pytest.mark.parametrize(("unknown", "openness"), [("none", Openness.CLOSED), ("some", Openness.OPEN)])
def test_what_is_known_of_unknown_classes_need_not_be_found_out(unknown, openness, monkeypatch):
    monkeypatch.setattr(gated_dance, "look_for_unknown", None)
    torch.manual_seed(0)
    source, labels, target, _ = domains()
    method = GatedDANCE(Layer(), 6, 4, len(target), unknown=unknown)
    method.start(source, labels, target)
    judged = method.judge(target)
    assert judged.notes["openness"] == openness
    assert bool((judged.decisions == UNKNOWN).any()) == (unknown == "some")


def test_bars_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match=r"closed is 0\.9, open 0\.5: expected closed at most as high as open"):
        GatedDANCE(Layer(), 6, 4, 8, open=0.5, closed=0.9)


def wide(unknown: bool, strength: float = 8.0) -> tuple[Tensor, Tensor, Tensor]:
    """Source, labels and target in 64 dimensions: six classes, and three more in the target."""
    numbers = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(9, 64, generator=numbers), dim=1) * strength
    labels = torch.arange(6).repeat(40)
    truth = torch.arange(9 if unknown else 6).repeat(40)
    source = centres[labels] + torch.randn(len(labels), 64, generator=numbers)
    target = centres[truth] + 0.5 + torch.randn(len(truth), 64, generator=numbers)
    source, target = domain.standardised(source, target)
    return source, labels, target


def test_openness_is_told_from_features_alone_and_without_chance():
    found = look_for_unknown(*wide(unknown=True), 6, 0.05, 6)
    assert found.openness == Openness.OPEN
    torch.manual_seed(99)
    assert look_for_unknown(*wide(unknown=True), 6, 0.05, 6) == found
    assert look_for_unknown(*wide(unknown=False), 6, 0.05, 6).openness == Openness.CLOSED
    for unknown in (True, False):
        assert look_for_unknown(*wide(unknown, strength=0.0), 6, 0.05, 6).openness == Openness.UNSURE


@pytest.mark.parametrize(("images", "classes"), [(5, 4), (60, 2)])
def test_openness_of_too_little_is_not_told(images, classes):
    source, labels, target, _ = domains(classes=classes)
    assert look_for_unknown(source, labels, target[:images], classes, 0.05, 6).openness == Openness.UNSURE


def test_a_class_with_one_image_is_learned_and_not_held_out():
    assert second_half(torch.tensor([0, 1, 0, 2, 0, 2])).tolist() == [False, False, True, False, False, True]


def test_all_target_images_have_their_turn_before_a_second_one():
    numbers = [loop._in_turn(10, 3, step, seed=0).tolist() for step in range(6)]
    assert len({row for rows in numbers[:3] for row in rows}) == 9
    assert all(len(set(rows)) == 3 for rows in numbers)
    assert sorted(loop._in_turn(4, 36, 0, seed=0).tolist()) == [0, 1, 2, 3]


def test_the_source_shows_every_class_equally_often():
    by_class = [torch.arange(100), torch.tensor([100])]
    drawn = loop._balanced(by_class, 2000, torch.Generator().manual_seed(0))
    assert 0.45 < float((drawn == 100).float().mean()) < 0.55


def test_a_loss_that_is_not_finite_is_an_error_with_its_step():
    source, labels, target, _ = domains()
    source[3] = torch.nan
    method = adapter.find("source_only")(Layer(), 6, 4, len(target))
    with pytest.raises(ValueError, match="at step 1 of 5"):
        for _ in loop.adapt(
            method, domain.of_features(source), labels, domain.of_features(target), CPU, 0, steps=5, batch_size=60
        ):
            pass


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'gated_dance'"):
        adapter.find("gated_danse")


def test_batchnorm_takes_the_statistics_of_the_domain_that_is_judged():
    class Normed(Adapter):
        domain_norm = True

        def training_step(self, pair):
            raise NotImplementedError

        def judge(self, features):
            raise NotImplementedError

    body = nn.BatchNorm1d(6, affine=False)
    method = Normed(body, 6, 4, 3)
    inputs = 5 + 2 * torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    features = loop.judged_features(method, domain.of_features(inputs))
    assert features.mean(dim=0).abs().max() < 1e-5
    assert body.momentum == 0.1
    method.domain_norm = False
    with torch.no_grad():
        body.reset_running_stats()
    assert loop.judged_features(method, domain.of_features(inputs)).mean() > 4
