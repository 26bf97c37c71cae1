"""Methods that learn to tell clusters or prototypes: their crops, targets and clusterings, alone, over two processes,
and when a run is killed."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from sslflow.clustering.kmeans import assign
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.methods.images.deepcluster import DeepCluster, cluster, moments, mutual_information, whitening
from sslflow.methods.images.dino import DINO
from sslflow.methods.images.swav import SwAV
from sslflow.networks.answers import batch_mean, dino_targets, sinkhorn
from sslflow.networks.crops import forward_crops, swapped_cross_entropy
from sslflow.networks.encoder import Encoder
from sslflow.networks.heads import Prototypes
from sslflow.runtime.checkpoint import Checkpoint
from sslflow.runtime.distributed import average_gradients, rank, world_size
from sslflow.training.fit import fit
from sslflow.training.method import Batch, Method, Pool
from sslflow.training.pictures import typical
from sslflow.views.images import MultiCrop, TwoViews
from sslflow.views.strengths import Blur, Colour, Crop, Local

CPU = torch.device("cpu")
GREY = ImageFormat(1, 28, (0.3,), (0.3,))
PLAIN: Any = {"flip": 0.0, "colour": Colour(jitter=0.0), "blur": Blur(p=0.0)}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Views


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (4, 17)])
def test_global_crops_come_first_and_are_those_of_two_views(channels, size):
    images = torch.randint(0, 256, (6, channels, size, size), dtype=torch.uint8)
    format = ImageFormat(channels, size, (0.5,) * channels, (0.25,) * channels)
    torch.manual_seed(5)
    two = TwoViews(format, crop=Crop(0.3))(Fields(images=images))
    torch.manual_seed(5)
    many = MultiCrop(format, crop=Crop(0.3), local=Local(crops=3, size=0.5))(Fields(images=images))
    assert all(torch.equal(view, crop) for view, crop in zip(two, many[:2], strict=True))
    side = round(0.5 * size)
    assert [crop.shape for crop in many[2:]] == [(6, channels, side, side)] * 3
    assert all(crop.isfinite().all() and crop.dtype == torch.float32 for crop in many)


def test_there_may_be_no_local_crops(fashion):
    assert len(MultiCrop(GREY, local=Local(crops=0))(Fields(images=torch.from_numpy(fashion[0][:4])))) == 2


def test_every_crop_is_of_the_image_in_its_row():
    images = (torch.arange(8, dtype=torch.uint8) * 30).view(8, 1, 1, 1).expand(8, 1, 28, 28)
    views = MultiCrop(GREY, **PLAIN, local=Local(crops=4))
    for crop in views.shown(views(Fields(images=images))):
        assert torch.equal(crop, images)


def test_local_crops_show_less_of_an_image_and_each_another_part():
    ramp = (torch.arange(28, dtype=torch.uint8) * 9).expand(16, 1, 28, 28).contiguous()
    views = MultiCrop(GREY, **PLAIN, crop=Crop(0.9), local=Local(crops=4, scale=(0.05, 0.1)))
    torch.manual_seed(0)
    starts, ends = torch.stack(views.shown(views(Fields(images=ramp)))).flatten(2).float().aminmax(dim=2)
    spans = ends - starts
    assert float(spans[:2].min()) > 0.7 * 243
    # A tenth of the area at most, at most 4/3 as wide as high.
    assert float(spans[2:].max()) < math.sqrt(0.1 * 4 / 3) * 243
    assert len(starts[2:].unique()) > 10


def test_crops_are_shown_as_large_as_one_another(fashion):
    views = MultiCrop(GREY, local=Local(crops=2, size=0.4))
    shown = views.shown(views(Fields(images=torch.from_numpy(fashion[0][:5]))))
    assert [(crop.shape, crop.dtype) for crop in shown] == [((5, 1, 28, 28), torch.uint8)] * 4


# What DINO and SwAV share


def test_crops_of_one_size_pass_together_and_come_out_in_order():
    sizes: list[int] = []

    class Means(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return images.mean(dim=(2, 3))

    crops = [drawn(5, 2, side, side, seed=number) for number, side in enumerate((8, 8, 4, 4, 4))]
    found = forward_crops(Means(), crops)
    assert sizes == [10, 15]
    torch.testing.assert_close(found, torch.stack([crop.mean(dim=(2, 3)) for crop in crops]))


def slow_swapped(targets: Tensor, logits: Tensor) -> float:
    terms = []
    for t in range(targets.shape[0]):
        for c in range(logits.shape[0]):
            for i in range(targets.shape[1]):
                if t != c:
                    whole = sum(math.exp(float(one)) for one in logits[c, i])
                    pairs = zip(targets[t, i], logits[c, i], strict=True)
                    terms.append(-sum(float(q) * math.log(math.exp(float(x)) / whole) for q, x in pairs))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("crops", [2, 5])
def test_swapped_cross_entropy_equals_the_slow_reference(crops):
    targets, logits = drawn(2, 6, 4).softmax(dim=2), 3 * drawn(crops, 6, 4, seed=1)
    assert float(swapped_cross_entropy(targets, logits)) == pytest.approx(slow_swapped(targets, logits), rel=1e-9)


def test_swapped_cross_entropy_has_the_right_gradient():
    targets, logits = drawn(2, 3, 4).softmax(dim=2), drawn(4, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: swapped_cross_entropy(targets, x), (logits,))


def test_who_guesses_has_a_loss_of_the_log_of_the_answers():
    codes = sinkhorn(drawn(6, 7), 0.1, 3)[None].expand(2, -1, -1)
    assert float(swapped_cross_entropy(codes, torch.zeros(4, 6, 7))) == pytest.approx(math.log(7), rel=1e-6)


def test_similarities_to_prototypes_stay_float32_in_half_precision():
    prototypes, inputs = Prototypes(64, 10), drawn(8, 64).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = prototypes(inputs)
    torch.testing.assert_close(found, F.cosine_similarity(inputs[:, None], prototypes.weight, dim=2))


# DINO


def test_dino_equals_lightly_for_loss_and_centre():
    from lightly.loss import DINOLoss

    teacher, student, centre = drawn(2, 6, 9).float(), drawn(5, 6, 9, seed=1).float(), drawn(9, seed=2).float()
    other = DINOLoss(9, student_temp=0.1, center_momentum=0.9)
    other.center[:] = centre
    expected = other(list(teacher), list(student), teacher_temp=0.05)
    loss = swapped_cross_entropy(dino_targets(teacher, centre, 0.05), student / 0.1)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(centre.lerp(batch_mean(teacher), 0.1), other.center.flatten(), rtol=1e-5, atol=1e-6)


def test_a_centre_takes_away_what_all_images_have_in_common():
    logits = drawn(2, 8, 5)
    constant = 10 * drawn(5, seed=1)
    assert torch.equal(dino_targets(logits, torch.zeros(5), 0.05), (logits.float() / 0.05).softmax(dim=2))
    with_constant = dino_targets(logits + constant, constant.float(), 0.05)
    torch.testing.assert_close(with_constant, dino_targets(logits, torch.zeros(5), 0.05), rtol=1e-3, atol=1e-4)


def small_dino(**settings) -> DINO:
    torch.manual_seed(0)
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    return DINO(encoder, projector=(32, 16), prototypes=24, momentum=0.9, **settings)


def test_the_centre_starts_at_0_and_moves_after_the_loss(fashion):
    method = small_dino(teacher_temperature=0.08, teacher_temperature_start=0.04, teacher_warmup=0.5)
    views = MultiCrop(GREY, local=Local(crops=2))(Fields(images=torch.from_numpy(fashion[0][:16])))
    before = copy.deepcopy(method)
    assert not method.centre.any()
    method.centre += 0.2 * drawn(24).float()
    centre = method.centre.clone()
    loss = method.training_step(Batch(views, torch.arange(16), progress=0.25))["loss"].detach()
    teacher, student = forward_crops(before.teacher, views[:2]), forward_crops(before.student, views)
    # Half way through the warm-up of the teacher's temperature.
    targets = ((teacher - centre) / 0.06).softmax(dim=2)
    assert float(loss) == pytest.approx(slow_swapped(targets, student.detach() / 0.1), rel=1e-4)
    torch.testing.assert_close(method.centre, 0.9 * centre + 0.1 * teacher.mean(dim=(0, 1)))


def test_the_teacher_sees_global_crops_only_and_gets_no_gradient(fashion, monkeypatch):
    method, sides = small_dino(), []
    forward = method.teacher.network.forward
    monkeypatch.setattr(method.teacher.network, "forward", lambda x: (sides.append(tuple(x.shape)), forward(x))[1])
    views = MultiCrop(GREY, local=Local(crops=3, size=0.5))(Fields(images=torch.from_numpy(fashion[0][:8])))
    method.training_step(Batch(views, torch.arange(8), progress=0.0))["loss"].backward()
    assert sides == [(16, 1, 28, 28)]
    assert all(p.grad is None for p in method.teacher.parameters())


def test_a_vit_takes_crops_of_two_sizes(fashion):
    method = DINO(Encoder(1, 28, name="vit_tiny", width=32, depth=1, patch_size=7), projector=(8,), prototypes=10)
    views = MultiCrop(GREY, local=Local(crops=2, size=0.5))(Fields(images=torch.from_numpy(fashion[0][:4])))
    assert method.training_step(Batch(views, torch.arange(4), progress=0.0))["loss"].isfinite()


# SwAV


def slow_sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Rows are images, columns prototypes, as sums of plain floats."""
    table = [[math.exp(float(score) / epsilon) for score in row] for row in scores]
    for _ in range(iterations):
        columns = [sum(column) for column in zip(*table, strict=True)]
        table = [[x / whole for x, whole in zip(row, columns, strict=True)] for row in table]
        table = [[x / sum(row) for x in row] for row in table]
    return torch.tensor(table)


