"""Files that stages write and read again, cut, empty, or of something else: scratch is begun anew, of DVC's outputs one
sentence says what makes them anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file
from torch import nn

from pipelines.leftovers import find
from pipelines.locks import Busy, one_run
from pipelines.plan import PlanError
from pipelines.progress import Times
from sslflow import paths
from sslflow.audiovisual.bundle import load_method
from sslflow.data.dataset import Dataset
from sslflow.drawing.embedded import sheet
from sslflow.features.store import FeatureStore
from sslflow.ingest.images import downloads
from sslflow.ingest.images.downloads import torchvision_source
from sslflow.ingest.videos.cache import _read
from sslflow.ingest.videos.cut import Grid
from sslflow.ingest.videos.hashes import Hashes
from sslflow.judging.judge import read_curve
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder, save_encoder
from sslflow.networks.starts import write_start
from sslflow.reporting import leaderboard, origin, verdicts
from sslflow.reporting.curves import merge
from sslflow.reporting.images.confusion import confusion
from sslflow.runtime.checkpoint import Checkpoint
from sslflow.runtime.files import write_csv, write_json, write_metrics
from sslflow.runtime.tables import read_parquet, read_safetensors
from sslflow.training.saved import load_weights, save_method
from tests import tiny
from tests.conftest import ROOT, write_dataset

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "cut to some bytes": lambda whole: whole[:7],
    "cut in the middle": lambda whole: whole[: len(whole) // 2],
    "without its last bytes": lambda whole: whole[:-40],
    "zeros": lambda whole: bytes(len(whole)),
    "garbage": lambda whole: np.random.default_rng(0).bytes(len(whole)),
    "an archive": lambda whole: b"PK\x03\x04" + whole[:20],
    "other JSON": lambda whole: b"[[1], null]\n",
}


@pytest.fixture(params=DAMAGES)
def damage(request, tmp_path, monkeypatch) -> Callable[[Path], None]:
    monkeypatch.chdir(tmp_path)
    return lambda file: (None, file.write_bytes(DAMAGES[request.param](file.read_bytes())))[0]


# Scratch


def test_a_checkpoint_that_can_t_be_read_is_put_aside_and_the_run_begins_anew(damage, capsys) -> None:
    checkpoint = Checkpoint("pretrain", "key")
    assert checkpoint.load() is None
    checkpoint.save({"step": 3, "method": {"weight": torch.ones(5)}})
    whole = checkpoint.load()
    assert whole
    assert whole["step"] == 3
    damage(checkpoint.file)
    assert checkpoint.load() is None
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"{checkpoint.file} can't be read" in said
    assert "put aside" in said
    assert not checkpoint.file.exists()
    assert checkpoint.load() is None
    assert not capsys.readouterr().out
    checkpoint.save({"step": 4})
    assert checkpoint.load() == {"step": 4}


@pytest.mark.parametrize("state", [None, 3, [], {"epoch": 1}])
def test_a_checkpoint_of_something_else_is_put_aside(state, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint("pretrain", "key")
    checkpoint.save({"step": 1})
    torch.save(state, checkpoint.file)
    assert checkpoint.load() is None
    assert "put aside" in capsys.readouterr().out


def test_a_video_s_cache_entry_that_is_not_whole_is_made_anew(damage, tmp_path) -> None:
    grid = Grid(1.0, 2, 8, 8000, "required")
    folder = tmp_path / "entry"
    for name in ("frames.npy", "sound.npy", "facts.json"):
        folder.mkdir(exist_ok=True)
        np.save(folder / "frames.npy", np.ones((1, grid.frames, 3, grid.side, grid.side), np.uint8))
        np.save(folder / "sound.npy", np.ones((1, grid.samples), np.int16))
        facts = {"status": "ok", "media": None, "cuts": [[0.0, 0, 0, True, -9.0]], "silent": 0, "holes": 0}
        write_json(folder / "facts.json", facts)
        assert _read(folder, grid)
        damage(folder / name)
        assert _read(folder, grid) is None


def test_remembered_hashes_that_are_not_whole_are_no_matter(damage, tmp_path) -> None:
    file, kept = tmp_path / "video", tmp_path / "hashes.json"
    file.write_bytes(b"content")
    for remembered in (None, {str(file): 3}, {str(file): []}, {str(file): [1, 2]}):
        hashes = Hashes(kept)
        found = hashes.of(file)
        hashes.save()
        damage(kept)
        if remembered is not None:
            write_json(kept, remembered)
        assert Hashes(kept).of(file) == found


@pytest.mark.parametrize("content", ['{"a": NaN}', '{"a": Infinity}', '{"a": -3}', '{"a": 1' + 400 * "0" + "}", "3"])
def test_times_that_can_t_be_are_not_believed(content: str, tmp_path) -> None:
    (tmp_path / "durations.json").write_text(content)
    assert Times(tmp_path / "durations.json").last == {}


def test_the_number_in_a_lock_may_be_anything(tmp_path) -> None:
    with one_run(tmp_path):
        (tmp_path / "work/run.lock").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(Busy, match="another run"), one_run(tmp_path):
            pass


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"\xff\xfe", b"stages: [", b"stages: 3", b"- 1"])
def test_a_dvc_lock_that_is_not_whole_is_one_sentence(content: bytes, tmp_path) -> None:
    folder = tiny.make(tmp_path / "project")
    (folder / "dvc.lock").write_bytes(content)
    try:
        find(folder)
    except PlanError as error:
        assert "dvc.lock" in str(error)  # noqa: PT017


def test_downloaded_files_that_are_not_whole_are_one_sentence(damage, tmp_path, monkeypatch) -> None:
    raw = tmp_path / "downloads/MNIST/raw"
    raw.mkdir(parents=True)
    monkeypatch.setattr(downloads, "FOLDER", tmp_path / "downloads")
    for part, count in (("train", 3), ("t10k", 2)):
        sizes = b"".join(size.to_bytes(4, "big") for size in (count, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + bytes(784 * count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + bytes(count))
    assert len(list(torchvision_source("MNIST").records())) == 5
    damage(raw / "train-images-idx3-ubyte")
    with pytest.raises(ValueError, match="torchvision:MNIST") as caught:
        torchvision_source("MNIST")
    assert str(raw.parent) in str(caught.value)


# What stages leave, and later ones read


def encoder() -> None:
    load_encoder(paths.encoder("simclr", 0))


def made_encoder(_: Path) -> Path:
    save_encoder(Encoder(1, 12, name="resnet10", width=4, stem_stride=2), paths.encoder("simclr", 0))
    return paths.encoder("simclr", 0)


def made_method(_: Path) -> Path:
    save_method(nn.Linear(3, 2), paths.trained("simclr", 0))
    return paths.trained("simclr", 0)


def made_clip_method(_: Path) -> Path:
    file = paths.trained("alignment", 0, paths.OF_CLIPS)
    save_method(nn.Linear(3, 2), file, {"method": "alignment"})
    return file


def made_curve(_: Path) -> Path:
    write_csv(paths.curve("simclr", 0), ("step", "loss"), [(step, 1 / 3) for step in range(9)])
    return paths.curve("simclr", 0)


def made_features(_: Path) -> Path:
    folder = paths.features("simclr", 0)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "features.npy", np.ones((50, 3), np.float32))
    write_json(folder / "meta.json", {"encoder_sha256": "0"})
    return folder / "features.npy"


def made_images(folder: Path, name: str) -> Path:
    if not paths.PREPARED.exists():
        write_dataset(paths.PREPARED, np.ones((4, 1, 8, 8), np.uint8), np.zeros(4, np.int64), ["train"] * 4)
    return paths.PREPARED / name


def made_table(_: Path) -> Path:
    file = paths.pseudolabels("simclr", 0) / "labels.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"row": [1, 2], "cluster": [0, 1]}), file)
    return file


def made_arrays(_: Path) -> Path:
    file = paths.adapted("dance", 0) / "as_is-random.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"threshold": torch.ones(1)}, file)
    return file


def made_metrics(_: Path) -> Path:
    write_metrics(paths.metrics("probe", "simclr-0"), {"linear": 0.5})
    return paths.metrics("probe", "simclr-0")


def made_control(_: Path) -> Path:
    write_metrics(paths.metrics("finetune", "scratch-0"), {"finetune_10pct": 0.5})
    return paths.metrics("finetune", "scratch-0")


def made_verdict(_: Path) -> Path:
    write_json(paths.verdict("simclr", 0), [{"kind": "flat", "words": "", "advice": "", "sick": True}])
    return paths.verdict("simclr", 0)


def made_predictions(_: Path) -> Path:
    write_csv(paths.predictions("simclr", 0), ("row", "actual", "predicted"), [(0, "a", "b")] * 4)
    return paths.predictions("simclr", 0)


def made_quarantine(_: Path) -> Path:
    write_csv(paths.PREPARED / "quarantine.csv", ("path", "reason"), [("a", "b")] * 4)
    return paths.PREPARED / "quarantine.csv"


def made_picture(_: Path) -> Path:
    file = paths.pictures("simclr", 0)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(file)
    return file


def reads(*rows: int) -> None:
    dataset = Dataset()
    dataset.read(np.arange(len(dataset)))


FILES: dict[str, tuple[Callable[[Path], Path], Callable[[], object], str]] = {
    "an encoder": (made_encoder, encoder, "pretrain"),
    "weights of a method": (made_method, lambda: load_weights(nn.Linear(3, 2), paths.trained("simclr", 0)), "pretrain"),
    "a method for clips": (
        made_clip_method,
        lambda: load_method(paths.trained("alignment", 0, paths.OF_CLIPS)),
        "pretrain_clips",
    ),
    "a curve, judged": (made_curve, lambda: read_curve(paths.curve("simclr", 0)), "pretrain"),
    "a curve, reported": (made_curve, lambda: merge(["simclr"], [0], Path("curves.csv")), "pretrain"),
    "features": (made_features, lambda: FeatureStore(paths.features("simclr", 0)), "extract"),
    "the facts of features": (
        lambda folder: made_features(folder).with_name("meta.json"),
        lambda: FeatureStore(paths.features("simclr", 0)),
        "extract",
    ),
    "a shard": (lambda folder: made_images(folder, "images-00000.npy"), reads, "prepare"),
    "the manifest": (lambda folder: made_images(folder, "manifest.parquet"), reads, "prepare"),
    "the facts of images": (lambda folder: made_images(folder, "dataset.json"), reads, "prepare"),
    "clusters": (
        made_table,
        lambda: read_parquet(paths.pseudolabels("simclr", 0) / "labels.parquet", ["row"]),
        "pseudolabel",
    ),
    "arrays": (made_arrays, lambda: read_safetensors(paths.adapted("dance", 0) / "as_is-random.safetensors"), "adapt"),
    "metrics": (made_metrics, lambda: leaderboard.collect(["simclr"], [0]), "probe"),
    "metrics of a control": (made_control, lambda: leaderboard.collect([], [0], [0.1]), "finetune_control"),
    "a verdict": (made_verdict, lambda: verdicts.collect(["simclr"], [0]), "inspect"),
    "predictions": (made_predictions, lambda: confusion([paths.predictions("simclr", 0)], "ab"), "probe"),
    "the list of what was put aside": (made_quarantine, origin.quarantined, "prepare"),
    "a picture": (made_picture, lambda: sheet(paths.pictures("simclr", 0)), "inspect"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_of_an_output_that_is_not_whole_one_sentence_says_what_makes_it_anew(kind: str, damage, tmp_path) -> None:
    make, read, stage = FILES[kind]
    file = make(tmp_path)
    if "method" not in kind or kind == "weights of a method":
        read()
    damage(file)
    with pytest.raises(ValueError, match="dvc repro") as caught:
        read()
    said = str(caught.value)
    assert str(file) in said
    assert f"`dvc repro {stage}`" in said
    assert "\n" not in said


def test_the_maker_of_a_file_is_the_stage_that_has_it_among_its_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_start("lite0", None)
    controls = {"${run.controls}": ["random", "pixels", "lite0"], "${run.tuned_controls}": ["scratch", "lite0"]}
    controls["${run.segment_controls}"] = controls["${run.detect_controls}"] = ["random", "scratch", "lite0"]
    controls["${run.segment_volumes_controls}"] = ["random", "scratch"]
    controls |= {"${run.match_controls}": ["blind", "lite0"], "${run.depth_controls}": ["mean", "scratch", "lite0"]}
    controls["${run.language_controls}"] = ["unigram", "trigram", "words"]
    for stage, block in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items():
        words = {"item.seed": "0", "item.method": "simclr", "key": "pair"}
        for control in controls.get(block.get("matrix", {}).get("control"), ["none"]):
            for out in (block.get("do") or block)["outs"]:
                written = out if isinstance(out, str) else next(iter(out))
                for name, word in {**words, "item.control": control}.items():
                    written = written.replace(f"${{{name}}}", word)
                assert paths.maker(Path(written)) == stage


def test_a_bit_of_a_checkpoint_that_turned_is_found(tmp_path, monkeypatch, capsys) -> None:
    """`torch.load` takes it as it is."""
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint("pretrain", "key")
    weights = torch.full((4096,), 0.1)
    checkpoint.save({"step": 3, "method": {"weight": weights}})
    content = bytearray(checkpoint.file.read_bytes())
    content[content.find(weights.numpy().tobytes()) + 5000] ^= 1
    checkpoint.file.write_bytes(content)
    assert checkpoint.load() is None
    assert "doesn't fit its check sum" in capsys.readouterr().out
