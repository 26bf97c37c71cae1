"""Depth maps of a folder: each as large as its image, in steps that are said; what can't be seen or told is said."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from use_fixtures import estimator, segmenter, small

from sslflow import cli, paths
from sslflow.dense.depth.estimator import load_estimator, save_estimator
from sslflow.dense.masks.segmenter import save_segmenter
from sslflow.networks.saved import save_encoder
from sslflow.runtime.files import read_csv
from sslflow.use.depth import depth_folder, stored
from sslflow.use.folder import Done
from sslflow.use.models import open_estimator

CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_estimator(estimator(), tmp_path / "estimator.safetensors")
    return tmp_path / "estimator.safetensors"


def read(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.mode == "I;16"
        return np.asarray(image)


def test_a_folder_of_depth_maps_holds_one_for_every_image(
    folder: Path, model: Path, tmp_path: Path, decoded: list[str]
) -> None:
    said: list[str] = []
    out, network = tmp_path / "depths", open_estimator(str(model))
    assert depth_folder(folder, network, out, CPU, said.append, batch=4) == Done(22, 2, 1, 0)
    names = {f"a/{n:02d}.png" for n in range(12)} | {f"b/deep/{n:02d}.png" for n in range(12, 22)}
    assert {str(one.relative_to(out / "depth")) for one in out.rglob("*.png")} == names
    for name in names:
        found = read(out / "depth" / name)
        with Image.open(folder / name) as image:
            assert found.shape == image.size[::-1]
        (metres,) = network.estimate([folder / name])
        assert np.abs(found / 1000 - metres).max() <= 0.00051
        assert (found > 0).sum() == min(found.shape) ** 2  # what the square doesn't show isn't known
    about = json.loads((out / "about.json").read_text())
    assert (about["depth_scale"], about["unseen"], about["sha256"]) == (0.001, 0, network.sha256)
    assert [row["path"] for row in read_csv(tmp_path / "depths.quarantine.csv")] == ["a/05x.jpg", "b/empty.png"]
    (cut,) = [line for line in said if "middle square" in line]
    assert cut.endswith("those pixels are 0 in the depth maps: not known")
    assert not list(tmp_path.glob(".*"))


def test_what_is_kept_tells_the_same_again(model: Path, folder: Path) -> None:
    made, again = estimator(), load_estimator(model)
    assert (again.known, again.width) == (made.known, 4)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        logs = made(images)
        assert torch.equal(logs, again(images))
    assert open_estimator(str(model)).estimate([folder / "a" / "00.png"])[0].dtype == np.float32


def test_steps_are_rounded_and_what_is_too_far_is_counted() -> None:
    metres = np.array([[0.0, 0.0001, 0.0026], [65.535, 65.6, 700.0]], np.float32)
    cut, png = stored(metres, 0.001)
    with Image.open(io.BytesIO(png)) as image:
        assert np.asarray(image).tolist() == [[0, 1, 3], [65535, 65535, 65535]]
    assert cut == 2
    assert stored(metres, 0.01)[0] == 1


def test_the_command_finds_a_runs_model_and_says_mistakes_in_a_line(
    folder: Path,
    tmp_path: Path,
    decoded: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sslflow", "depth", *map(str, words)])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    monkeypatch.chdir(tmp_path)
    far: Any = estimator("pad")
    far.known = type(far.known)(5.0, 0.3)
    save_estimator(far, paths.estimator("simclr", 0))
    code, out, err = call(folder, "--model", "simclr-0", "--device", "cpu")
    last = "depths: depth of 22 images, in steps of 0.001 m (2 can't be used, 1 other files)"
    assert (code, out.splitlines()[-1]) == (0, last), err
    assert "22 of 22 images have pixels beyond 65.535 m, which became that: --scale 0.01 reaches to 655.35 m" in err
    assert not any((read(one) == 0).any() for one in (tmp_path / "depths").rglob("*.png"))
    code, out, err = call(folder, "--model", "simclr-0", "--device", "cpu", "--scale", "0.01", "--force")
    assert code == 0
    assert "beyond" not in err
    save_estimator(None, tmp_path / "none.safetensors")
    save_encoder(small(), tmp_path / "encoder.safetensors")
    save_segmenter(segmenter(), tmp_path / "segmenter.safetensors")
    for words, says in (
        (("--model", "simclr-1"), "there is no estimator of that run, did you mean 'simclr-0'?"),
        (("--model", "mean-0"), "mean-0 is the mean of the depth maps, whatever the image: there is no model of it"),
        (("--model", "none.safetensors"), "holds no estimator: there were no depth maps to train one on"),
        (("--model", "encoder.safetensors"), "expected an estimator, found an encoder"),
        (("--model", "segmenter.safetensors"), "expected an estimator, found a segmenter"),
        (("--model", "simclr-0", "--scale", "0"), "--scale: expected metres from one value to the next, more than 0"),
        (("--model", "simclr-0", "-o", "depths"), "depths is there already: name another folder with -o"),
    ):
        code, out, err = call(folder, *words, *(() if "-o" in words else ("-o", "m")), "--device", "cpu")
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert says in err, err
