"""Going on from weights: what rests, what learns, how fast."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sslflow.data.dataset import Dataset
from sslflow.features.extract import extract
from sslflow.methods.images.simclr import SimCLR
from sslflow.monitoring.drift import Drift
from sslflow.networks.encoder import Encoder
from sslflow.training.continued import Continued, hold
from sslflow.training.fit import fit
from sslflow.views.images import TwoViews

CPU = torch.device("cpu")
SMALL = {"name": "resnet10", "width": 8, "stem_stride": 2}


def encoder(dataset: Dataset) -> Encoder:
    torch.manual_seed(0)
    return Encoder(dataset.format.channels, dataset.format.size, **SMALL)


def moved(before: dict[str, torch.Tensor], network: torch.nn.Module) -> set[str]:
    """The names of the parameters that are others than before."""
    return {name for name, now in network.named_parameters() if not torch.equal(before[name], now)}


@pytest.mark.parametrize(
    ("blocks", "images", "learning"),
    [(1, 100, 1), (3, 100, 3), (0, 100, 2), (0, 1000, 2), (0, 1001, 5), (99, 100, 5)],
)
def test_the_last_blocks_learn_more_of_them_with_more_images(
    dataset: Dataset, blocks: int, images: int, learning: int
) -> None:
    network = encoder(dataset)
    assert hold(network, blocks, images) == learning
    free = {name.split(".")[1] for name, p in network.named_parameters() if p.requires_grad}
    assert len(free & {"layer1", "layer2", "layer3", "layer4"}) == min(learning, 4)
    assert ("conv1" in free) == (learning == 5)


def test_heads_learn_first_then_the_last_blocks_too_and_nothing_else(dataset: Dataset) -> None:
    method = SimCLR(encoder(dataset), projector=(16, 8))
    hold(method.encoder, 1, 100)
    start = Continued(weights="some", heads_first=0.5, lr=1e-2)
    network, head = (copy.deepcopy(dict(part.named_parameters())) for part in (method.encoder, method.projector))
    views = TwoViews(dataset.format)
    steps = fit(method, views, dataset, CPU, 0, continued=start, epochs=4, batch_size=60, lr=1e-2, weight_decay=0.1)
    for step in steps:
        resting = step.number <= step.steps // 2
        assert bool(moved(network, method.encoder)) is not resting, step.number
        assert moved(head, method.projector)
    assert {name.split(".")[1] for name in moved(network, method.encoder)} == {"layer4"}


def test_the_encoder_learns_at_its_own_rate(dataset: Dataset) -> None:
    start = Continued(weights="some", heads_first=0.25, lr=1e-4)
    rates = [start.rate(step, 100, 0.2) for step in range(100)]
    assert not any(rates[:25])
    assert max(rates) == pytest.approx(1e-4)
    assert np.argmax(rates) == pytest.approx(25 + 15, abs=1)
    assert rates[-1] < 1e-6


def test_step_0_has_its_own_neighbours_and_the_best_moment_comes_back(dataset: Dataset) -> None:
    network = encoder(dataset)
    drift = Drift(network, dataset, dataset.pretraining_rows, CPU)
    first = drift(0)
    assert first["agreement"] == 1.0
    good = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    worse = drift(7)
    assert worse["agreement"] < 1
    assert worse["train_knn"] < first["train_knn"]
    assert drift.restore_best() == 0
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in good.items())


def test_where_the_encoder_got_better_a_later_moment_is_kept(dataset: Dataset) -> None:
    network = encoder(dataset)
    good = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    drift = Drift(network, dataset, dataset.pretraining_rows, CPU)
    drift(0)
    network.load_state_dict(good)
    drift(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    drift(9)
    assert drift.restore_best() == 5
    assert torch.equal(network.state_dict()["network.conv1.weight"], good["network.conv1.weight"])


def test_neighbours_vote_as_counted_by_hand(dataset: Dataset) -> None:
    """Of each labelled image its ten nearest others vote, weighted by exp(cosine / 0.1)."""
    rows = dataset.pretraining_rows[:40]
    network = encoder(dataset).eval()
    found = Drift(network, dataset, rows, CPU)(0)["train_knn"]
    features = torch.from_numpy(extract(network, dataset, rows, CPU)).double()
    features = features / features.norm(dim=1, keepdim=True)
    labels, right = dataset.labels[rows], 0
    for one in range(len(rows)):
        votes: dict[int, float] = {}
        cosines = sorted(
            ((float(features[one] @ features[other]), other) for other in range(len(rows)) if other != one),
            reverse=True,
        )
        for cosine, other in cosines[:10]:
            votes[labels[other]] = votes.get(labels[other], 0.0) + float(np.exp(cosine / 0.1))
        right += max(sorted(votes), key=votes.__getitem__) == labels[one]
    assert found == pytest.approx(right / len(rows))


def test_without_labels_nothing_is_called_best(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(dataset), "labels", np.full(len(dataset), -1))
    drift = Drift(encoder(dataset), dataset, dataset.pretraining_rows, CPU)
    assert set(drift(0)) == {"agreement"}
    assert drift.restore_best() is None
