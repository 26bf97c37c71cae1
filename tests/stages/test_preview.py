from __future__ import annotations

import itertools
import json

import fakerun
import numpy as np
import pytest
import torch
from PIL import Image

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.fields import Fields
from sslflow.data.formats import ImageFormat
from sslflow.judging.throughput import Rates, measure
from sslflow.networks.encoder import Encoder
from sslflow.settings.params import ParamsError
from sslflow.stages import preview
from sslflow.views.images import TwoViews
from sslflow.views.strengths import Blur, Colour, Crop

PARAMS = """
compute: {device: cpu, threads: 1}
encoder: {name: resnet10, width: 4}
preview: {images: 3, views: 4, seconds: 0.2}
methods:
  simclr: {train: {epochs: 1, batch_size: 16, lr: 1e-3}, views: {blur: {p: 0.0}}}
"""
CHOICES = list(itertools.product(("fp32", "bf16"), ("channels_last", "contiguous")))


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    fakerun.dataset(paths.PREPARED, {"pool": 10}, size=16)
    yield
    torch.use_deterministic_algorithms(False)


def test_sheet_and_rates(prepared, capsys):
    preview.main("simclr")
    with Image.open(paths.views("simclr")) as sheet:
        assert sheet.width > 5 * 4 * 16  # the image and four views, each drawn four times as wide
        assert sheet.height > 3 * 4 * 16
        assert np.asarray(sheet).std() > 10
    rates = json.loads(paths.metrics("preview", "simclr").read_text())
    assert set(rates) == {"views", *(f"encoder_{precision}_{memory}" for precision, memory in CHOICES)}
    assert all(rate > 0 for rate in rates.values())
    assert "3 images and their views" in capsys.readouterr().out


def test_the_sheet_is_the_same_each_time(prepared):
    preview.main("simclr")
    first = paths.views("simclr").read_bytes()
    torch.rand(7)
    preview.main("simclr")
    assert paths.views("simclr").read_bytes() == first


def test_the_first_column_is_the_image_as_prepared(prepared, monkeypatch):
    shown = {}
    monkeypatch.setattr(preview, "contact_sheet", lambda images, **words: shown.update(words, images=images))
    dataset = Dataset()
    views = TwoViews(dataset.format, crop=Crop(1.0), flip=0, colour=Colour(jitter=0), blur=Blur(p=0))
    preview.sheet_of(views, dataset, np.array([4, 2]), torch.device("cpu"), 2)
    assert shown["columns"] == 3
    assert shown["column_labels"] == ["image", "view 1", "view 2"]
    images = shown["images"].reshape(2, 3, 1, 16, 16).int()
    assert torch.equal(images[:, 0], dataset.read(np.array([4, 2]))["images"].int())
    # Nothing is augmented here but a crop of the ratio's own choosing: colours come back as they were.
    assert (images[:, 1].float().mean() - images[:, 0].float().mean()).abs() < 15


def test_misspelt_settings_are_told(prepared, tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS.replace("images: 3", "imagse: 3").replace("p: 0.0", "p: 7"))
    with pytest.raises(ParamsError) as error:
        preview.main("simclr")
    assert "did you mean 'images'" in str(error.value)
    assert "methods.simclr.views.blur.p" in str(error.value)


def test_no_images_to_pretrain_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    fakerun.dataset(paths.PREPARED, {"test": 3})
    with pytest.raises(ValueError, match="at least two images, and there are 0"):
        preview.main("simclr")


def test_measuring_leaves_the_weights_alone():
    encoder = Encoder(1, 16, name="resnet10", width=4)
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    fields = Fields(images=torch.zeros(16, 1, 16, 16, dtype=torch.uint8))
    measure(TwoViews(ImageFormat(1, 16, (0.5,), (0.2,))), encoder, fields, seconds=0.2)
    assert all(torch.equal(parameter, before[name]) for name, parameter in encoder.named_parameters())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def rates(**encoder: list[float]) -> Rates:
    return Rates([500.0] * 3, {choice: encoder.get("_".join(choice), [100.0, 101.0, 99.0]) for choice in CHOICES})


def test_a_faster_choice_is_suggested_only_when_it_is_clear():
    train = {"precision": "fp32", "memory_format": "contiguous"}
    assert not any("suggestion" in line for line in preview.findings("simclr", rates(), train))
    slightly = rates(fp32_channels_last=[105.0, 106.0, 107.0])
    assert slightly.faster("fp32", "contiguous") is None
    lucky_once = rates(fp32_channels_last=[150.0, 150.0, 90.0])
    assert lucky_once.faster("fp32", "contiguous") is None
    clearly = rates(fp32_channels_last=[150.0, 149.0, 151.0])
    assert clearly.faster("fp32", "contiguous") == ("fp32", "channels_last")
    assert clearly.faster("fp32", "channels_last") is None
    words = preview.findings("simclr", clearly, train)[-1]
    assert "memory_format channels_last in methods.simclr.train" in words
    assert "1.5 times" in words


def test_what_binds_and_what_the_device_cannot_do():
    slow_views = Rates([50.0], {("fp32", "channels_last"): [150.0]})
    words = preview.findings("simclr", slow_views, {"precision": "fp32", "memory_format": "channels_last"})
    assert "75 %" in words[-1]
    words = preview.findings("simclr", slow_views, {"precision": "bf16", "memory_format": "channels_last"})
    assert "can't do bf16" in words[-1]
