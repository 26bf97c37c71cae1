"""Fine-tuning: the labels it sees, the arithmetic, against a loop written anew, and a control that is a fair one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sslflow.data.dataset import Dataset
from sslflow.evaluation.finetune import Tuned, _in_turn, finetune, metric_name
from sslflow.evaluation.labels import labelled_subset, shares
from sslflow.evaluation.named import PseudoLabels, labelled_by
from sslflow.networks.encoder import Encoder
from sslflow.reporting.leaderboard import fraction_name
from sslflow.training.optim import layers_of
from tests.conftest import write_dataset

CPU = torch.device("cpu")
QUICK = {"fractions": (0.25,), "epochs": 1, "min_steps": 4, "batch_size": 16}


def encoder(width: int = 4) -> Encoder:
    torch.manual_seed(7)
    return Encoder(1, 28, name="resnet10", width=width, stem_stride=2)


def tune(
    dataset, make: Callable[[], Encoder] = encoder, seed: int = 0, scratch: bool = False, **settings
) -> list[Tuned]:
    return list(finetune(make, dataset, CPU, seed, scratch, **{**QUICK, **settings}))


def test_the_labels_seen_are_a_share_of_every_class_of_the_training_images(dataset):
    rows = labelled_subset(dataset, 0.25, 0)
    assert set(dataset.column("split", rows)) == {"train"}
    everything = np.bincount(dataset.labels[dataset.rows("train")], minlength=10)
    assert np.bincount(dataset.labels[rows], minlength=10).tolist() == [max(1, round(0.25 * n)) for n in everything]
    assert np.bincount(dataset.labels[labelled_subset(dataset, 1e-6, 0)]).tolist() == [1] * 10
    assert len(labelled_subset(dataset, 1.0, 0)) == 120


def test_a_seed_chooses_the_same_labels_and_a_smaller_share_is_part_of_a_larger(dataset):
    rows = labelled_subset(dataset, 0.3, 0)
    assert (rows == labelled_subset(dataset, 0.3, 0)).all()
    assert set(labelled_subset(dataset, 0.1, 0)) < set(rows)
    assert set(labelled_subset(dataset, 0.3, 1)) != set(rows)


def test_images_without_a_label_are_left_out(tmp_path, fashion):
    images, labels = fashion
    labels = labels[:60].copy()
    labels[::3] = -1
    dataset = write_dataset(tmp_path / "data", images[:60], labels, ["train"] * 40 + ["test"] * 20)
    assert len(labelled_subset(dataset, 1.0, 0)) == (labels[:40] >= 0).sum()
    (tuned,) = tune(dataset, fractions=(1.0,))
    asked = (labels[40:] >= 0).sum()
    assert tuned.accuracy * asked == pytest.approx(round(tuned.accuracy * asked))


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_the_arithmetic_is_that_of_a_loop_written_anew(dataset, decay):
    """The whole subset in each step and no augmentation: then nothing is random but the encoder."""
    rates = {"lr": 3e-2, "encoder_lr": 2e-3, "weight_decay": 0.1, "warmup": 0.25}
    whole = {"fractions": (0.3,), "min_steps": 8, "batch_size": 500, "shift": 0.0, "flip": 0.0}
    (tuned,) = tune(dataset, **{**rates, **whole}, layer_decay=decay)

    rows = labelled_subset(dataset, 0.3, 0)
    images = (dataset.read(rows)["images"].float() / 255 - dataset.format.mean[0]) / dataset.format.std[0]
    network = encoder().train()
    weight = torch.zeros(10, network.dim, requires_grad=True)
    bias = torch.zeros(10, requires_grad=True)
    layers = [[], [], [], [], []]
    for name, parameter in network.network.named_parameters():
        layers[int(name[5]) if name.startswith("layer") else 0].append(parameter)
    slow = torch.optim.AdamW([{"params": layer} for layer in layers], weight_decay=0.1)
    fast = torch.optim.AdamW([weight, bias], weight_decay=0.1)
    loss = torch.zeros(())
    for step in range(8):
        course = (step + 1) / 2 if step < 2 else (1 + math.cos(math.pi * (step - 2) / 6)) / 2
        for depth, group in enumerate(reversed(slow.param_groups)):
            group["lr"] = 2e-3 * decay**depth * course
        fast.param_groups[0]["lr"] = 3e-2 * course
        features = network(images)
        features = (features - features.mean(0)) / (features.var(0, correction=0) + 1e-5).sqrt()
        loss = F.cross_entropy(features @ weight.T + bias, torch.from_numpy(dataset.labels[rows]))
        network.zero_grad()
        weight.grad = bias.grad = None
        loss.backward()
        slow.step()
        fast.step()
    assert tuned.steps == 8
    assert tuned.labels == len(rows)
    assert tuned.loss == pytest.approx(loss.item(), rel=1e-3)


def test_the_same_seed_gives_the_same_bits(dataset):
    torch.manual_seed(1)
    one = tune(dataset)
    torch.manual_seed(2)
    assert tune(dataset) == one
    assert tune(dataset, seed=1) != one


def test_all_encoders_meet_the_same_views(dataset):
    """However many random numbers an encoder's making took."""

    def costly() -> Encoder:
        made = encoder()
        torch.manual_seed(99)
        return made

    assert tune(dataset, costly) == tune(dataset)


