"""BatchNorm after training: the statistics of whole images, the same weights."""

from __future__ import annotations

import copy

import pytest
import torch

from sslflow.data.normalise import Normalise
from sslflow.features.extract import calibrate, extract
from sslflow.networks.encoder import Encoder

CPU = torch.device("cpu")


def test_statistics_are_those_of_the_images_and_weights_stay(dataset):
    torch.manual_seed(0)
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    before = copy.deepcopy(encoder.state_dict())
    rows = dataset.pretraining_rows
    calibrate(encoder, dataset, rows, CPU, batch_size=40)

    assert not encoder.training
    assert encoder.network.bn1.momentum == before_momentum()
    images = Normalise(dataset.format.mean, dataset.format.std)(dataset.read(rows)["images"])
    seen = encoder.network.conv1(images)
    torch.testing.assert_close(encoder.network.bn1.running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-3, atol=1e-3)
    # The mean of three batches' variances: a little below that of all images at once.
    torch.testing.assert_close(encoder.network.bn1.running_var, seen.var(dim=(0, 2, 3)), rtol=0.1, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in encoder.named_parameters())


def before_momentum() -> float:
    return torch.nn.BatchNorm2d(1).momentum or 0.0


def test_what_was_learned_from_other_images_is_forgotten_by_the_statistics(dataset):
    torch.manual_seed(0)
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    rows = dataset.pretraining_rows
    calibrate(encoder, dataset, rows, CPU)
    clean = extract(encoder, dataset, rows, CPU)
    encoder.train()(100 + 50 * torch.randn(32, 1, 28, 28))
    disturbed = extract(encoder, dataset, rows, CPU)
    calibrate(encoder, dataset, rows, CPU)
    again = extract(encoder, dataset, rows, CPU)
    assert abs(disturbed - clean).max() > 0.1
    assert again == pytest.approx(clean, abs=1e-5)


def test_networks_without_batchnorm_stay_as_they_are(dataset):
    encoder = Encoder(1, 28, name="vit_tiny", width=32, depth=1, patch_size=14)
    before = copy.deepcopy(encoder.state_dict())
    calibrate(encoder, dataset, dataset.pretraining_rows, CPU)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
