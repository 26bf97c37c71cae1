"""Views of clips, and what is particular to methods for clips; what every method must do is in test_conformance.py."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from sslflow.audiovisual.method import ClipMethod, OwnTask, PairMethod, find, names
from sslflow.audiovisual.views import ClipViews, ClipWindowViews, Sound, chosen_frames, cut_sounds, partners
from sslflow.data.fields import Fields
from sslflow.methods.clips.alignment import (
    Alignment,
    AlignmentViews,
    nearness,
    others_of,
    over_cells,
)
from sslflow.methods.clips.correspondence import Correspondence, correspondence_loss
from sslflow.methods.clips.synchrony import Synchrony, SynchronyViews, synchrony_loss
from sslflow.methods.clips.temporal_order import RIGHT, WRONG, OrderViews, TemporalOrder, motions
from sslflow.networks.encoder import Encoder
from sslflow.networks.symmetric import both_ways
from sslflow.runtime.distributed import average_gradients, gather
from sslflow.training.fit import fit
from sslflow.training.method import Batch, Pool
from sslflow.views.strengths import Crop
from tests.av_fixtures import FPS, RATE, SECONDS, MemoryClips
from tests.cases import clip_case

FRAMES = {"alignment": 1, "ambient_sound": 1, "correspondence": 1, "supervised": 1}
"""Of each clip so many are read; for other methods all."""


@pytest.fixture(scope="module")
def clips() -> MemoryClips:
    return MemoryClips(24)


def make(name: str, clips: MemoryClips) -> tuple[ClipMethod, ClipViews]:
    case = clip_case(name, clips=clips)
    assert isinstance(case.method, ClipMethod)
    assert isinstance(case.views, ClipViews)
    return case.method, case.views


def batch(views: ClipViews, clips: MemoryClips, count: int = 12) -> Batch:
    torch.manual_seed(1)
    rows = clips.pretraining_rows[:count]
    return Batch(views(clips.read(rows)), torch.arange(count), progress=0.4)


@pytest.mark.parametrize("name", names())
def test_views_in_evaluation_change_nothing(name, clips):
    _, views = make(name, clips)
    raw = clips.read(clips.pretraining_rows[:6])
    views.eval()
    frames = views(raw)[0]
    known = views.normalise(raw["frames"].flatten(0, 1)).flatten(1)
    for frame in frames.flatten(0, -4).flatten(1):  # each is one of the clips'
        assert float((frame - known).abs().amax(dim=1).amin()) < 1e-5


@pytest.mark.parametrize("name", names())
def test_views_of_the_frames_that_are_read_for_them_are_those_of_whole_clips(name, clips):
    _, views = make(name, clips)
    rows = clips.pretraining_rows[:12]
    read = views.read(clips, rows, torch.Generator().manual_seed(3))
    assert ("frame_numbers" in read) == (read["frames"].shape[1] < clips.format.frames) == (name in FRAMES)
    assert read["frames"].shape[1] == FRAMES.get(name, clips.format.frames)
    found = []
    for fields in (read, clips.read(rows)):
        torch.manual_seed(3)
        found.append(views(fields))
    assert all(torch.equal(part, whole) for part, whole in zip(*found, strict=True))


def test_the_loop_draws_windows_when_it_reads_as_views_do_later(clips, monkeypatch):
    def losses() -> list[float]:
        method, views = make("alignment", clips)
        steps = fit(method, views, clips, torch.device("cpu"), 5, epochs=2, batch_size=12, lr=1e-3)
        return [float(step.losses["loss"]) for step in steps]

    some = losses()
    monkeypatch.delattr(ClipWindowViews, "read")
    assert losses() == some
    assert len(some) == 2 * (len(clips.pretraining_rows) // 12) >= 2


def test_a_frame_that_was_not_read_is_an_error(clips):
    read = clips.read(clips.pretraining_rows[:3], torch.tensor([[0, 4], [1, 4], [2, 4]]))
    shown = chosen_frames(read, clips.format, torch.tensor([[0, 4], [1, 4], [4, 2]]) / FPS)
    assert torch.equal(shown[:2], read["frames"][:2])
    assert torch.equal(shown[2], read["frames"][2].flip(0))
    with pytest.raises(IndexError):
        chosen_frames(read, clips.format, torch.tensor([0, 2, 2]) / FPS)


@pytest.mark.parametrize("name", [name for name in names() if issubclass(find(name), PairMethod)])
def test_scores_of_pairs_are_entries_of_the_table(name, clips):
    method, views = make(name, clips)
    assert isinstance(method, PairMethod)
    method.eval()
    starts = torch.linspace(0, views.span, 6)
    raw = clips.read(clips.pretraining_rows[:6])
    with torch.no_grad():
        pictures = method.embed_pictures(views.pictures(raw, starts))
        sounds = method.embed_sounds(views.sounds(raw, starts))
        table = method.table(pictures, sounds[:4])
        assert table.shape == (6, 4)
        torch.testing.assert_close(method.scores(pictures[1:4], sounds[:3]), table[1:4, :3].diagonal())
        if method.localises:
            maps = method.localise(views.pictures(raw, starts), views.sounds(raw, starts))
            assert maps.shape == (6, 2, 2)
            assert maps.isfinite().all()


def test_unknown_method_is_named_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'synchrony'"):
        find("synchronie")


# Partners, windows and what they tell


@pytest.mark.parametrize("sizes", [(1, 1), (3, 3), (5, 1, 1, 1, 2), (2, 2, 2, 1), (1,) * 9, (4, 2, 2)])
def test_partners_are_of_other_sources_and_each_clip_is_one_once(sizes):
    sources = torch.repeat_interleave(torch.arange(len(sizes)) * 7, torch.tensor(sizes))
    for seed in range(40):
        torch.manual_seed(seed)
        mixed = sources[torch.randperm(len(sources))]
        for found in partners(mixed, 3).T:
            assert sorted(found.tolist()) == list(range(len(sources)))
            assert (mixed[found] != mixed).all()


@pytest.mark.parametrize("sizes", [(4, 1, 1), (7, 2), (5,), (1,)])
def test_what_has_no_partner_is_left_out_of_both_sides(sizes):
    sources = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    found = partners(sources)[:, 0]
    kept = found >= 0
    rest = len(sources) - max(sizes)
    assert int(kept.sum()) == 2 * rest
    assert sorted(found[kept].tolist()) == kept.nonzero()[:, 0].tolist()
    assert (sources[found[kept]] != sources[kept]).all()


def test_several_partners_differ_as_far_as_there_are_so_many_distances():
    found = partners(torch.arange(5), 4)
    assert all(sorted(row) == [j for j in range(5) if j != i] for i, row in enumerate(found.tolist()))
    two = partners(torch.tensor([0, 0, 1, 1]), 3)
    assert two.shape == (4, 3)
    assert (two[0] >= 2).all()


def test_all_partners_are_as_likely():
    torch.manual_seed(0)
    counts = torch.zeros(4, 4)
    for _ in range(3000):
        counts[torch.arange(4), partners(torch.arange(4))[:, 0]] += 1
    assert (counts.diagonal() == 0).all()
    assert ((counts / 3000)[~torch.eye(4).bool()] - 1 / 3).abs().max() < 0.04


def test_a_correspondence_batch_of_one_source_teaches_nothing(clips):
    method, views = make("correspondence", clips)
    raw = clips.read(clips.pretraining_rows[:2])  # both of the first video
    loss = method.training_step(Batch(views(raw), torch.arange(2), progress=0.0))["loss"]
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in method.parameters())


def test_correspondence_shows_each_frame_in_several_wrong_pairs_that_count_as_much_as_the_right_one(clips):
    """Against a slow reference, in a batch of which one clip is left out: three of one source, two of another."""
    method, views = make("correspondence", clips)
    raw = clips.read(clips.pretraining_rows[:5])
    raw = Fields(frames=raw["frames"], sound=raw["sound"], groups=torch.tensor([0, 0, 0, 1, 1]))
    frames, sounds, others = views(raw)
    assert others.shape == (5, 8)
    assert int((others < 0).all(dim=1).sum()) == 1
    method.eval()  # so that a pair's score doesn't depend on the others
    assert isinstance(method, Correspondence)
    with torch.no_grad():
        pictures, heard = method.embed_pictures(frames), method.embed_sounds(sounds)
        losses = []
        for clip, row in enumerate(others.tolist()):
            for other in row:
                if other >= 0:
                    pair = method.scores(pictures[clip].expand(2, -1), heard[[clip, other]])
                    losses.append(math.log1p(math.exp(-float(pair[0]))) + math.log1p(math.exp(float(pair[1]))))
        loss = method.training_step(Batch((frames, sounds, others), torch.arange(5), progress=0.0))["loss"]
    assert float(loss) == pytest.approx(sum(losses) / len(losses) / 2, rel=1e-5)


def test_synchrony_sees_of_frames_only_what_changes(clips):
    method, _ = make("synchrony", clips)
    assert isinstance(method, Synchrony)
    method.eval()
    still = torch.rand(2, 1, 3, 32, 32).expand(-1, 6, -1, -1, -1)  # two pictures, each shown six times
    with torch.no_grad():
        found = method.embed_pictures(still)
        moving = method.embed_pictures(torch.rand(1, 6, 3, 32, 32))
    assert found.shape[2] == 5
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], moving[0], atol=1e-3)


def ramps(count: int = 64) -> Fields:
    """Clips of which each frame's grey level and each sample is the time since the clip's start."""
    frames = torch.arange(round(SECONDS * FPS)).view(1, -1, 1, 1, 1).expand(count, -1, 3, 32, 32) * 10
    sound = torch.arange(round(SECONDS * RATE)).expand(count, -1)
    return Fields(frames=frames.to(torch.uint8), sound=sound.to(torch.int16), groups=torch.arange(count))


def test_the_frame_is_the_one_nearest_the_middle_of_its_sound(clips):
    views = AlignmentViews(clips.format)
    raw, starts = ramps(), views.starts(64)
    assert starts.min() >= 0
    assert starts.max() <= views.span
    middle = cut_sounds(raw, clips.format, starts, views.window).double().mean(dim=1) / RATE
    shown = chosen_frames(raw, clips.format, starts + views.window / 2)[:, 0, 0, 0].double() / 10 / FPS
    assert (middle - shown).abs().max() <= 0.5 / FPS + 1 / RATE


def test_window_times_are_spread_evenly(clips):
    torch.manual_seed(0)
    starts = AlignmentViews(clips.format).starts(4000) / (SECONDS - 1.0)
    assert (starts.histc(8, 0, 1) / 4000 - 1 / 8).abs().max() < 0.02


def test_both_windows_of_synchrony_are_apart_and_have_one_distribution(clips):
    torch.manual_seed(0)
    views = SynchronyViews(clips.format, gap=0.7)
    both = views.two_starts(4000)
    assert ((both[:, 0] - both[:, 1]).abs() >= 0.7 - 1e-6).all()
    assert both.min() >= 0
    assert both.max() <= views.span
    first, second = (both[:, k].histc(8, 0, views.span) / 4000 for k in (0, 1))
    assert (first - second).abs().max() < 0.03


def test_frames_of_a_window_share_crop_and_flip(clips):
    """One frame, shown at all times of a window: were it cropped anew each time, the frames would differ."""
    views = SynchronyViews(clips.format, crop=Crop(0.4))
    raw = clips.read(clips.pretraining_rows[:8])
    first = raw["frames"][:, :1].expand_as(raw["frames"]).contiguous()
    still = Fields(frames=first, sound=raw["sound"], groups=raw["groups"])
    frames = views(still)[0]
    assert torch.allclose(frames[:, :, :1], frames[:, :, :1, :1].expand_as(frames[:, :, :1]), atol=10)
    torch.testing.assert_close(frames[:, 0, 1:], frames[:, 0, :1].expand_as(frames[:, 0, 1:]))
    assert not torch.allclose(frames[:, 0, 0], frames[:, 1, 0])  # two windows, two crops


def test_gain_is_drawn_for_each_sound_and_masks_hide_what_they_say(clips):
    raw = ramps(32)
    tone = (8000 * torch.sin(torch.arange(raw["sound"].shape[1]) * 0.3)).to(torch.int16).expand(32, -1)
    raw = Fields(frames=raw["frames"], sound=tone.contiguous(), groups=raw["groups"])
    plain = AlignmentViews(clips.format, sound=Sound(0.0, 0.0, 0.0))
    louder = AlignmentViews(clips.format, sound=Sound(10.0, 0.0, 0.0))
    starts = torch.zeros(32)
    peaks = [views.sounds(raw, starts).amax(dim=(1, 2, 3)) for views in (plain, louder)]
    assert peaks[0].std() < 1e-5
    decibels = (peaks[1] - peaks[0]) * 4 * 10 / math.log(10)
    assert -10.01 <= decibels.min() < -4
    assert 4 < decibels.max() <= 10.01
    masked = AlignmentViews(clips.format, sound=Sound(0.0, 0.3, 0.0)).sounds(raw, starts)
    hidden = ((masked - masked[:, :, :1]).abs().amax(dim=2) == 0).float().mean(dim=(1, 2))
    assert 0.05 < hidden.mean() < 0.25
    assert hidden.max() <= 0.3


def test_windows_that_don_t_fit_are_said_in_plain_words(clips):
    with pytest.raises(ValueError, match=r"a window of 5 s does not fit into clips of 3 s"):
        AlignmentViews(clips.format, window=5.0)
    with pytest.raises(ValueError, match=r"two windows of 1 s that begin 2.5 s apart do not fit"):
        SynchronyViews(clips.format, gap=2.5)
    with pytest.raises(ValueError, match=r"three frames 2 s apart do not fit"):
        OrderViews(clips.format, step=2.0)


# Order


def test_right_and_wrong_orders_show_the_same_frames_and_differ_in_the_middle():
    assert {order[1] for order in RIGHT} == {1}
    assert {order[1] for order in WRONG} == {0, 2}
    assert len({*RIGHT, *WRONG}) == 6


def test_clips_without_motion_are_left_out(clips):
    raw = clips.read(clips.pretraining_rows[:6])
    frames = raw["frames"].clone()
    frames[:3] = frames[:3, :1]
    views = OrderViews(clips.format, step=1.0)
    _, _, moving = given = views(Fields(frames=frames, sound=raw["sound"], groups=raw["groups"]))
    assert moving.tolist() == [False] * 3 + [True] * 3
    method = TemporalOrder(Encoder(3, 32, name="resnet10", width=8, stem_stride=2))
    _, right, about = method.answers(Batch(given, torch.arange(6), 0.0))
    assert about.tolist() == [3, 3, 4, 4, 5, 5]
    assert right.tolist() == [1, 0] * 3
    still = (given[0], given[1], torch.zeros(6, dtype=torch.bool))
    assert float(method.training_step(Batch(still, torch.arange(6), 0.0))["loss"].detach()) == 0.0


def test_motion_is_the_least_of_the_three_differences():
    frames = torch.zeros(1, 5, 3, 4, 4, dtype=torch.uint8)
    frames[0, 1:] += 10
    frames[0, 2:] += 20
    frames[0, 4] = 10
    found = motions(frames, 1)[0]
    assert found.tolist() == [10.0, 0.0, 0.0]  # 0-10-30, 10-30-30, 30-30-10


# Losses


def test_correspondence_loss_is_the_mean_cross_entropy_and_has_its_gradient():
    torch.manual_seed(0)
    own, other = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    slow = [-math.log(1 / (1 + math.exp(-x))) for x in own.tolist()]
    slow += [-math.log(1 - 1 / (1 + math.exp(-x))) for x in other.tolist()]
    assert float(correspondence_loss(own, other).detach()) == pytest.approx(sum(slow) / 10)
    assert torch.autograd.gradcheck(correspondence_loss, (own, other))
    assert float(correspondence_loss(torch.zeros(3), torch.zeros(3))) == pytest.approx(math.log(2))


def test_both_ways_equals_the_slow_reference():
    torch.manual_seed(0)
    logits = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    sources = torch.tensor([0, 1, 0, 2, 2, 2])
    total = 0.0
    for table in (logits.tolist(), logits.T.tolist()):
        for i in range(6):
            open_to = [j for j in range(6) if j == i or sources[j] != sources[i]]
            total -= math.log(math.exp(table[i][i]) / sum(math.exp(table[i][j]) for j in open_to)) / 12
    hidden = others_of(sources)
    assert float(both_ways(logits, hidden).detach()) == pytest.approx(total)
    assert torch.autograd.gradcheck(lambda x: both_ways(x, hidden), (logits,))


@pytest.mark.parametrize("over", ["max", "softmax", "mean"])
def test_nearness_is_that_of_the_nearest_cells_or_the_mean(over):
    torch.manual_seed(0)
    cells, sounds = F.normalize(torch.randn(3, 4, 5), dim=1), F.normalize(torch.randn(2, 4), dim=1)
    table = nearness(cells, sounds, over, 0.2)
    for i in range(3):
        for j in range(2):
            each = [float(cells[i, :, k] @ sounds[j]) for k in range(5)]
            soft = 0.2 * math.log(sum(math.exp(one / 0.2) for one in each) / 5)
            expected = {"max": max(each), "softmax": soft, "mean": sum(each) / 5}[over]
            assert float(table[i, j]) == pytest.approx(expected, abs=1e-6)


def test_softmax_lies_between_the_mean_and_the_nearest_cell():
    torch.manual_seed(0)
    similarity = 2 * torch.rand(50, 9, dtype=torch.float64) - 1
    cold, warm = (over_cells(similarity, "softmax", temperature) for temperature in (1e-3, 1e3))
    torch.testing.assert_close(cold, over_cells(similarity, "max", 0.1), atol=3e-3, rtol=0)
    torch.testing.assert_close(warm, over_cells(similarity, "mean", 0.1), atol=1e-3, rtol=0)
    similarity.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: over_cells(x, "softmax", 0.1), (similarity,))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_synchrony_loss_equals_the_slow_reference(weight):
    torch.manual_seed(0)
    logits = torch.randn(8, 8, dtype=torch.float64, requires_grad=True)
    sources = torch.tensor([5, 1, 5, 2])
    total = 0.0
    for table in (logits.tolist(), logits.T.tolist()):
        for i in range(8):
            below = 0.0
            for j in range(8):
                if j == i or sources[i // 2] != sources[j // 2]:
                    below += math.exp(table[i][j])
                elif i // 2 == j // 2:
                    below += weight * math.exp(table[i][j])
            total -= math.log(math.exp(table[i][i]) / below) / 16
    assert float(synchrony_loss(logits, sources, weight).detach()) == pytest.approx(total)
    assert torch.autograd.gradcheck(lambda x: synchrony_loss(x, sources, weight), (logits,))


def test_harder_wrong_answers_of_synchrony_come_in_with_time():
    encoders = Encoder(3, 32, name="resnet10", width=4), Encoder(1, 64, name="resnet10", width=4)
    method = Synchrony(*encoders, easy=0.2, all=0.5)
    assert [method.weight(progress) for progress in (0.0, 0.2, 0.35, 0.5, 1.0)] == pytest.approx(
        [0.0, 0.0, 0.5, 1.0, 1.0]
    )
    at_once = Synchrony(*encoders, easy=0.0, all=0.0)
    assert [at_once.weight(progress) for progress in (0.0, 0.5)] == [1.0, 1.0]


def test_kinds_of_sound_stay_and_are_those_of_sound_alone(clips):
    method, views = make("ambient_sound", clips)
    centroids = method.state_dict()["centroids"].clone()
    _, right, _ = method.answers(batch(views, clips, 24))  # pyright: ignore[reportCallIssue]
    labels = clips.labels[clips.pretraining_rows[:24]]
    for kind in right.unique().tolist():
        assert len(set(labels[(right == kind).numpy()])) == 1, "two tones in one cluster"
    method.start_epoch(Pool(8, torch.arange(8), lambda: torch.zeros(0), seed=9))
    assert torch.equal(method.state_dict()["centroids"], centroids)


@pytest.mark.parametrize("name", ["ambient_sound", "supervised"])
def test_chance_level_is_the_entropy_of_the_answers(name, clips):
    method, views = make(name, clips)
    given = batch(views, clips, len(clips.pretraining_rows))
    losses = method.training_step(given)
    answers = method.answers(given)[1] if isinstance(method, OwnTask) else method.get_buffer("labels")
    shares = answers.bincount()[answers.unique()] / len(answers)
    torch.testing.assert_close(losses["chance_loss"], -(shares * shares.log()).sum(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["chance_accuracy"], shares.max())


# Several processes


def alignment_loss(rows: slice) -> tuple[Tensor, Tensor]:
    """Loss and gradient of a linear head, with what this process has of eight clips' cells and sounds."""
    numbers = torch.Generator().manual_seed(0)
    cells, sounds = torch.randn(8, 6, 3, generator=numbers), torch.randn(8, 6, generator=numbers)
    weights = torch.nn.Parameter(torch.randn(5, 6, generator=numbers))
    sources = torch.tensor([0, 1, 2, 2, 0, 3, 4, 2])
    pictures = gather(F.normalize(weights @ cells[rows], dim=1))
    heard = gather(F.normalize(sounds[rows] @ weights.T, dim=1))
    hidden = others_of(gather(sources[rows]))
    loss = both_ways(nearness(pictures, heard, "max", 0.1) / 0.1, hidden)
    loss.backward()
    average_gradients([weights])
    assert weights.grad is not None
    return loss.detach(), weights.grad


def process(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    torch.save(alignment_loss(slice(4 * number, 4 * number + 4)), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_loss_and_the_gradients_of_one(tmp_path):
    spawn(process, args=(str(tmp_path),), nprocs=2)
    loss, gradient = alignment_loss(slice(0, 8))
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        torch.testing.assert_close(found[0], loss)
        torch.testing.assert_close(found[1], gradient)


def test_alignment_gathers_what_it_compares(clips, monkeypatch):
    """The test above gathers by itself; the method must do so, too: its frames, its sounds and their sources."""
    seen = []

    def noted(rows: Tensor) -> Tensor:
        seen.append(rows.shape)
        return rows

    monkeypatch.setattr("sslflow.methods.clips.alignment.gather", noted)
    method, views = make("alignment", clips)
    assert isinstance(method, Alignment)
    method.training_step(batch(views, clips))
    assert seen == [(12, 128, 4), (12, 128), (12,)]
