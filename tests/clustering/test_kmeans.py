"""K-means is as good as scikit-learn's, and the same over several processes."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.multiprocessing.spawn import spawn
from torch.utils._python_dispatch import TorchDispatchMode

from sslflow.clustering import kmeans as module
from sslflow.clustering.kmeans import Metric, TooFewPointsError, assign, kmeans
from sslflow.clustering.points import Points
from sslflow.runtime import parts
from sslflow.runtime.rng import generator
from tests.fakegpu import GPU, fake_gpu

METRICS: tuple[Metric, ...] = get_args(Metric)
RUNS: dict[str, dict] = {
    "euclidean": {"clusters": 10, "metric": "euclidean", "restarts": 2, "iterations": 10},
    "cosine": {"clusters": 10, "metric": "cosine", "restarts": 1, "iterations": 10},
    "minibatch": {"clusters": 10, "metric": "euclidean", "restarts": 1, "iterations": 10, "minibatch_above": 100,
                  "batch_size": 64},
}  # fmt: skip


@pytest.fixture
def pixels(fashion) -> Tensor:
    return torch.from_numpy(fashion[0]).flatten(1).float() / 255


def blobs(centres: int = 5, each: int = 40) -> Tensor:
    """Points around far corners, whose best clustering nobody misses."""
    numbers = torch.Generator().manual_seed(3)
    corners = 20 * F.one_hot(torch.arange(centres)).float() + 5
    return corners.repeat_interleave(each, dim=0) + torch.randn(centres * each, centres, generator=numbers)


@pytest.mark.parametrize("metric", METRICS)
def test_as_good_as_scikit_learn(pixels, metric: Metric):
    from sklearn.cluster import KMeans  # here: the second process of the last test would wait for it

    found = kmeans(pixels, 0, clusters=10, metric=metric, restarts=4)
    points = pixels if metric == "euclidean" else F.normalize(pixels, dim=1)
    other = KMeans(10, n_init=4, random_state=0).fit(points.numpy())  # pyright: ignore[reportArgumentType]
    # scikit-learn's centroids are not of length 1; its inertia is measured as ours is.
    assert found.inertia <= 1.02 * slow(pixels, torch.from_numpy(other.cluster_centers_), metric)


def slow(features: Tensor, centroids: Tensor, metric: Metric) -> float:
    """The inertia, pair by pair."""
    nearest = 0.0
    for feature in features.double():
        if metric == "euclidean":
            table = [(feature - centroid).square().sum() for centroid in centroids.double()]
        else:
            table = [1 - F.cosine_similarity(feature, centroid, dim=0) for centroid in centroids.double()]
        nearest += float(min(table))
    return nearest


@pytest.mark.parametrize("metric", METRICS)
def test_assigning_in_chunks_equals_pair_by_pair(pixels, metric: Metric, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 13)
    rows = pixels[:100]
    found = kmeans(rows, 0, clusters=4, metric=metric, restarts=1)
    assert found.inertia == pytest.approx(slow(rows, found.centroids, metric), rel=1e-5)
    cluster, distance, margin = assign(rows, found.centroids, metric)
    if metric == "euclidean":
        table = (rows[:, None] - found.centroids).double().norm(dim=2)
    else:
        table = 1 - F.cosine_similarity(rows[:, None].double(), found.centroids.double(), dim=2)
    best, order = table.sort(dim=1)
    assert torch.equal(cluster, order[:, 0])
    torch.testing.assert_close(distance.double(), best[:, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(margin.double(), best[:, 1] - best[:, 0], rtol=1e-3, atol=1e-5)
    alone = assign(rows[:3], found.centroids[:1], metric)
    assert alone[2].tolist() == [0.0, 0.0, 0.0]


def test_the_same_from_the_same_seed(pixels):
    first, second = (kmeans(pixels, 5, clusters=10, restarts=1) for _ in range(2))
    assert torch.equal(first.centroids, second.centroids)
    assert not torch.equal(first.centroids, kmeans(pixels, 6, clusters=10, restarts=1).centroids)


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_the_rows_does_not_matter(metric: Metric):
    points = blobs()
    mixed = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
    found = [kmeans(rows, 0, clusters=5, metric=metric).inertia for rows in (points, mixed)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] == pytest.approx(slow(points, points.reshape(5, 40, 5).mean(dim=1), metric), rel=1e-2)


def test_cosine_sees_directions_only(pixels):
    lengths = torch.linspace(0.1, 10, len(pixels))[:, None]
    plain, stretched = (kmeans(rows, 0, clusters=6, restarts=1) for rows in (pixels, lengths * pixels))
    assert plain.inertia == pytest.approx(stretched.inertia, rel=1e-4)
    torch.testing.assert_close(plain.centroids.norm(dim=1), torch.ones(6))


def test_features_far_from_the_origin_lose_nothing():
    points = blobs()
    near, far = (kmeans(rows, 0, clusters=5, metric="euclidean") for rows in (points, points + 3000))
    assert near.inertia == pytest.approx(far.inertia, rel=1e-2)


@pytest.mark.parametrize("metric", METRICS)
def test_a_centroid_without_rows_goes_to_the_furthest_point(metric: Metric, monkeypatch):
    points = blobs()
    # Four of five lie on the other side of the origin and get nothing, however distances are rounded.
    lost = torch.cat([points[:1], -1000 * (1 + torch.eye(5)[:4])])

    monkeypatch.setattr(module, "_seed", lambda own, clusters, numbers: module.prepared(lost, metric, own.centre))
    found = kmeans(points, 0, clusters=5, metric=metric, restarts=1)
    assert found.reseeded >= 4
    assert sorted(assign(points, found.centroids, metric)[0].bincount().tolist()) == [40] * 5


@pytest.mark.parametrize("metric", METRICS)
def test_points_that_move_from_sum_to_sum_add_up_to_the_sums_of_all(pixels, metric: Metric, monkeypatch):
    """Held, in parts, and in blocks of few rows: the same steps as from points that are made and added up each time."""
    settings = {"clusters": 12, "metric": metric, "restarts": 1, "tolerance": 0.0}
    found = [kmeans(pixels, 0, **settings)]
    monkeypatch.setattr(module, "ADDED", 100 * 784)
    monkeypatch.setattr(module, "SMALLEST", 7)
    monkeypatch.setattr(module, "CELLS", {"cpu": 0})
    found.append(kmeans(pixels, 0, **settings))
    monkeypatch.setattr(parts, "HELD", 0)
    found.append(kmeans(pixels, 0, **settings))
    for other in found[1:]:
        assert other.inertia == pytest.approx(found[0].inertia, rel=1e-6)
        assert other.iterations == found[0].iterations > 3
        torch.testing.assert_close(other.centroids, found[0].centroids, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("free", [0, 2**30])
def test_an_iteration_is_read_once_from_a_gpu(metric: Metric, free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of points on the CPU as of those that are held: what is read is the last step, whether to go on."""
    monkeypatch.setattr(module, "CELLS", {"cuda": 0})
    monkeypatch.setattr(module, "ADDED", 600 * 8)
    with fake_gpu(free):
        points = object.__new__(Points)  # to make some, their number is read
        points.__dict__.update(metric=metric, device=GPU, total=1000, squared_length=1.0)
        points.features = parts.held(torch.randn(1000, 8), GPU)
        points.centre = torch.zeros(8, device=GPU)
        assert points.features.device == (GPU if free else torch.device("cpu"))
        points.hold()
        assert (points.held is None) == (free == 0)
        centroids = torch.randn(5, 8, device=GPU)
        with pytest.raises(DataDependentOutputException) as caught:
            module._lloyd(points, centroids, 3, 0.0)
        assert "torch.stack" in str(caught.traceback[1].statement)