@pytest.mark.parametrize("epsilon", [0.03, 0.05, 0.5])
def test_sinkhorn_equals_the_slow_reference(epsilon):
    scores = F.normalize(drawn(12, 5), dim=1)
    torch.testing.assert_close(sinkhorn(scores, epsilon, 3), slow_sinkhorn(scores, epsilon, 3), rtol=1e-4, atol=1e-6)


def test_sinkhorn_equals_lightly():
    from lightly.loss.swav_loss import sinkhorn as other

    scores = F.normalize(drawn(12, 5), dim=1).float()
    torch.testing.assert_close(sinkhorn(scores, 0.05, 3), other(scores, 3, 0.05), rtol=1e-5, atol=1e-5)


def test_swav_equals_lightly():
    from lightly.loss import SwaVLoss

    scores = F.normalize(drawn(5, 12, 6), dim=2).float()
    codes = torch.stack([sinkhorn(crop, 0.05, 3) for crop in scores[:2]])
    expected = SwaVLoss(temperature=0.1, sinkhorn_epsilon=0.05)(list(scores[:2]), list(scores[2:]))
    torch.testing.assert_close(swapped_cross_entropy(codes, scores / 0.1), expected[0], rtol=1e-5, atol=1e-5)


def test_all_prototypes_get_the_same_share():
    codes = sinkhorn(F.normalize(drawn(60, 6), dim=1) + torch.arange(6), 0.3, 300)
    torch.testing.assert_close(codes.sum(dim=0), torch.full((6,), 10.0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(60))


@pytest.mark.parametrize("epsilon", [0.03, 0.05])
def test_scores_too_large_for_exp_give_codes_all_the_same(epsilon):
    scores = 200 * drawn(16, 8).float()
    assert (scores / epsilon).exp().isinf().any()
    codes = sinkhorn(scores, epsilon, 3)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(16))


