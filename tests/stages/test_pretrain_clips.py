"""The stages pretrain_clips, inspect_clips and examine, from clips on the disk to encoders, a verdict, scores and the
tables of a report; and what is done with them: features of clips, and search."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from sslflow import paths
from sslflow.audiovisual.bundle import clip_features, load_method, search
from sslflow.audiovisual.ingredients import held_out
from sslflow.audiovisual.method import OwnTask, PairMethod, find
from sslflow.audiovisual.method import names as method_names
from sslflow.data.dataset import Dataset
from sslflow.data.formats import ClipFormat
from sslflow.judging.judge import read_curve
from sslflow.networks.encoder import Encoder
from sslflow.networks.saved import load_encoder, save_encoder
from sslflow.networks.starts import Start, write_start
from sslflow.networks.weights import given
from sslflow.runtime.files import read_json
from sslflow.settings.params import ParamsError, load
from sslflow.stages import examine, inspect_clips, pretrain_clips
from sslflow.training import run as training
from sslflow.training.continued import Continued
from tests.av_fixtures import LOOKS, PER_VIDEO, RATE, SIDE, MemoryClips
from tests.conftest import RECIPE

CPU = torch.device("cpu")
SET = paths.clips("squares")
SMALL = {"name": "resnet10", "width": 4, "stem_stride": 2}


@pytest.fixture
def params(tmp_path, monkeypatch) -> dict:
    """The settings, to be changed and written, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return settings()


def settings() -> dict:
    content = load(RECIPE)
    read = ("clip_encoders", "clip_methods", "clip_train", "clip_views", "compute", "examine", "inspect")
    kept = {name: content[name] for name in (*read, "pretrain_clips")}
    kept["compute"] |= {"device": "cpu", "threads": 1}
    kept["clip_encoders"] = {"picture": {**SMALL, "grid": 2}, "sound": SMALL}
    kept["pretrain_clips"] |= {"clips": "squares", "log_every": 2}
    for method in method_names():
        kept["clip_methods"][method].setdefault("train", {}).update(epochs=2, batch_size=8)
        kept["clip_methods"][method].setdefault("views", {}).setdefault("colour", {}).update(LOOKS)
    return kept


