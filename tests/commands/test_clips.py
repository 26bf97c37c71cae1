"""`sslflow av`, from video files to a table of features and to the moments that fit a sound or an image."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sslflow import cli, paths
from sslflow.audiovisual.bundle import facts_of, load_method
from sslflow.audiovisual.views import Sound
from sslflow.commands import clips as use
from sslflow.commands.clips import default_model, read_sound
from sslflow.data.formats import ClipFormat
from sslflow.methods.clips.alignment import Alignment
from sslflow.methods.clips.synchrony import Synchrony
from sslflow.networks.encoder import Encoder
from sslflow.settings.params import ParamsError
from sslflow.training.saved import save_method
from sslflow.views.strengths import Crop
from tests import av_media

CPU = torch.device("cpu")
FORMAT = ClipFormat(8, 32, 8, 8000, 1.0, (0.5,) * 3, (0.25,) * 3)
SMALL = {"name": "resnet10", "width": 4, "stem_stride": 2}


def write_model(seed: int) -> Path:
    torch.manual_seed(seed)
    method = Alignment(Encoder(3, 32, **SMALL), Encoder(1, 64, **SMALL), projector=(8, 8))
    file = paths.trained("alignment", seed, paths.OF_CLIPS)
    save_method(method, file, facts_of("alignment", method, FORMAT, {"projector": [8, 8]}, {"window": 0.5}))
    return file


def write_wave(file: Path, rate: int, seconds: float = 0.7) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(round(rate * seconds)) / rate)
    with wave.open(str(file), "wb") as handle:
        handle.setnchannels(2)
        handle.setsampwidth(2)
        handle.setframerate(rate)
        handle.writeframes(np.repeat((tone * 32767).astype("<i2"), 2).tobytes())


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A project's folder with a model, and in it a folder of two videos."""
    monkeypatch.chdir(tmp_path)
    write_model(1)
    write_model(0)
    Path("videos/deep").mkdir(parents=True)
    for number, name in enumerate(("one", "deep/two")):
        av_media.make(
            Path(f"videos/{name}.mp4"), seconds=2.2 + number, picture=("-c:v", "mjpeg"), sound=("-c:a", "aac")
        )
    return Path("videos")


def called(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sslflow", "av", *map(str, words)])
    return cli.main()


def test_every_window_of_every_video_gets_a_row_with_its_time(folder, monkeypatch, capsys):
    assert called(monkeypatch, "embed", folder, "--output", "out.parquet") == 0
    rows = pq.read_table("out.parquet").to_pylist()
    times = {name: [row["start"] for row in rows if row["video"] == name] for name in ("one.mp4", "deep/two.mp4")}
    assert times == {"one.mp4": [0.0, 0.5, 1.0, 1.5], "deep/two.mp4": [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]}
    assert all(len(row[side]) == 32 for row in rows for side in ("picture", "sound"))
    assert "10 rows" in capsys.readouterr().out
    assert sorted(path.name for path in folder.rglob("*")) == ["deep", "one.mp4", "two.mp4"]  # nothing is written there


def test_search_lists_moments_by_a_sound_and_by_an_image(folder, monkeypatch, capsys):
    write_wave(Path("tone.wav"), 22050)
    Image.new("RGB", (80, 60), "red").save("red.png")
    for asked in (("--sound", "tone.wav"), ("--image", "red.png")):
        assert called(monkeypatch, "search", folder, *asked, "--top", "3") == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        assert all(line.endswith(".mp4") and " s  " in line for line in lines)
        assert [float(line.split()[0]) for line in lines] == sorted(
            (float(line.split()[0]) for line in lines), reverse=True
        )


def test_a_model_is_scored_on_videos_that_it_has_not_seen(folder, monkeypatch, capsys):
    assert called(monkeypatch, "score", folder) == 0
    said = capsys.readouterr().out
    # Four windows of each clip of a second: 8 of the first video, 12 of the second, of which 4 have no partner.
    assert "% of 16 windows fit their own sound better than that of another source" in said
    assert "over 2 videos; chance 50" in said


def test_shares_count_ties_half_and_own_sounds_that_score_higher(folder, monkeypatch):
    monkeypatch.setattr(use, "scored", lambda method, embedded, pairs: pairs.same.float())
    told = use.score_folder(folder, None, CPU, print)
    assert (told.share, told.windows, told.wrong) == (1.0, 16, "source")
    monkeypatch.setattr(use, "scored", lambda method, embedded, pairs: torch.zeros(len(pairs.same)))
    assert use.score_folder(folder, None, CPU, print).share == 0.5


def test_of_one_video_synchrony_is_scored_by_moments_and_alignment_not_at_all(folder, monkeypatch, capsys):
    Path("videos/one.mp4").unlink()
    assert called(monkeypatch, "score", folder) == 1
    assert "all clips are of one video" in capsys.readouterr().err
    method = Synchrony(Encoder(3, 32, **SMALL), Encoder(1, 64, **SMALL), dim=8, hidden=8)
    facts = facts_of("synchrony", method, FORMAT, {"dim": 8, "hidden": 8}, {"window": 0.25, "gap": 0.25})
    save_method(method, Path("s.safetensors"), facts)
    told = use.score_folder(folder, Path("s.safetensors"), CPU, print)
    assert (told.windows, told.videos, told.wrong) == (24, 1, "moment")


def test_views_come_back_with_the_settings_that_they_had(tmp_path):
    file = tmp_path / "a.safetensors"
    method = Alignment(Encoder(3, 32, **SMALL), Encoder(1, 64, **SMALL), projector=(8, 8))
    held = {"window": 0.5, "crop": Crop(0.9), "sound": Sound(gain=3.0)}
    save_method(method, file, facts_of("alignment", method, FORMAT, {"projector": (8, 8)}, held))
    _, views = load_method(file)
    assert (views.window, views.sound) == (0.5, Sound(gain=3.0))
    assert "scale=(0.9, 1.0)" in repr(views.place)
    save_method(method, file, facts_of("alignment", method, FORMAT, {"projector": (8, 8)}, {"smallest_crop": 0.9}))
    with pytest.raises(ParamsError, match=r"views\.smallest_crop: unknown"):
        load_method(file)


def test_a_sound_is_read_at_the_rate_asked_for(tmp_path):
    write_wave(tmp_path / "-t%03d.wav", 22050)
    found = read_sound(tmp_path / "-t%03d.wav", 8000)
    assert abs(len(found) - 5600) <= 16
    spectrum = torch.fft.rfft(found.float()).abs()
    assert float(spectrum.argmax()) * 8000 / len(found) == pytest.approx(500, abs=3)
    assert float(found.float().abs().max()) == pytest.approx(0.5 * 32767, rel=0.05)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("search", "videos", "--sound", "nothing.wav"), "nothing.wav: there is no such file"),
        (("search", "videos", "--sound", "text.wav"), "text.wav: can't be heard"),
        (("search", "videos", "--image", "text.wav"), "text.wav: can't be seen"),
        (("embed", "nowhere"), "nowhere: there is no such folder"),
        (("embed", "videos", "--model", "text.wav"), "text.wav"),
    ],
)
def test_what_can_t_be_read_is_said_in_plain_words(folder, monkeypatch, capsys, words, said):
    Path("text.wav").write_text("no sound at all")
    assert called(monkeypatch, *words) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [("embed",), ("score",), ("search", "--image", "red.png")])