def test_large_epsilon_makes_all_codes_alike_and_a_small_one_makes_them_one_prototype():
    scores = F.normalize(drawn(12, 4), dim=1)
    torch.testing.assert_close(sinkhorn(scores, 1e4, 3), torch.full((12, 4), 0.25), rtol=1e-3, atol=1e-3)
    assert float(sinkhorn(scores, 1e-3, 3).amax(dim=1).mean()) > 0.95


def small_swav(queue: int = 0) -> SwAV:
    torch.manual_seed(0)
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    return SwAV(encoder, projector=(32, 16), prototypes=12, queue=queue)


def test_a_full_queue_balances_the_codes_and_holds_the_latest_rows():
    method = small_swav(queue=10)
    steps = [drawn(2, 6, 16, seed=seed).float() for seed in range(3)]
    alone = [small_swav().codes(z) for z in steps]
    assert torch.equal(method.codes(steps[0]), alone[0])
    assert torch.equal(method.codes(steps[1]), alone[1])
    held = torch.cat([steps[1], steps[0][:, :4]], dim=1)
    assert torch.equal(method.queue, held)
    expected = [
        sinkhorn(method.prototypes(torch.cat([new, old])), 0.05, 3)[:6] for new, old in zip(steps[2], held, strict=True)
    ]
    found = method.codes(steps[2])
    assert torch.equal(found, torch.stack(expected))
    assert not torch.allclose(found, alone[2], atol=1e-3)