def ran(params: dict, method: str, clips: MemoryClips | None = None) -> dict[str, float]:
    if clips:
        clips.write(SET)
    with Path("params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)
    pretrain_clips.main(method, 0)
    examine.main(method, 0)
    return metrics_of(method)


def metrics_of(method: str) -> dict[str, float]:
    metrics = read_json(paths.metrics("pretrain_clips", f"{method}-0"))
    metrics = {"loss": metrics["loss"], "clips": metrics["clips"], **read_json(paths.metrics("examine", f"{method}-0"))}
    assert all(math.isfinite(value) for value in metrics.values())
    return metrics


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Callable[[str], Path]:
    """A folder for each method in which it was trained on twelve videos and examined, for tests that only read it."""

    @functools.cache
    def folder(method: str) -> Path:
        made = tmp_path_factory.mktemp(method)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(made)
            ran(settings(), method, MemoryClips(12))
        return made

    return folder


@pytest.fixture
def finished(folders, monkeypatch) -> Callable[[str], dict[str, float]]:
    """Go to the folder of a method; returns the metrics."""

    def go(method: str) -> dict[str, float]:
        monkeypatch.chdir(folders(method))
        return metrics_of(method)

    return go


def table(method: str, name: str = "decisions") -> list[dict]:
    return pq.read_table(paths.examined(method, 0) / f"{name}.parquet").to_pylist()


def files(method: str) -> dict[str, Path]:
    """All that both stages left but their metrics, which count seconds."""
    picture = paths.clip_encoder(method, 0, "picture")
    found = [*picture.parent.iterdir(), *paths.examined(method, 0).iterdir()]
    found += [paths.trained(method, 0, paths.OF_CLIPS), paths.curve(method, 0, paths.OF_CLIPS)]
    return {file.name: file for file in found}


def names(method: str) -> set[str]:
    return set(files(method)) - {f"{method}-0.safetensors", f"{method}-0.csv"}


EXAMINED = [name for name in method_names() if issubclass(find(name), (OwnTask, PairMethod))]
"""Methods with answers of their own."""


def written(method: str) -> set[str]:
    """What a method leaves, by what it is."""
    kind = find(method)
    if not issubclass(kind, PairMethod):
        return {"decisions.parquet", "picture.safetensors"}
    found = {"decisions.parquet", "picture.safetensors", "retrieval.parquet", "sound.safetensors"}
    found |= {"maps.safetensors"} if kind.localises else set()
    return found | ({"source_decisions.parquet"} if kind.wrong == "moment" else set())


@pytest.mark.parametrize("method", EXAMINED)
def test_scores_are_those_of_the_rows_and_nothing_is_left_out(method, finished):
    clips, metrics = MemoryClips(12), finished(method)
    assert names(method) == written(method)
    rows = table(method)
    test = set(clips.rows("test").tolist())
    assert {row["clip"] for row in rows} <= test
    if issubclass(find(method), OwnTask):
        right = [row["given"] == row["right"] for row in rows]
        assert metrics["accuracy"] == pytest.approx(np.mean(right) if rows else 0.0)
    else:
        assert metrics["accuracy"] == pytest.approx(np.mean([row["right"] for row in rows]))
        assert metrics["pairs"] == len(rows)
        assert sum(row["same"] for row in rows) * 2 == len(rows)
        threshold = metrics["threshold"]
        assert all(row["right"] == ((row["score"] > threshold) == row["same"]) for row in rows)
        assert {name for name in metrics if name.startswith("control")} == {
            f"control_conditions_{part}" for part in ("accuracy", "low", "high")
        }
        assert load_encoder(paths.clip_encoder(method, 0, "sound")).channels == 1
        assert metrics["retrieval_own_r1_chance"] == pytest.approx(1 / len(test))
    picture = load_encoder(paths.clip_encoder(method, 0, "picture"))
    assert picture.channels == 3
    assert picture.facts["images"]["mean"] == list(clips.format.mean)
    assert picture.facts["run"]["method"] == method
    assert {"probe_picture_accuracy", "probe_picture_random_accuracy"} <= set(metrics)
    assert metrics["low"] <= metrics["accuracy"] <= metrics["high"]


def test_a_threshold_is_chosen_by_sources_that_were_not_trained_on():
    rows, sources = np.arange(40), np.arange(40) // 2 + 100
    held = held_out(find("alignment"), sources, rows, 0.2, 0)
    assert len(held) == 8
    assert len(np.unique(sources[held])) == 4
    assert not np.array_equal(held, held_out(find("alignment"), sources, rows, 0.2, 1))
    # Two sources stay to train on, of whatever share.
    everything = held_out(find("alignment"), sources, rows, 1.0, 0)
    assert len(np.unique(sources[np.setdiff1d(rows, everything)])) == 2
    # One source makes no wrong pair, and correspondence has its threshold already.
    assert not len(held_out(find("alignment"), sources, rows, 0.05, 0))
    assert not len(held_out(find("correspondence"), sources, rows, 0.2, 0))


def test_what_is_held_out_is_not_trained_on(params):
    clips = MemoryClips(24)
    params["pretrain_clips"]["held_out"] = 0.25
    metrics = ran(params, "alignment", clips)
    assert metrics["clips"] == len(clips.rows("train")) - 4 * PER_VIDEO


def test_labels_are_learned_by_both_encoders_as_a_control(params, capsys):
    params["clip_methods"]["supervised"]["train"] |= {"epochs": 20, "batch_size": 8}
    metrics = ran(params, "supervised", MemoryClips(24))
    assert names("supervised") == {"picture.safetensors", "sound.safetensors"}
    for side in ("picture", "sound"):
        assert metrics[f"probe_{side}_accuracy"] > 0.6
    assert "accuracy" not in metrics
    said = f"linear probes: frames {100 * metrics['probe_picture_accuracy']:.1f} %, sounds"
    assert said in capsys.readouterr().out


def test_labels_are_learned_from_the_clips_that_have_some(params):
    clips = MemoryClips(24)
    clips.columns["label"] = np.where(np.arange(len(clips)) % PER_VIDEO, -1, clips.labels)
    params["clip_methods"]["supervised"]["train"] |= {"epochs": 1, "batch_size": 2}
    assert ran(params, "supervised", clips)["clips"] == len(clips.labelled_rows("train"))


def test_labels_without_labels_are_an_error_that_says_what_to_do(params):
    with pytest.raises(ValueError, match="have 0 classes; leave it out"):
        ran(params, "supervised", MemoryClips(12, labels=False))


def test_wrong_pairs_are_of_other_sources_or_for_synchrony_of_another_moment(finished):
    finished("synchrony")
    for row in table("synchrony"):
        assert row["clip"] == row["sound_clip"]
        assert (abs(row["start"] - row["sound_start"]) >= 1.0 - 1e-6) != row["same"]
    for row in table("synchrony", "source_decisions"):
        assert (row["clip"] // PER_VIDEO == row["sound_clip"] // PER_VIDEO) == row["same"]


def test_the_same_run_gives_the_same_bytes_and_another_seed_others(finished, params, tmp_path, monkeypatch):
    finished("alignment")
    first = {name: file.read_bytes() for name, file in files("alignment").items()}
    monkeypatch.chdir(tmp_path)
    ran(params, "alignment", MemoryClips(12))
    assert {name: file.read_bytes() for name, file in files("alignment").items()} == first
    pretrain_clips.main("alignment", 1)
    assert paths.clip_encoder("alignment", 1, "picture").read_bytes() != first["picture.safetensors"]


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(params, monkeypatch):
    whole = ran(params, "ambient_sound", MemoryClips(12))
    first = {name: file.read_bytes() for name, file in files("ambient_sound").items()}
    params["pretrain_clips"]["checkpoint_seconds"] = 1e-9
    fit, steps = training.fit, []

    def stopping(*given, **settings):
        for step in fit(*given, **settings):
            yield step
            steps.append(step.number)
            if len(steps) == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        ran(params, "ambient_sound")
    # What is only written down, or examined once the run is over, may change meanwhile.
    params["pretrain_clips"] |= {"checkpoint_seconds": 100, "log_every": 3}
    params["examine"] |= {"shown": 3}
    again = ran(params, "ambient_sound")
    assert len(steps) > 3
    assert steps == list(range(1, len(steps) + 1))  # the fourth is the first after the stop
    assert {name: file.read_bytes() for name, file in files("ambient_sound").items()} == first
    assert again["accuracy"] == whole["accuracy"]
    assert not list((paths.WORK / "pretrain_clips").glob("*/checkpoint.pt"))


@pytest.mark.parametrize("method", method_names())
def test_a_run_on_clips_is_judged_and_drawn_without_a_training(method, finished, capsys):
    finished(method)
    before = {name: file.read_bytes() for name, file in files(method).items()}
    inspect_clips.main(method, 0)
    assert {name: file.read_bytes() for name, file in files(method).items()} == before
    said = read_json(paths.verdict(method, 0, paths.OF_CLIPS), list)
    assert said
    assert f"inspect_clips {method}-0  verdict: {said[0]['words']}" in capsys.readouterr().out
    with Image.open(paths.pictures(method, 0, paths.OF_CLIPS)) as drawn:
        assert drawn.height > SIDE
    rows = read_curve(paths.curve(method, 0, paths.OF_CLIPS))
    assert [row["step"] for row in rows[:3]] == [0, 2, 4]
    assert all({"loss", "lr", "rankme", "feature_std"} <= set(row) for row in rows)
    assert len({row["rankme"] for row in rows}) == len(rows)


def test_without_labels_and_boxes_there_are_scores_that_need_none(params):
    metrics = ran(params, "correspondence", MemoryClips(12, labels=False, boxes=False))
    assert not [name for name in metrics if name.startswith(("probe", "localisation")) or "class" in name]
    assert "accuracy" in metrics
    maps = load_file(paths.examined("correspondence", 0) / "maps.safetensors")
    assert maps["own"].shape == maps["silence"].shape == (8, 2, 2)
    assert maps["box"].isnan().all()


@pytest.mark.parametrize("method", EXAMINED)
def test_a_single_test_source_and_none_at_all_are_no_error(method, params):
    clips = MemoryClips(6)
    clips.columns["split"] = np.where(np.arange(12) < 2, "test", "train")
    metrics = ran(params, method, clips)
    assert metrics["test_sources"] == 1
    kind = find(method)  # of one source there are no sounds of another
    assert ("accuracy" in metrics) == (not issubclass(kind, PairMethod) or kind.wrong == "moment")
    stored = pq.read_table(SET / "manifest.parquet")
    pq.write_table(
        stored.set_column(stored.column_names.index("split"), "split", pa.array(["train"] * 12)),
        SET / "manifest.parquet",
    )
    metrics = ran(params, method)
    assert metrics["test_clips"] == 0
    assert "loss" in metrics


def test_an_encoder_to_start_from_must_see_colours_and_is_told_of(params):
    MemoryClips(12).write(SET)
    torch.manual_seed(5)
    save_encoder(Encoder(3, 32, **SMALL), Path("start.safetensors"))
    save_encoder(Encoder(1, 32, **SMALL), Path("grey.safetensors"))
    params["pretrain_clips"]["start"] = "start.safetensors"
    params["clip_methods"]["temporal_order"]["train"]["lr"] = 1e-12
    metrics = ran(params, "temporal_order")
    # The same weights, but for the statistics of BatchNorm: at most one window is named otherwise.
    one = 1 / metrics["probe_picture_windows"]
    assert metrics["probe_picture_start_accuracy"] == pytest.approx(metrics["probe_picture_accuracy"], abs=1.01 * one)
    found = load_encoder(paths.clip_encoder("temporal_order", 0, "picture")).state_dict()
    start = load_encoder(Path("start.safetensors")).state_dict()
    torch.testing.assert_close(found["network.conv1.weight"], start["network.conv1.weight"], atol=1e-6, rtol=0)
    params["pretrain_clips"]["start"] = "grey.safetensors"
    with pytest.raises(ValueError, match="images of 1 channels, and frames have 3"):
        ran(params, "temporal_order")
    params["pretrain_clips"]["start"] = "nowhere.safetensors"
    with pytest.raises(ValueError, match="there is no such file of weights"):
        ran(params, "temporal_order")


def test_weights_of_a_name_are_gone_on_from_safely(params):
    """Frames are brought to them, sounds are not; only their last blocks move, at their own small rate, and no
    BatchNorm of theirs moves at all."""
    clips = MemoryClips(12)
    clips.write(SET)
    torch.manual_seed(5)
    save_file(timm.create_model("test_efficientnet").state_dict(), "theirs.safetensors")
    start = Start(weights="theirs.safetensors", network="test_efficientnet", side=64)
    write_start("theirs", start)
    params["pretrain_clips"]["start"] = "theirs"
    metrics = ran(params, "alignment")
    assert "probe_picture_start_accuracy" in metrics
    encoder = load_encoder(paths.clip_encoder("alignment", 0, "picture"))
    picture = Dataset[ClipFormat](SET).format.picture
    assert encoder.given is not None
    assert encoder.given.data_mean == picture.mean
    assert encoder.given.side == 64
    before, after = given(start, picture).state_dict(), encoder.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved
    assert not [name for name in moved if "running" in name or ".bn" in name]
    assert all(name.startswith(("network.blocks.3", "network.blocks.4", "network.conv_head")) for name in moved), moved
    steps = read_curve(paths.curve("alignment", 0, paths.OF_CLIPS))[-1]["step"]
    for name in moved:
        assert float((after[name] - before[name]).abs().max()) < 2 * steps * Continued().lr
    assert load_encoder(paths.clip_encoder("alignment", 0, "sound")).given is None
    write_start("theirs", None)
    with pytest.raises(ValueError, match="no weights of that name"):
        ran(params, "alignment")


def test_what_can_t_be_learned_from_is_said_in_plain_words(params):
    clips = MemoryClips(4)
    clips.columns["group"] = np.array(["one"] * 8)
    with pytest.raises(ValueError, match="correspondence needs clips of at least two sources"):
        ran(params, "correspondence", clips)


def test_a_run_reads_only_its_own_settings(params):
    """What `dvc.yaml` says that it depends on: an error in another method's block is none of its business."""
    params["clip_methods"]["synchrony"]["dimm"] = 3
    ran(params, "ambient_sound", MemoryClips(12))
    with pytest.raises(ParamsError, match="did you mean 'dim'"):
        ran(params, "synchrony")


# Use


def test_features_of_clips_have_times_and_are_the_encoders(finished):
    clips = MemoryClips(12)
    finished("alignment")
    method, views = load_method(paths.trained("alignment", 0, paths.OF_CLIPS))
    rows = clip_features(method, views, Dataset(SET), CPU).to_pylist()
    assert len(rows) == len(clips) * 3
    assert [row["start"] for row in rows[:6]] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert all(row["end"] - row["start"] == 1.0 for row in rows)
    encoder = load_encoder(paths.clip_encoder("alignment", 0, "picture"))
    frame = clips.frames[1, 12]  # 1.5 s into the second clip: the middle of its second window
    with torch.no_grad():
        expected = encoder(views.normalise(torch.from_numpy(frame[None])))[0]
    np.testing.assert_allclose(rows[4]["picture"], expected.numpy(), rtol=1e-4, atol=1e-5)
    assert len(rows[0]["sound"]) == method.sound_encoder.dim


def test_search_finds_the_window_that_a_sound_or_an_image_is_from(params):
    params["clip_encoders"] = {"picture": {**SMALL, "width": 8}, "sound": {**SMALL, "width": 8}}
    params["clip_methods"]["alignment"]["train"] |= {"epochs": 50, "batch_size": 16, "lr": 3e-3}
    clips = MemoryClips(24)
    ran(params, "alignment", clips)
    method, views = load_method(paths.trained("alignment", 0, paths.OF_CLIPS))
    stored: Dataset[ClipFormat] = Dataset(SET)
    shares = []
    for row in range(0, 12, 2):
        sound = search(method, views, stored, CPU, sound=torch.from_numpy(clips.sound[row]), top=8).to_pylist()
        image = search(method, views, stored, CPU, image=torch.from_numpy(clips.frames[row, 5]), top=8).to_pylist()
        for found in (sound, image):
            assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
            labels = [clips.labels[clips.columns["path"].tolist().index(one["video"])] for one in found]
            shares.append(np.mean(np.array(labels) == clips.labels[row]))
    assert np.mean(shares) > 0.6  # chance is a quarter
    with pytest.raises(ValueError, match="one of the two"):
        search(method, views, stored, CPU)
    short = search(method, views, stored, CPU, sound=torch.zeros(RATE // 4, dtype=torch.int16), top=2)
    assert short.num_rows == 2


def test_files_that_are_no_method_are_said_to_be_none(finished):
    finished("synchrony")
    file = paths.trained("synchrony", 0, paths.OF_CLIPS)
    with pytest.raises(ValueError, match="not a method for clips"):
        load_method(paths.clip_encoder("synchrony", 0, "picture"))
    with pytest.raises(ValueError, match="dvc repro pretrain_clips"):
        load_method(file.with_name("nothing.safetensors"))
    method, views = load_method(file)
    with pytest.raises(ValueError, match="several frames in a row"):
        search(method, views, Dataset(SET), CPU, image=torch.zeros(3, 40, 30, dtype=torch.uint8))