def test_batch_statistics_serve_training_and_never_a_test(dataset):
    class Watched(Encoder):
        def forward(self, images):
            modes.append(self.training)
            return super().forward(images)

    modes: list[bool] = []
    tune(dataset, lambda: Watched(1, 28, name="resnet10", width=4, stem_stride=2))
    assert modes == [True] * 4 + [False] * 3


def test_every_fraction_starts_from_the_same_encoder(dataset):
    both = tune(dataset, fractions=(0.25, 0.1))
    assert both == [*tune(dataset, fractions=(0.25,)), *tune(dataset, fractions=(0.1,))]


def test_labels_of_test_images_change_the_accuracy_and_nothing_else(tmp_path, fashion):
    images, labels = fashion
    splits = ["train"] * 120 + ["test"] * 40
    shifted = labels[:160].copy()
    shifted[120:] = (shifted[120:] + 1) % 10
    settings = {"fractions": (1.0,), "min_steps": 80, "encoder_lr": 1e-2}
    (true,) = tune(write_dataset(tmp_path / "a", images[:160], labels[:160], splits), **settings)
    (wrong,) = tune(write_dataset(tmp_path / "b", images[:160], shifted, splits), **settings)
    assert wrong.loss == true.loss
    assert true.accuracy > 0.5 > wrong.accuracy


def test_the_control_differs_by_its_rate_alone(dataset):
    tuned = tune(dataset, encoder_lr=1e-3, scratch_lr=5e-3)
    assert tune(dataset, scratch=True, encoder_lr=5e-3, scratch_lr=1e-3) == tuned
    assert tune(dataset, scratch=True, encoder_lr=1e-3, scratch_lr=5e-3) != tuned


def test_layers_have_rates_of_their_own_in_pretrained_encoders_alone(dataset):
    tuned = tune(dataset, layer_decay=0.5)
    assert tuned != tune(dataset) == tune(dataset, layer_decay=1.0)
    assert tune(dataset, scratch=True, layer_decay=0.5) == tune(dataset, scratch=True)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny", "mobilenetv3_small_050"])
def test_every_parameter_is_in_one_layer_and_the_topmost_learns_at_the_full_rate(name):
    small: Any = {"width": 32, "depth": 3, "patch_size": 8} if "vit" in name else {}
    network = Encoder(3, 32, None, name=name, **small).network
    layers = layers_of(network, 0.5)
    found = [id(parameter) for layer, _ in layers for parameter in layer]
    assert sorted(found) == sorted(id(parameter) for parameter in network.parameters())
    assert len({scale for _, scale in layers}) >= 4
    assert max(scale for _, scale in layers) == 1
    scales = {id(parameter): scale for layer, scale in layers for parameter in layer}
    order = [scales[id(parameter)] for parameter in network.parameters() if parameter.ndim > 1]
    assert order == sorted(order), "from the input on each layer learns no slower than the one below it"


def test_a_few_labels_of_every_class_are_those_of_the_probes(dataset):
    *few, share = reversed(tune(dataset, each=(1, 2, 500), draws=2))
    assert (share.each, share.fraction) == (0, 0.25)
    assert sorted((one.each, one.draw, one.labels) for one in few) == [(1, 0, 10), (1, 1, 10), (2, 0, 20), (2, 1, 20)]
    first, second = (one for one in few if one.each == 1)
    assert first.predicted != second.predicted
    assert [tuned for tuned in tune(dataset, each=(1,), draws=1) if tuned.each] == [second]


def test_few_labels_still_get_their_steps(dataset):
    assert [t.steps for t in tune(dataset, fractions=(1.0, 0.1), epochs=2, min_steps=5, batch_size=16)] == [14, 5]


def test_a_loss_that_breaks_is_an_error_that_names_the_step(dataset):
    class Breaking(Encoder):
        calls = 0

        def forward(self, images):
            self.calls += 1
            return super().forward(images) * (torch.nan if self.calls == 3 else 1)

    with pytest.raises(ValueError, match="not finite from step 3 of 4"):
        tune(dataset, lambda: Breaking(1, 28, name="resnet10", width=4, stem_stride=2))


def test_without_labels_or_with_a_single_one_there_is_nothing_to_do(tmp_path, fashion):
    images, _ = fashion
    splits = ["train"] * 8 + ["test"] * 2
    with pytest.raises(ValueError, match="needs labelled images"):
        tune(write_dataset(tmp_path / "a", images[:10], np.full(10, -1), splits))
    single = write_dataset(tmp_path / "b", images[:10], np.zeros(10, np.int64), splits)
    with pytest.raises(ValueError, match=r"fractions: 0\.01 of the labels is a single image"):
        tune(single, fractions=(0.01,))
    with pytest.raises(ValueError, match="each: 1 of every class, of which there is one, is a single image"):
        tune(single, each=(1,), fractions=(1.0,))


