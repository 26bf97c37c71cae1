from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from data_fixtures import fill

from sslflow.data.dataset import Dataset
from sslflow.data.seen import Seen
from sslflow.features.extract import extract
from sslflow.ingest.images import encoded
from sslflow.ingest.images.prepare import prepare
from sslflow.networks.encoder import Encoder
from sslflow.views.images import MultiCrop, TwoViews

CPU = torch.device("cpu")


def prepared(tmp_path, out: str, **settings: Any) -> Dataset:
    made = {"image_size": 56, "channels": 3, "workers": 1, "source": "folder", "path": str(tmp_path / "raw")}
    prepare(tmp_path / out, lambda line: None, **made | settings)
    return Dataset(tmp_path / out)


@pytest.fixture
def both(tmp_path, monkeypatch) -> tuple[Dataset, Dataset]:
    """The same images kept as pixels, and as JPEG in several shards."""
    fill(tmp_path / "raw", 12)
    monkeypatch.setattr(encoded, "SHARD_BYTES", 16_000)
    return prepared(tmp_path, "raw_shards"), prepared(tmp_path, "jpeg", store="jpeg", quality=95)


def test_images_kept_as_jpeg_are_those_kept_as_pixels_but_for_its_losses(both) -> None:
    raw, jpeg = both
    assert jpeg.stored
    assert jpeg.stored.side == 64
    assert len(list(jpeg.folder.glob("images-*.jpegs"))) > 1
    assert not list(jpeg.folder.glob("*.npy"))
    for column in ("row", "path", "split", "label", "sha256", "pixels", "width"):
        assert (raw.column(column) == jpeg.column(column)).all()
    rows = np.array([7, 0, 11, 7])
    there, here = raw.read(rows)["images"].float(), jpeg.read(rows)["images"].float()
    assert here.shape == there.shape == (4, 3, 56, 56)
    assert (there - here).abs().mean() < 3 < (there - there.roll(1, 0)).abs().mean()
    assert np.allclose(jpeg.format.mean, raw.format.mean, atol=0.01)
    assert np.allclose(jpeg.format.std, raw.format.std, atol=0.02)


def test_neither_threads_nor_workers_change_what_is_read(both, tmp_path) -> None:
    _, jpeg = both
    rows, before = np.arange(12), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(jpeg.for_views(True, CPU).read(rows)["images"])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    again = prepared(tmp_path, "again", store="jpeg", quality=95, workers=2)
    for file in jpeg.folder.iterdir():
        assert file.read_bytes() == (again.folder / file.name).read_bytes()


def test_views_that_crop_see_all_that_is_kept_and_encoders_their_own_size(both) -> None:
    _, jpeg = both
    rows = np.arange(4)
    larger = jpeg.for_views(True, CPU)
    fields = larger.read(rows)
    assert fields["images"].shape[-1] == 64
    assert jpeg.for_views(False, CPU).read(rows)["images"].shape[-1] == 56
    for kind in (TwoViews, MultiCrop):
        assert kind.resizes
        assert kind(jpeg.format)(fields)[0].shape == (4, 3, 56, 56)
    assert torch.equal(Seen(jpeg.format)(fields), Seen(jpeg.format)(jpeg.read(rows)))
    encoder = Encoder(3, 56, width=4)
    assert np.array_equal(extract(encoder, larger, rows, CPU), extract(encoder, jpeg, rows, CPU))


@pytest.mark.parametrize("harm", ["flipped", "cut"])
def test_a_damaged_shard_is_named_with_what_mends_it(harm: str, both) -> None:
    jpeg = Dataset(both[1].folder)
    file = jpeg.folder / "images-00001.jpegs"
    content = bytearray(file.read_bytes())
    if harm == "flipped":
        content[len(content) // 2] ^= 4
    file.write_bytes(content[:-100] if harm == "cut" else content)
    jpeg.read(np.array([0]))
    with pytest.raises(ValueError, match=rf"{file}: damaged.* (ends after|not those)"):
        jpeg.read(np.arange(12))


def test_settings_that_do_not_go_together_are_said(tmp_path) -> None:
    fill(tmp_path / "raw", 2)
    for wrong, said in (
        ({"stored_side": 64}, "store to jpeg"),
        ({"store": "jpeg", "stored_side": 40}, "56 or more"),
        ({"store": "jpeg", "depth": "maps"}, "store to raw"),
    ):
        with pytest.raises(ValueError, match=said):
            prepared(tmp_path, "out", **wrong)


@pytest.mark.parametrize(("size", "side"), [(224, 256), (96, 112), (32, 40)])
def test_an_eighth_more_is_kept_than_is_trained_on(size: int, side: int) -> None:
    assert encoded.kept_side("jpeg", 0, size) == side
