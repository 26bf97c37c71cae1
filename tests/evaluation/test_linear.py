"""The linear probe, against scikit-learn's, and what it may not see."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sslflow.evaluation.linear import fit_linear, stratified

STRENGTHS = (30.0, 1.0, 0.1, 0.01)


@pytest.fixture
def halves(fashion):
    """Features of 14 x 14 pixels and labels: 400 rows to train on, 112 to test on."""
    images, labels = fashion
    features = torch.from_numpy(images[:, 0, ::2, ::2].reshape(len(images), -1)).float()
    known = torch.from_numpy(labels)
    return features[:400], known[:400], features[400:], known[400:]


@pytest.mark.parametrize("strength", [1.0, 0.1])
def test_the_solution_is_that_of_scikit_learn(halves, strength):
    x, y, x_test, _ = halves
    probe = fit_linear(x, y, 10, 0, regularisation=(strength,), tolerance=1e-4)
    assert probe.converged
    scaler = StandardScaler().fit(x.double().numpy())
    # scikit-learn's loss is the sum over rows, and its C weighs that sum.
    other = LogisticRegression(C=1 / (len(x) * strength), tol=1e-8, max_iter=10_000)
    other.fit(scaler.transform(x.double().numpy()), y.numpy())
    np.testing.assert_allclose(probe.weight.T.numpy(), other.coef_, atol=2e-3)
    logits = other.decision_function(scaler.transform(x_test.double().numpy()))
    sure = np.sort(logits, axis=1)[:, -1] - np.sort(logits, axis=1)[:, -2] > 1e-2
    assert (probe.predict(x_test).numpy() == logits.argmax(axis=1))[sure].all()


def test_the_strength_chosen_is_the_best_on_the_validation_part(halves):
    """Chosen again by hand, with scikit-learn."""
    x, y, _, _ = halves
    held = stratified(y, 0.25, 3).numpy()
    rows, labels = StandardScaler().fit_transform(x.double().numpy()), y.numpy()
    scores = {}
    for strength in STRENGTHS:
        other = LogisticRegression(C=1 / ((~held).sum() * strength), tol=1e-6, max_iter=10_000)
        scores[strength] = other.fit(rows[~held], labels[~held]).score(rows[held], labels[held])
    probe = fit_linear(x, y, 10, 3, regularisation=STRENGTHS, validation=0.25, tolerance=1e-4)
    assert probe.validation_accuracy == pytest.approx(max(scores.values()), abs=1.5 / held.sum())
    assert scores[30.0] < max(scores.values()) - 3 / held.sum(), "the strongest is to be a wrong choice here"
    assert scores[probe.regularisation] >= max(scores.values()) - 1.5 / held.sum()


def test_groups_are_held_out_as_a_whole_and_each_class_keeps_one():
    numbers = torch.Generator().manual_seed(0)
    for seed in range(20):
        groups = torch.randint(12, (100,), generator=numbers)
        labels = groups % 3
        labels[groups == 4] = torch.randint(3, (int((groups == 4).sum()),), generator=numbers)
        held = stratified(labels, 0.3, seed, groups)
        assert not set(groups[held].tolist()) & set(groups[~held].tolist())
        assert set(labels[~held].tolist()) == {0, 1, 2}
        counts = [len(groups[held & (labels == label)].unique()) for label in range(3)]
        assert all(1 <= count <= 3 for count in counts)
    assert not torch.equal(stratified(labels, 0.3, 0, groups), stratified(labels, 0.3, 1, groups))
    one_each = torch.arange(3).repeat(4)
    assert not stratified(one_each, 0.9, 0, one_each).any()
    whole = stratified(one_each, 1.0, 0, torch.arange(12))
    assert [int((~whole)[one_each == label].sum()) for label in range(3)] == [1, 1, 1]


def test_what_one_group_is_known_by_does_not_choose_the_strength():
    """Twelve windows of each of forty videos, almost equal: by rows, whoever knows them by heart looks best."""
    numbers = torch.Generator().manual_seed(1)
    groups = torch.arange(40).repeat_interleave(12)
    labels = (torch.arange(40) % 2).repeat_interleave(12)
    features = torch.randn(40, 25, generator=numbers)[groups] + 0.01 * torch.randn(480, 25, generator=numbers)
    features[:, 0] += 1.5 * labels
    strengths = (30.0, 1e-4)
    by_rows = fit_linear(features, labels, 2, 0, regularisation=strengths)
    by_groups = fit_linear(features, labels, 2, 0, groups, regularisation=strengths)
    assert by_rows.validation_accuracy > 0.95
    assert by_groups.validation_accuracy < 0.8
    assert (by_rows.regularisation, by_groups.regularisation) == (1e-4, 30.0)


def test_with_wrong_labels_the_strong_penalty_wins():
    """A choice by the training accuracy would take the weak one, which fits the wrong labels best."""
    numbers = torch.Generator().manual_seed(0)
    true = torch.randint(10, (400,), generator=numbers)
    features = torch.randn(400, 150, generator=numbers)
    features[torch.arange(400), true] += 6
    labels = torch.where(torch.rand(400, generator=numbers) < 0.4, true.roll(1), true)
    assert fit_linear(features, labels, 10, 0, regularisation=(1e-5, 0.3)).regularisation == 0.3


def test_scale_shift_and_constant_features_do_not_matter(halves):
    x, y, x_test, _ = halves
    probe = fit_linear(x, y, 10, 0, regularisation=STRENGTHS, tolerance=1e-4)

    def changed(features):
        return torch.cat([features * 50 - 7, torch.full((len(features), 2), 3.0)], dim=1)

    other = fit_linear(changed(x), y, 10, 0, regularisation=STRENGTHS, tolerance=1e-4)
    assert other.regularisation == probe.regularisation
    assert (other.predict(changed(x_test)) == probe.predict(x_test)).float().mean() > 0.98
    # A feature that never changed in training, and does so in a test, must not decide anything.
    odd = changed(x_test)
    odd[:, -1] = 1e6
    assert torch.equal(other.predict(odd), other.predict(changed(x_test)))


def test_the_same_seed_gives_the_same_bits(halves):
    x, y, x_test, _ = halves
    one, two = (fit_linear(x, y, 10, 5, regularisation=STRENGTHS) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.predict(x_test), two.predict(x_test))


def test_a_solver_that_was_cut_short_says_so(halves):
    x, y, _, _ = halves
    assert not fit_linear(x, y, 10, 0, regularisation=(1e-4,), iterations=3).converged


def test_the_validation_part_is_a_share_of_every_class_and_never_the_last_row():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])
    mask = stratified(labels, 0.3, 0)
    assert [int(mask[labels == number].sum()) for number in range(4)] == [15, 3, 1, 0]
    assert torch.equal(mask, stratified(labels, 0.3, 0))
    assert not torch.equal(mask, stratified(labels, 0.3, 1))
    assert int(stratified(labels, 1.0, 0).sum()) == len(labels) - 4


def test_with_nothing_to_hold_out_the_strongest_penalty_is_taken():
    probe = fit_linear(torch.eye(3), torch.arange(3), 3, 0, regularisation=STRENGTHS)
    assert probe.regularisation == max(STRENGTHS)
    assert probe.predict(torch.eye(3)).tolist() == [0, 1, 2]