def test_the_device_is_that_of_the_settings(folder, monkeypatch, capsys, words):
    Image.new("RGB", (80, 60), "red").save("red.png")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Path("params.yaml").write_text("compute: {device: cuda, threads: 1}")
    assert called(monkeypatch, *words, folder) == 1
    assert "compute.device: 'cuda', but torch finds no usable GPU" in capsys.readouterr().err
    for text in ("compute: {device: auto}", "compute:", "run: {}"):
        Path("params.yaml").write_text(text)
        assert use.chosen_device() == CPU
    Path("params.yaml").write_text("compute: {devise: cpu}")
    assert called(monkeypatch, *words, folder) == 1
    assert "compute.devise: unknown, did you mean 'device'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("embed",), ("score",), ("search", "--image", "red.png")])
def test_arithmetic_runs_on_the_device(folder, monkeypatch, words):
    """What has no GPU knows torch's device without data: all that is computed comes out without numbers there."""
    Image.new("RGB", (80, 60), "red").save("red.png")
    monkeypatch.setattr(use, "chosen_device", lambda: torch.device("meta"))
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        called(monkeypatch, *words, folder)


def test_the_default_is_alignment_s_lowest_seed(folder, tmp_path, monkeypatch):
    assert default_model() == paths.trained("alignment", 0, paths.OF_CLIPS)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ValueError, match="dvc repro pretrain_clips"):
        default_model()


@pytest.mark.parametrize("use_of", ["embed", "search", "score"])
def test_videos_that_are_of_no_use_are_told(folder, use_of, capsys, monkeypatch):
    Path("videos/empty.mp4").touch()
    Path("videos/text.mp4").write_text("no video")
    Path("videos/copy.mp4").write_bytes(Path("videos/one.mp4").read_bytes())
    av_media.make(Path("videos/silent.mp4"), seconds=2.0, picture=("-c:v", "mjpeg"), sound=("-an",))
    write_wave(Path("tone.wav"), 8000)
    words = {"embed": (), "search": ("--sound", "tone.wav"), "score": ()}[use_of]
    monkeypatch.setattr(sys, "argv", ["sslflow", "av", use_of, "videos", *words])
    assert cli.main() == 0
    said = capsys.readouterr().err
    assert "warning: 3 of 6 videos can't be used" in said
    for name in ("empty.mp4: empty file", "text.mp4: ", "silent.mp4: no sound track"):
        assert f"  {name}" in said
    assert "copy.mp4" not in said.partition("warning")[2]