@pytest.mark.parametrize("fraction", [1.0, 0.1, 0.07, 0.01, 0.005])
def test_the_leaderboard_knows_the_metric_by_the_same_name(fraction):
    assert metric_name(fraction) == fraction_name(fraction)


# Pseudo-labels


def clustered(dataset: Dataset) -> PseudoLabels:
    """Clusters that are the classes; the first images are unsure."""
    sure = np.where(np.arange(len(dataset)) < 60, 0.2, 0.9)
    return PseudoLabels(dataset.labels, sure)


def test_clusters_are_named_by_the_images_that_are_labelled(dataset):
    pseudo, labelled = clustered(dataset), labelled_subset(dataset, 0.25, 0)
    others = dataset.rows("train")
    rows, names = labelled_by(pseudo, others, labelled, dataset.labels[labelled], 10, 0.5)
    assert set(rows) == {row for row in others.tolist() if row >= 60} - set(labelled.tolist())
    assert (names == dataset.labels[rows]).all()
    everything = labelled_by(pseudo, others, labelled, dataset.labels[labelled], 10, 0.0)[0]
    assert set(everything) == set(others.tolist()) - set(labelled.tolist())
    one = labelled[dataset.labels[labelled] == 3]
    rows, names = labelled_by(pseudo, others, one, dataset.labels[one], 10, 0.0)
    assert set(names) == {3}, "clusters without a labelled image have no name"
    tied = PseudoLabels(np.zeros(4, np.int64), np.ones(4))
    assert labelled_by(tied, np.array([3]), np.array([0, 1]), np.array([5, 2]), 10, 0.5)[1] == [2]


def test_without_a_threshold_pseudo_labels_change_no_bit(dataset):
    assert list(finetune(encoder, dataset, CPU, 0, False, clustered(dataset), **QUICK)) == tune(dataset)


def test_sure_pseudo_labels_are_trained_on_beside_the_labels(dataset):
    asked = {**QUICK, "fractions": (0.1,), "pseudolabels_above": 0.5}
    (with_them,) = finetune(encoder, dataset, CPU, 0, False, clustered(dataset), **asked)
    (without,) = tune(dataset, fractions=(0.1,))
    assert (with_them.labels, with_them.steps) == (without.labels, without.steps)
    assert 0 < with_them.pseudolabels <= 60
    assert with_them.predicted != without.predicted
    (again,) = finetune(encoder, dataset, CPU, 0, False, clustered(dataset), **asked)
    assert again == with_them
    (none,) = tune(dataset, fractions=(0.1,), pseudolabels_above=0.5)
    assert none == without, "a control has no clusters"


def test_all_pseudo_labels_are_seen_equally_often():
    seen = torch.cat([_in_turn(10, step, 4, 0) for step in range(10)])
    assert seen.bincount().tolist() == [4] * 10
    assert sorted(seen[:10].tolist()) == list(range(10))


# Shares are what they say


def labelled(folder, counts: list[int], fashion) -> Dataset:
    """A data set with so many training images of each class, and one test image of each."""
    labels = np.repeat(np.arange(len(counts)), counts)
    images = np.resize(fashion[0], (len(labels) + len(counts), 1, 28, 28))
    splits = ["train"] * len(labels) + ["test"] * len(counts)
    return write_dataset(folder, images, np.concatenate([labels, np.arange(len(counts))]), splits)


@pytest.mark.parametrize(
    ("counts", "fractions", "used"),
    [
        pytest.param([10] * 10, (0.1, 0.01), {0.1: 0.1}, id="1 % of 100 labels is one of each class, 10 %"),
        pytest.param([10] * 10, (0.01, 0.1), {0.1: 0.01}, id="the first of two that are the same is kept"),
        pytest.param([3] * 4, (0.5,), {0.67: 0.5}, id="half of three images is two"),
        pytest.param([3] * 4, (1.0, 0.9), {1.0: 1.0}, id="nine tenths of three images are all"),
        pytest.param([98, 1, 1], (0.01,), {0.03: 0.01}, id="rare classes have one image each"),
        pytest.param([1000], (0.1, 0.1004), {0.1: 0.1}, id="shares that nobody can tell apart"),
        pytest.param([500], (0.998, 1.0), {0.99: 0.998, 1.0: 1.0}, id="nearly all is not all"),
        pytest.param([500, 500], (0.1, 0.01), {0.1: 0.1, 0.01: 0.01}, id="where there are many, as asked"),
    ],
)
def test_a_share_is_named_by_the_labels_that_are_really_used(tmp_path, fashion, counts, fractions, used):
    dataset = labelled(tmp_path / "data", counts, fashion)
    assert shares(dataset, fractions) == used
    for really, asked in used.items():
        assert len(labelled_subset(dataset, asked, 0)) == pytest.approx(really * sum(counts), rel=0.06)


def test_a_share_that_gives_the_same_images_is_left_out(tmp_path, fashion):
    found = tune(labelled(tmp_path / "data", [4] * 5, fashion), fractions=(0.25, 0.1, 0.01), min_steps=1)
    assert [(tuned.fraction, tuned.labels) for tuned in found] == [(0.25, 5)]
