"""The neighbours' vote, against a loop that follows the paper word by word."""

import math

import numpy as np
import pytest
import torch

from sslflow.evaluation import knn
from sslflow.evaluation.knn import knn_predict


def slowly(bank, labels, queries, classes, k, temperature):
    predicted = []
    for query in queries:
        cosines = [float(query @ row / (np.linalg.norm(query) * np.linalg.norm(row))) for row in bank]
        votes = [0.0] * classes
        for near in sorted(range(len(bank)), key=lambda row: -cosines[row])[:k]:
            votes[labels[near]] += math.exp(cosines[near] / temperature)
        predicted.append(max(range(classes), key=lambda label: votes[label]))
    return predicted


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.1), (7, 0.1), (20, 1.0), (10_000, 0.5)])
def test_it_votes_as_the_paper_says(fashion, monkeypatch, k, temperature):
    monkeypatch.setattr(knn, "CHUNK", 7)  # the borders of chunks are part of the test
    images, labels = fashion
    features = torch.from_numpy(images[:200].reshape(200, -1)).double()
    bank, queries, known = features[:150], features[150:], torch.from_numpy(labels[:150])
    found = knn_predict(bank, known, queries, 10, k=k, temperature=temperature)
    assert found.tolist() == slowly(bank.numpy(), known.tolist(), queries.numpy(), 10, k, temperature)


def test_the_length_of_features_and_the_order_of_the_bank_do_not_matter(fashion):
    images, labels = fashion
    features = torch.from_numpy(images.reshape(len(images), -1)).float()
    known = torch.from_numpy(labels)
    found = knn_predict(features[:400], known[:400], features[400:], 10)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    scaled = features[:400] * torch.rand(400, 1) + 1e-3 * features[:400]
    assert torch.equal(found, knn_predict(scaled[order], known[order], 3 * features[400:], 10))
    assert (found == known[400:]).float().mean() > 0.5


def test_nearer_neighbours_weigh_more_than_many():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    query = torch.tensor([[1.0, 0.05]])
    labels = torch.tensor([0, 1, 1])
    assert knn_predict(bank, labels, query, 2, k=3, temperature=0.1).tolist() == [0]
    assert knn_predict(bank, labels, query, 2, k=3, temperature=100.0).tolist() == [1]


def test_a_tiny_temperature_is_the_nearest_neighbour_and_overflows_nothing(fashion):
    images, labels = fashion
    features, known = torch.from_numpy(images.reshape(len(images), -1)).float(), torch.from_numpy(labels)
    nearest = knn_predict(features[:300], known[:300], features[300:], 10, k=1)
    assert torch.equal(nearest, knn_predict(features[:300], known[:300], features[300:], 10, k=50, temperature=1e-6))


def test_a_feature_of_nothing_but_zeros_gets_an_answer():
    found = knn_predict(torch.eye(3), torch.tensor([0, 1, 1]), torch.zeros(1, 3), 2)
    assert found.tolist() == [1]
