"""Views of volumes, and the ways in which a cube can be turned, against loops."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslflow.data.fields import Fields
from sslflow.data.formats import VolumeFormat
from sslflow.views.orientations import INVERSES, ORIENTATIONS, turned, turned_back, turned_by
from sslflow.views.volumes import (
    Blend,
    Blocks,
    BlockViews,
    Light,
    PlacedVolumeView,
    TwoVolumeViews,
    VolumeCrop,
    VolumeView,
    assembled,
    box_of,
    boxes,
    cut,
    even,
)

FORMAT = VolumeFormat(1, 12, (0.4,), (0.2,))
AS_IT_IS = {"crop": VolumeCrop(1.0), "flip": 0.0, "turn": 0.0, "light": Light(0.0, 0.0, 0.0)}


def volumes(count: int = 6, side: int = 12) -> Tensor:
    numbers = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, side, side, side), dtype=torch.uint8, generator=numbers)


def test_the_orientations_are_the_rotations_of_a_cube_and_the_first_ten_are_about_one_axis() -> None:
    cube = torch.arange(27).view(3, 3, 3)
    found = {tuple(turned(cube, number).flatten().tolist()) for number in range(24)}
    # All that quarter turns can make, one after the other.
    made = {tuple(cube.flatten().tolist())}
    for _ in range(4):
        tensors = [torch.tensor(one).view(3, 3, 3) for one in made]
        made |= {
            tuple(torch.rot90(one, 1, dims).flatten().tolist())
            for one, dims in itertools.product(tensors, ((0, 1), (0, 2), (1, 2)))
        }
    assert len(ORIENTATIONS) == 24
    assert found == made
    about_one = [cube] + [torch.rot90(cube, t, dims) for dims in ((1, 2), (0, 2), (0, 1)) for t in (1, 2, 3)]
    assert all(torch.equal(turned(cube, number), wanted) for number, wanted in enumerate(about_one))


def test_each_volume_is_turned_by_its_own_and_back() -> None:
    given, numbers = volumes(24), torch.arange(24)
    found = turned_by(given, numbers)
    assert all(torch.equal(found[k], turned(given[k], k)) for k in range(24))
    assert torch.equal(turned_back(found, numbers), given)
    assert [INVERSES[INVERSES[k]] for k in range(24)] == list(range(24))


def test_a_small_change_is_a_shift_and_a_mirror_image() -> None:
    given = volumes()
    (same,) = VolumeView(FORMAT, shift=0.0, flip=0.0)(Fields(volumes=given))
    torch.testing.assert_close(same, (given / 255 - 0.4) / 0.2)
    (mirror,) = VolumeView(FORMAT, shift=0.0, flip=1.0)(Fields(volumes=given))
    assert torch.equal(mirror, same.flip(2))
    torch.manual_seed(0)
    view = VolumeView(FORMAT, shift=0.1, flip=0.0)
    (moved,) = view(Fields(volumes=given))
    wide = torch.nn.functional.pad(same, (1,) * 6, mode="reflect")
    windows = [wide[..., x : x + 12, y : y + 12, z : z + 12] for x, y, z in itertools.product(range(3), repeat=3)]
    assert all(any(torch.allclose(moved[i], window[i]) for window in windows) for i in range(6))
    (shown,) = view.shown((same,))
    assert torch.equal(shown, given)


def test_views_without_change_are_the_volume_and_each_change_is_exact() -> None:
    given = volumes()
    whole = (given / 255 - 0.4) / 0.2
    for view in TwoVolumeViews(FORMAT, **AS_IT_IS)(Fields(volumes=given)):
        torch.testing.assert_close(view, whole, rtol=0, atol=1e-5)
    for view in TwoVolumeViews(FORMAT, **{**AS_IT_IS, "flip": 1.0})(Fields(volumes=given)):
        torch.testing.assert_close(view, whole.flip(2, 3, 4), rtol=0, atol=1e-5)
    torch.manual_seed(0)
    for view in TwoVolumeViews(FORMAT, **{**AS_IT_IS, "turn": 1.0})(Fields(volumes=given)):
        for one, was in zip(view, whole, strict=True):
            assert any(torch.allclose(one, turned(was, k), atol=1e-5) for k in range(24))


def test_two_views_differ_and_depend_on_the_seed_alone() -> None:
    given, views = volumes(), TwoVolumeViews(FORMAT)
    torch.manual_seed(1)
    a, b = views(Fields(volumes=given))
    torch.manual_seed(1)
    again, _ = views(Fields(volumes=given))
    assert torch.equal(a, again)
    assert not torch.allclose(a, b)
    assert a.isfinite().all()


def test_light_moves_the_mean_and_scales_around_it() -> None:
    given = volumes(1).expand(50, -1, -1, -1, -1)
    torch.manual_seed(0)
    bright, _ = TwoVolumeViews(FORMAT, **{**AS_IT_IS, "light": Light(0.5, 0.0, 0.0)})(Fields(volumes=given))
    moved = bright - (given / 255 - 0.4) / 0.2
    assert moved.flatten(1).std(dim=1).max() < 1e-4
    assert 0.4 < moved.abs().max() <= 0.5
    hard, _ = TwoVolumeViews(FORMAT, **{**AS_IT_IS, "light": Light(0.0, 0.4, 0.0)})(Fields(volumes=given))
    ratio = hard.flatten(1).std(dim=1) / bright.flatten(1).std(dim=1)
    assert 0.6 - 1e-3 < ratio.min() < 0.75
    assert 1.25 < ratio.max() < 1.4 + 1e-3


def test_a_box_becomes_the_whole() -> None:
    # The value of a voxel is its place along an axis: in a box it runs along the box.
    places = torch.stack(torch.meshgrid(*(torch.arange(12.0),) * 3, indexing="ij")).expand(1, -1, -1, -1, -1)
    sides, centres = torch.tensor([[0.5, 1.0, 0.75]]), torch.tensor([[-0.5, 0.0, 0.25]])
    found = box_of(places, sides, centres)[0]
    along = torch.stack([found[0, :, 0, 0], found[1, 0, :, 0], found[2, 0, 0, :]])
    low = (centres - sides + 1) / 2 * 12
    wanted = (low[0, :, None] + (torch.arange(12) + 0.5) * sides[0, :, None] - 0.5).clamp(0, 11)
    torch.testing.assert_close(along, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["trilinear", "nearest"])
def test_boxes_are_blended_as_torch_blends_them(mode: Blend) -> None:
    torch.manual_seed(0)
    given, (sides, centres) = torch.rand(8, 2, 9, 9, 9), boxes(8, 0.2, torch.device("cpu"))
    mirrors = torch.rand(8, 3) < 0.5
    sides, centres = (torch.where(mirrors, -of, of) for of in (sides, centres))
    # torch counts the axes of a grid from the last one.
    matrix = torch.cat([torch.diag_embed(sides.flip(1)), centres.flip(1)[..., None]], dim=2)
    grid = F.affine_grid(matrix, list(given.shape), align_corners=False)
    way = {"trilinear": "bilinear"}.get(mode, mode)
    wanted = F.grid_sample(given, grid, mode=way, padding_mode="border", align_corners=False)
    torch.testing.assert_close(box_of(given, sides, centres, mode), wanted, rtol=0, atol=1e-5)


def test_boxes_lie_in_the_cube_and_are_as_large_as_asked_for() -> None:
    torch.manual_seed(0)
    sides, centres = boxes(500, 0.125, torch.device("cpu"))
    assert ((centres.abs() + sides) <= 1 + 1e-6).all()
    assert 0.5 <= sides.min() < 0.51
    assert 0.99 < sides.max() <= 1
    assert ((centres.abs() + sides) > 0.999).any()


def test_classes_go_where_their_voxels_go_and_stay_classes() -> None:
    torch.manual_seed(0)
    tissues = torch.arange(8).view(2, 2, 2).repeat_interleave(6, 0).repeat_interleave(6, 1).repeat_interleave(6, 2)
    tissues = tissues.to(torch.uint8).expand(40, -1, -1, -1).contiguous()
    view = PlacedVolumeView(VolumeFormat(1, 12, (0.0,), (1 / 255,)), smallest=0.4, flip=0.5, turn=1.0)
    seen, placed = view(Fields(volumes=tissues[:, None], tissues=tissues))
    assert placed.dtype == torch.uint8
    assert placed.max() <= 7
    # Away from borders the trilinear values are those of the classes.
    assert ((seen[:, 0].round() == placed).float().mean()) > 0.8
    assert len({tuple(one.flatten().tolist()) for one in placed}) > 30


# Blocks


@pytest.mark.parametrize("side", [12, 16, 24])
@pytest.mark.parametrize(("gap", "jitter"), [(0.1, 0.15), (0.3, 0.0), (0.0, 0.25)])
def test_blocks_move_all_over_their_halves_and_leave_the_gap(
    side: int, gap: float, jitter: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each voxel says where it is along one axis, in a channel for each.
    monkeypatch.setattr("sslflow.views.volumes.even", lambda given: given)
    half = side // 2
    free, move = round(gap * half), round(jitter * half)
    place = torch.stack(torch.meshgrid(*(torch.arange(side),) * 3, indexing="ij")).to(torch.uint8)
    views = BlockViews(VolumeFormat(3, side, (0.0,) * 3, (1 / 255,) * 3), blocks=Blocks(gap, jitter), flip=0.0)
    torch.manual_seed(0)
    found, whole = views(Fields(volumes=place.expand(200, -1, -1, -1, -1)))
    assert torch.equal(whole[0], place.float())
    length = half - free - move
    assert found.shape == (200, 8, 3, length, length, length)
    begin, end = found[..., 0, 0, 0].unflatten(1, (2, 2, 2)), found[..., -1, -1, -1].unflatten(1, (2, 2, 2))
    assert torch.equal(end - begin, torch.full_like(begin, length - 1))
    assert begin.min() >= 0
    assert end.max() < side
    assert (begin[:, 1, :, :, 0] - end[:, 0, :, :, 0]).min() - 1 == free
    assert (begin[:, :, 1, :, 1] - end[:, :, 0, :, 1]).min() - 1 == free
    assert (begin[:, :, :, 1, 2] - end[:, :, :, 0, 2]).min() - 1 == free
    assert (begin.amax(dim=0) - begin.amin(dim=0) == move).all()


def test_blocks_that_leave_nothing_are_an_error() -> None:
    with pytest.raises(ValueError, match="leave 3 voxels of 6 to a block"):
        BlockViews(FORMAT, blocks=Blocks(0.3, 0.2))


def test_light_is_taken_from_blocks_and_empty_ones_stay_empty() -> None:
    torch.manual_seed(0)
    made = torch.randn(3, 8, 1, 5, 5, 5)
    torch.testing.assert_close(even(3 * made + 7), even(made))
    torch.testing.assert_close(even(made).std(dim=(3, 4, 5), correction=0), torch.ones(3, 8, 1))
    assert even(torch.full((1, 8, 1, 5, 5, 5), 4.0)).abs().max() == 0


def test_cubes_are_cut_where_they_are_asked_for_and_laid_side_by_side() -> None:
    torch.manual_seed(0)
    given, begin = torch.rand(3, 2, 9, 9, 9), torch.randint(5, (3, 4, 3))
    found = cut(given, begin, 4)
    for volume, number in itertools.product(range(3), range(4)):
        x, y, z = begin[volume, number].tolist()
        assert torch.equal(found[volume, number], given[volume, :, x : x + 4, y : y + 4, z : z + 4])
    whole = assembled(
        cut(torch.rand(2, 1, 8, 8, 8) + 1, torch.cartesian_prod(*(torch.tensor([0, 4]),) * 3).expand(2, -1, -1), 4), 8
    )
    assert whole.shape == (2, 1, 8, 8, 8)
    assert whole.min() >= 1


def test_a_move_of_the_whole_side_is_told() -> None:
    with pytest.raises(ValueError, match=r"views\.shift 1 moves volumes by their whole side"):
        VolumeView(FORMAT, shift=1.0)
    (view,) = VolumeView(FORMAT, shift=0.9)(Fields(volumes=volumes()))
    assert view.shape == (6, 1, 12, 12, 12)
