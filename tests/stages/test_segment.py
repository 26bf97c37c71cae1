"""The stage segment, from files to files, on a few drawn images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.dense.masks.scores import Scores
from sslflow.dense.masks.segmenter import load_segmenter
from sslflow.dense.rows import annotated_subset
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import save_encoder
from sslflow.networks.weights import encoder_of
from sslflow.runtime.files import read_json, sha256
from sslflow.runtime.tables import read_parquet
from sslflow.stages import segment
from tests.conftest import write_dataset
from tests.mask_fixtures import CLASSES, SIDE, drawn, masked_dataset

PARAMS = """
compute: {device: cpu, threads: 1}
encoder: {name: resnet10, width: 4, stem_stride: 2}
segment: {fractions: [0.25, 0.5], width: 4, epochs: 1, min_steps: 2, batch_size: 6}
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Dataset:
    dataset = masked_dataset(tmp_path / paths.PREPARED)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    torch.manual_seed(5)
    save_encoder(Encoder(3, SIDE, name="resnet10", width=4, stem_stride=2), paths.encoder("simclr", 0))
    return dataset


def metrics(name: str) -> dict[str, float]:
    return read_json(paths.metrics("segment", f"{name}-0"))


def test_a_row_leaves_counts_masks_and_a_model_that_agree(project, capsys):
    segment.main("simclr", 0)
    found, folder = metrics("simclr"), paths.segmented("simclr", 0)
    for protocol in ("linear", "frozen", "tuned"):
        for what in ("miou", "accuracy", "boundary", "loss"):
            assert {f"{protocol}_{what}_25pct", f"{protocol}_{what}_50pct"} < set(found)
    assert (found["images_25pct"], found["images_50pct"], found["classes"], found["covered_25pct"]) == (6, 12, 3, 3)

    rows = project.annotated_rows("test", "mask")
    counts = read_parquet(folder / "counts.parquet").to_pylist()
    for protocol, share in (("linear", 0.25), ("tuned", 0.5)):
        own = [one for one in counts if (one["protocol"], one["fraction"]) == (protocol, share)]
        assert len({(one["row"], one["class"]) for one in own}) == len(own)
        tables = []
        for name in ("intersection", "predicted", "actual"):
            tables.append(table := np.zeros((len(rows), 3), np.int64))
            for one in own:
                table[np.searchsorted(rows, one["row"]), one["class"]] = one[name]
        hit, taken, there = tables
        scores = Scores(hit, taken, there, np.zeros((3, 3)), np.zeros((2, 3)))
        assert scores.miou == pytest.approx(found[f"{protocol}_miou_{100 * share:g}pct"])

    masks = read_parquet(folder / "masks.parquet").to_pylist()
    assert [(one["protocol"], one["fraction"]) for one in masks] == [("linear", 0.5)] * 8 + [("tuned", 0.5)] * 8
    assert [one["row"] for one in masks[8:]] == rows.tolist()
    model, format = load_segmenter(paths.segmenter("simclr", 0)), project.format
    assert (model.classes, model.format) == (list(CLASSES), format)
    assert model.facts["segmenter"] == {"protocol": "tuned", "fraction": 0.5}
    assert model.facts["images"]["mean"] == list(format.mean)
    mean, std = (torch.tensor(one).view(1, -1, 1, 1) for one in (format.mean, format.std))
    with torch.no_grad():
        predicted = model((project.read(rows)["images"].float() / 255 - mean) / std).argmax(dim=1).numpy()
    shown = np.stack([np.asarray(Image.open(io.BytesIO(one["mask"]))) for one in masks[8:]])
    assert (shown == predicted).mean() > 0.999

    assert project.truth is not None
    confusion, actual = read_json(folder / "confusion.json"), project.truth.masks(rows).numpy()
    wanted = [[int(((actual == a) & (shown == b)).sum()) for b in range(3)] for a in range(3)]
    assert (confusion["classes"], confusion["pixels"]) == (list(CLASSES), wanted)
    kept = [one for one in confusion["iou"] if one is not None]
    assert np.mean(kept) == pytest.approx(found["tuned_miou_50pct"])
    assert "segment simclr-0  tuned, 12 images (50 %), 2 steps: test mIoU" in capsys.readouterr().out


def test_the_same_run_writes_the_same_bytes_and_controls_have_protocols_of_their_own(project):
    tables = [paths.segmented("scratch", 0) / f"{one}.parquet" for one in ("counts", "masks")]
    kept = []
    for _ in range(2):
        segment.main("scratch", 0)
        kept.append([sha256(file) for file in (paths.segmenter("scratch", 0), *tables)])
    assert kept[0] == kept[1]
    segment.main("random", 0)
    names = {
        name: {key.partition("_miou")[0] for key in metrics(name) if "_miou" in key} for name in ("scratch", "random")
    }
    assert names == {"scratch": {"tuned"}, "random": {"linear", "frozen"}}
    random = load_segmenter(paths.segmenter("random", 0))
    begun = encoder_of("random", 0, project.format, {"name": "resnet10", "width": 4, "stem_stride": 2})
    for one, other in zip(random.encoder.state_dict().values(), begun.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_classes_that_the_images_do_not_show_are_told(project, tmp_path, capsys, monkeypatch):
    ground = np.zeros((SIDE, SIDE), np.uint8)
    rows = annotated_subset(project, "mask", 0.25, 0).tolist()
    (tmp_path / "other").mkdir()
    masked_dataset(tmp_path / "other" / paths.PREPARED, masks=dict.fromkeys(rows, ground))
    (tmp_path / "other" / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path / "other")
    segment.main("random", 0)
    assert metrics("random")["covered_25pct"] == 1
    assert (
        "segment random-0  6 images: no pixel is of square, disc, so hardly anything is taken for it"
        in capsys.readouterr().out
    )


def test_without_masks_it_is_skipped_and_leaves_its_files(tmp_path, monkeypatch, capsys):
    images = drawn(6)[0]
    write_dataset(tmp_path / paths.PREPARED, images, np.full(6, -1), ["train"] * 4 + ["test"] * 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    segment.main("scratch", 0)
    assert "skipped: there are no images with masks to train and to test on" in capsys.readouterr().out
    assert metrics("scratch") == {}
    assert read_parquet(paths.segmented("scratch", 0) / "counts.parquet").num_rows == 0
    with pytest.raises(ValueError, match="no masks"):
        load_segmenter(paths.segmenter("scratch", 0))