def test_minibatches_are_nearly_as_good(pixels):
    whole = kmeans(pixels, 0, clusters=10, metric="euclidean")
    batches = kmeans(pixels, 0, clusters=10, metric="euclidean", minibatch_above=511, batch_size=128)
    assert batches.inertia <= 1.05 * whole.inertia
    assert whole.inertia <= batches.inertia


class Passes(TorchDispatchMode):
    """Counts the tensors made that have as many entries as all points together."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries, self.count = entries, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.count += isinstance(made, Tensor) and made.numel() >= self.entries
        return made


@pytest.mark.parametrize("metric", METRICS)
def test_seeding_goes_over_the_points_once_for_a_centroid_whatever_their_number(metric: Metric) -> None:
    """A product for all candidates, and nothing of the size of all points: differences took 20 such passes a centroid,
    and 37 seconds for 1,100 centroids of 2,200 points."""
    points = torch.randn(300, 64, generator=torch.Generator().manual_seed(0)).relu()
    counts = []
    for clusters in (20, 150):
        with Passes(points.numel()) as passes:
            module._seed(Points(points, metric), clusters, generator(0, "kmeans"))
        counts.append(passes.count)
    assert counts[0] == counts[1] < 20


@pytest.mark.parametrize("budget", [0, parts.HELD])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_the_same_point_is_told_from_one_that_is_near(monkeypatch, budget: int, offset: float) -> None:
    monkeypatch.setattr(parts, "HELD", budget)
    points = torch.randn(40, 300, generator=torch.Generator().manual_seed(0)) + offset
    near = points[:1] * (1 + 1e-4)
    found = Points(torch.cat([points, points[:1], near]), "euclidean", torch.zeros(300))
    distances = found.squared_distances(found.at(torch.arange(42)))
    same = module.SAME**2 * float(points.square().sum(dim=1).mean())
    assert float(distances[0, 40]) < same
    assert float(distances[0, 41]) > same
    exact = (points[:, None].double() - points[None].double()).square().sum(dim=2)
    torch.testing.assert_close(distances[:40, :40], exact, rtol=1e-6, atol=same)


def test_seeding_from_a_sample_finds_rare_points(monkeypatch):
    monkeypatch.setattr(module, "SEEDED_FROM", 50)
    rare = torch.cat([torch.zeros(3000, 2), torch.eye(2)])
    found = kmeans(rare, 0, clusters=3, metric="euclidean", restarts=1)
    assert found.inertia == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(pixels, wrong):
    pixels[[3, 7], 5] = wrong
    with pytest.raises(ValueError, match=r"not finite .* in 2 rows"):
        kmeans(pixels, 0, clusters=3)
    with pytest.raises(ValueError, match="in 2 rows"):
        assign(pixels, torch.eye(784)[:3])


@pytest.mark.parametrize("metric", METRICS)
def test_more_clusters_than_distinct_points_are_refused(pixels, metric: Metric):
    rows = pixels[:4].repeat(3, 1)
    with pytest.raises(TooFewPointsError, match="5 clusters of 4 distinct points") as caught:
        kmeans(rows, 0, clusters=5, metric=metric)
    assert caught.value.distinct == 4
    assert kmeans(rows, 0, clusters=4, metric=metric).inertia == pytest.approx(0.0, abs=1e-3)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        kmeans(torch.empty(0, 3), 0, clusters=2)


def process(number: int, folder: str, pixels: Tensor) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    mine = pixels[:200] if number == 0 else pixels[200:]
    found = {name: kmeans(mine, 0, **settings) for name, settings in RUNS.items()}
    results: dict = {name: (one.inertia, one.centroids) for name, one in found.items()}
    for name, rows, clusters in (("few", pixels[:3], 4), ("nan", pixels[:3] / (1 - number), 2)):
        try:
            kmeans(rows, 0, clusters=clusters)
        except ValueError as error:
            results[name] = str(error)
    torch.save(results, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_find_what_one_finds(pixels, tmp_path):
    pixels = pixels[:, ::7]
    spawn(process, args=(str(tmp_path), pixels), nprocs=2)
    first, second = (torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2))
    for name, settings in RUNS.items():
        alone = kmeans(pixels, 0, **settings)
        assert first[name][0] == pytest.approx(alone.inertia, rel=1e-5)
        torch.testing.assert_close(first[name][1], alone.centroids, rtol=1e-3, atol=1e-4)
        assert torch.equal(first[name][1], second[name][1])
    assert first["few"] == second["few"]
    assert "4 clusters of 3 distinct points" in first["few"]
    assert "in 3 rows" in first["nan"]
    assert first["nan"] == second["nan"]