# DeepCluster


def small_deepcluster(clusters: int = 12, every: int = 1, directions: int = 8, confidence: float = 0.0) -> DeepCluster:
    torch.manual_seed(0)
    encoder = Encoder(1, 28, name="resnet10", width=4, stem_stride=2)
    return DeepCluster(encoder, clusters=clusters, directions=directions, every=every, confidence=confidence)


def pool_of(features: Tensor, seed: int = 0) -> Pool:
    """A pool of all these features, or of this process's part of them."""
    mine = torch.arange(len(features)).tensor_split(world_size())[rank()]
    return Pool(len(features), mine, lambda: features[mine], seed)


def blobs(sizes: tuple[int, ...], dim: int) -> Tensor:
    """Points around far corners, so many around each."""
    corners = torch.cat([F.one_hot(torch.tensor([number] * size), dim) for number, size in enumerate(sizes)])
    return 10 * corners.float() + 0.1 * drawn(sum(sizes), dim).float()


def test_whitened_features_have_variance_1_and_no_correlation():
    features = drawn(200, 6) @ drawn(6, 6, seed=1) + 5
    features = torch.cat([features, features[:, :2]], dim=1)  # two columns that say nothing new
    mean, covariance = moments(features)
    torch.testing.assert_close(covariance, features.T.cov(correction=0))
    points = (features - mean) @ whitening(covariance, 100)
    torch.testing.assert_close(points.T.cov(correction=0), torch.eye(6, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    # Fewer directions: those of the largest variance.
    kept = (features - mean) @ whitening(covariance, 2)
    axes = torch.linalg.svd(features - mean, full_matrices=False)[0][:, :2] * math.sqrt(200)
    torch.testing.assert_close((kept.T @ axes / 200).abs().flip(0), torch.eye(2, dtype=torch.float64))


def test_features_all_the_same_make_one_cluster():
    method = small_deepcluster()
    method.start_epoch(pool_of(torch.full((20, method.encoder.dim), 0.3)))
    assert method.assignments.tolist() == [0] * 20
    assert all(p.isfinite().all() for p in method.classifier.parameters())


@pytest.mark.parametrize(("different", "filled"), [(1, 1), (5, 5), (30, 12)])
def test_chance_level_is_that_of_the_clusters_that_are_filled(different, filled):
    method = small_deepcluster(clusters=12)
    method.start_epoch(pool_of(F.one_hot(torch.arange(60) % different, method.encoder.dim).float()))
    images = torch.rand(4, 1, 28, 28)
    losses = method.training_step(Batch((images, images), torch.arange(4), progress=0.0))
    assert float(losses["chance_loss"]) == pytest.approx(math.log(filled), abs=1e-6)
    assert float(losses["chance_accuracy"]) == pytest.approx(1 / filled)


def test_clusters_are_at_most_as_many_as_different_points():
    points = F.one_hot(torch.arange(30) % 5).float()
    assert len(cluster(points, 12, seed=0).centroids) == 5
    assert len(cluster(points, 3, seed=0).centroids) == 3


def test_the_classifier_starts_by_telling_the_clusters():
    method = small_deepcluster(clusters=5)
    features = blobs((30, 10, 20, 5), method.encoder.dim) + drawn(65, method.encoder.dim, seed=4).float()
    anew = method.start_epoch(pool_of(features))
    assert {id(p) for p in anew} == {id(p) for p in method.classifier.parameters()}
    method.norm.running_mean = features.mean(dim=0)
    method.norm.running_var = features.var(dim=0, correction=0)
    told = method.classifier(method.norm.eval()(features)).argmax(dim=1)
    assert len(method.assignments.unique()) == 5
    assert torch.equal(told, method.assignments)


def test_clusters_far_apart_are_found_whatever_their_size():
    method = small_deepcluster(clusters=4, directions=3)
    sizes = (40, 3, 20, 9)
    method.start_epoch(pool_of(blobs(sizes, method.encoder.dim)))
    parts = method.assignments.split(sizes)
    assert all(len(part.unique()) == 1 for part in parts)
    assert len(method.assignments.unique()) == 4


def test_an_epoch_sees_all_clusters_and_the_images_of_one_equally_often():
    method = small_deepcluster(clusters=6)
    method.assignments = torch.tensor([0] * 70 + [2] * 20 + [5] * 10)[torch.randperm(100)]
    order = method.order(100, torch.Generator().manual_seed(1))
    assert order.shape == (100,)
    seen = order.bincount(minlength=100)
    by_cluster = [seen[method.assignments == number] for number in (0, 2, 5)]
    assert sorted(int(part.sum()) for part in by_cluster) == [33, 33, 34]
    assert all(int(part.max() - part.min()) <= 1 for part in by_cluster)
    assert torch.equal(order, method.order(100, torch.Generator().manual_seed(1)))
    assert not torch.equal(order, method.order(100, torch.Generator().manual_seed(2)))
    # Not cluster by cluster.
    assert len(method.assignments[order[:20]].unique()) == 3


def test_images_are_clustered_every_few_epochs_by_another_seed():
    method = small_deepcluster(every=2)
    features = [drawn(40, method.encoder.dim, seed=seed).float() for seed in range(3)]
    found = []
    for epoch, part in enumerate(features):
        anew = method.start_epoch(pool_of(part, seed=epoch))
        found.append((bool(anew), method.assignments.clone()))
    assert [clustered for clustered, _ in found] == [True, False, True]
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[1][1], found[2][1])
    assert 0 < float(method.nmi) < 1


def as_without_confidence(features: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Clusters and order of an epoch, written anew, of all images."""
    mean, covariance = moments(features)
    points = (features - mean.float()) @ whitening(covariance, 8).float()
    found = assign(points, cluster(points, clusters, 0).centroids)[0]
    numbers = torch.Generator().manual_seed(1)
    shuffled = torch.randperm(len(found), generator=numbers)
    counts = found[shuffled].bincount()
    filled, turn = counts.nonzero()[:, 0], torch.arange(len(found))
    chosen = filled[turn % len(filled)]
    within = (counts.cumsum(0) - counts)[chosen] + turn // len(filled) % counts[chosen]
    order = shuffled[found[shuffled].argsort(stable=True)][within]
    return found, order[torch.randperm(len(found), generator=numbers)]


def test_without_a_threshold_everything_is_as_it_was():
    method = small_deepcluster()
    features = drawn(90, method.encoder.dim).float()
    method.start_epoch(pool_of(features))
    found, order = as_without_confidence(features, 12)
    assert torch.equal(method.assignments, found)
    assert torch.equal(method.order(90, torch.Generator().manual_seed(1)), order)


def test_images_that_are_unsure_of_their_cluster_are_not_seen():
    method = small_deepcluster(confidence=0.3, every=1)
    features = drawn(90, method.encoder.dim).float()
    method.start_epoch(pool_of(features))
    found = as_without_confidence(features, 12)[0]
    kept = method.assignments >= 0
    assert 5 < int(kept.sum()) < 85
    assert torch.equal(method.assignments[kept], found[kept])
    order = method.order(90, torch.Generator().manual_seed(1))
    assert len(order) == 90
    assert set(order.tolist()) <= set(kept.nonzero()[:, 0].tolist())
    images = torch.rand(4, 1, 28, 28)
    losses = method.training_step(Batch((images, images), order[:4], progress=0.0))
    assert float(losses["chance_accuracy"]) == pytest.approx(1 / len(found[kept].unique()))
    method.start_epoch(pool_of(features, seed=1))
    assert 0 < float(method.nmi) <= 1


def test_a_threshold_that_leaves_nothing_is_an_error():
    method = small_deepcluster(confidence=0.999)
    with pytest.raises(ValueError, match=r"methods\.deepcluster\.confidence: 0\.999 leaves out all images"):
        method.start_epoch(pool_of(drawn(90, method.encoder.dim).float()))


def test_mutual_information_equals_scikit_learn():
    from sklearn.metrics import normalized_mutual_info_score as other

    a, b = (torch.randint(5, (50,), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert float(mutual_information(a, b)) == pytest.approx(other(a.numpy(), b.numpy()), rel=1e-5)
    assert float(mutual_information(a, 4 - a)) == pytest.approx(1, rel=1e-5)


def test_pictures_show_the_images_with_the_highest_scores():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    scores = torch.tensor([[0, 9, 0], [0, 8, 0], [0, 7, 0], [5, 0, 0], [6, 0, 0], [1, 2, 0]]).float()
    found = typical(images, scores, rows=3, columns=2)
    assert [column[:, 0, 0, 0].tolist() for column in found.values()] == [[0.0, 4.0], [1.0, 3.0]]


# Killed and resumed


METHODS = {
    "dino": (small_dino, MultiCrop),
    "swav": (lambda: small_swav(queue=50), MultiCrop),
    "deepcluster": (lambda: small_deepcluster(every=2), TwoViews),
}


@pytest.mark.parametrize("stop", [4, 6], ids=["in an epoch", "between two"])
@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_run_ends_with_the_same_bits(dataset, tmp_path, monkeypatch, name, stop):
    monkeypatch.chdir(tmp_path)
    make, kind = METHODS[name]
    views = kind(dataset.format)
    settings = {"epochs": 4, "batch_size": 40, "lr": 1e-3}

    whole = make()
    for step in fit(whole, views, dataset, CPU, 0, **settings):
        if step.number == stop:
            Checkpoint("pretrain", "x").save(step.state())
    resumed = make()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1)
    state = Checkpoint("pretrain", "x").load()
    numbers = [step.number for step in fit(resumed, views, dataset, CPU, 0, state, **settings)]
    assert numbers == list(range(stop + 1, 13))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


# Two processes


def crops_of(rows: slice) -> tuple[Tensor, ...]:
    """Two large and a small crop of eight images."""
    return tuple(drawn(8, 1, side, side, seed=seed).float()[rows] for seed, side in ((1, 14), (2, 14), (3, 7)))


class Linear(Encoder):
    """An encoder in which no image's features depend on the batch, as they do by BatchNorm."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.dim, self.layer = 20, nn.Linear(49, 20)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(F.adaptive_avg_pool2d(images, 7).flatten(1))


def two_steps(name: str, rows: slice) -> dict[str, Tensor]:
    """Losses of two steps, gradients of the second and the buffers after it."""
    torch.manual_seed(0)
    kinds = {
        "dino": lambda: DINO(Linear(), projector=(16,), prototypes=12),
        "swav": lambda: SwAV(Linear(), projector=(16,), prototypes=12, epsilon=0.03, queue=8),
    }
    method: Method = kinds[name]()
    found = {}
    for step in range(2):
        method.zero_grad()
        batch = Batch(crops_of(rows), torch.arange(8)[rows], progress=0.0)
        loss = method.training_step(batch)["loss"]
        loss.backward()
        average_gradients([p for p in method.parameters() if p.requires_grad])
        found[f"loss {step}"] = loss.detach()
    found |= {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
    return {**found, **dict(method.named_buffers())}


def clustering() -> dict[str, Tensor]:
    """What DeepCluster has after two clusterings of pixels."""
    method = small_deepcluster(clusters=6, directions=5)
    for epoch in range(2):
        features = blobs((9, 4, 8, 5, 7, 4), method.encoder.dim) + epoch * drawn(37, method.encoder.dim, seed=9).float()
        method.start_epoch(pool_of(features, seed=epoch))
    kept = ("assignments", "nmi", "classifier.weight")
    return {key: value for key, value in method.state_dict().items() if key in kept}


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    mine = slice(4 * number, 4 * number + 4)
    found = {name: two_steps(name, mine) for name in ("dino", "swav")} | {"deepcluster": clustering()}
    torch.save(found, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("gloo")
    spawn(process, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


@pytest.mark.parametrize("name", ["dino", "swav"])
def test_two_processes_learn_what_one_does(results, name):
    alone = two_steps(name, slice(0, 8))
    first, second = (of_process[name] for of_process in results)
    for key, value in alone.items():
        if key.startswith("loss"):
            torch.testing.assert_close((first[key] + second[key]) / 2, value, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(first[key], second[key]), key
            torch.testing.assert_close(first[key], value, rtol=1e-3, atol=1e-5)
    assert {"dino": "centre", "swav": "queue"}[name] in alone


def test_two_processes_find_the_clusters_of_one(results):
    alone = clustering()
    for of_process in results:
        assert torch.equal(of_process["deepcluster"]["assignments"], alone["assignments"])
        torch.testing.assert_close(of_process["deepcluster"], alone, rtol=1e-3, atol=1e-5)
    assert torch.equal(results[0]["deepcluster"]["classifier.weight"], results[1]["deepcluster"]["classifier.weight"])
