"""Masks of a folder: each as large as its image, what can't be seen or used is said, nothing is overwritten."""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from use_fixtures import segmenter, small

from sslflow import cli, paths
from sslflow.data.annotated import IGNORED
from sslflow.dense.masks.segmenter import save_segmenter
from sslflow.networks.saved import save_encoder
from sslflow.runtime.files import read_csv
from sslflow.use import folder as through
from sslflow.use import models
from sslflow.use import segment as segmenting
from sslflow.use.folder import Done
from sslflow.use.masks import palette
from sslflow.use.models import open_segmenter
from sslflow.use.segment import segment_folder

CPU = torch.device("cpu")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_segmenter(segmenter(), tmp_path / "segmenter.safetensors")
    return tmp_path / "segmenter.safetensors"


def made(folder: Path, model: Path, out: Path, said: list[str] | None = None, **settings: Any) -> Done:
    tell = (said if said is not None else []).append
    return segment_folder(folder, open_segmenter(str(model)), out, CPU, tell, **{"batch": 4, **settings})


def mask_of(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        assert image.mode == "P"
        return np.asarray(image)


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools, which decodes
def test_a_folder_of_masks_holds_one_for_every_image(
    folder: Path, model: Path, tmp_path: Path, decoded: list[str]
) -> None:
    with Image.open(folder / "a" / "04.png") as image:
        image.transpose(Image.Transpose.ROTATE_90).save(folder / "a" / "04.bmp")
        image.convert("RGB").save(folder / "a" / "04.png.jpg")
    said: list[str] = []
    out = tmp_path / "masks"
    assert made(folder, model, out, said, as_coco=True) == Done(24, 2, 1, 0)
    network = open_segmenter(str(model))
    names = {f"a/{n:02d}.png" for n in range(12)} | {f"b/deep/{n:02d}.png" for n in range(12, 22)}
    files = {f"{name}.png" if "/04." in name else name for name in names} | {"a/04.bmp.png", "a/04.png.jpg.png"}
    assert {str(one.relative_to(out / "masks")) for one in out.rglob("*.png")} == files
    assert any(line.startswith("warning: there are 1 names such as a/04 with several endings") for line in said)
    seen: set[int] = set()
    for name in [*names, "a/04.bmp", "a/04.png.jpg"]:
        size, mask = size_of(folder / name), mask_of(out / "masks" / (f"{name}.png" if "/04." in name else name))
        assert mask.shape == size[::-1]
        assert np.array_equal(mask, network.segment([folder / name])[0])
        assert (mask != IGNORED).sum() == min(size) ** 2
        seen |= set(mask.ravel().tolist())
    assert seen == {0, 1, 2, IGNORED}
    rows = read_csv(out / "classes.csv")
    assert [(row["number"], row["name"], row["colour"]) for row in rows][:2] == [
        ("0", "ground", "#000000"),
        ("1", "sky", "#800000"),
    ]
    about = json.loads((out / "about.json").read_text())
    assert (about["classes"], about["unseen"], about["sha256"]) == (["ground", "sky", "bird"], 255, network.sha256)
    bad = read_csv(tmp_path / "masks.quarantine.csv")
    assert [row["path"] for row in bad] == ["a/05x.jpg", "b/empty.png"]
    (cut,) = [line for line in said if "middle square" in line]
    assert cut == (
        "warning: the model sees only the middle square of 24 of 24 images: on average 17 % of their area is cut away; "
        "those pixels are 255 in the masks"
    )
    assert not list(tmp_path.glob(".*"))

    coco = COCO(str(out / "masks.json"))
    for one in coco.loadImgs(coco.getImgIds()):
        own = coco.loadAnns(coco.getAnnIds(imgIds=one["id"]))
        again = np.full((one["height"], one["width"]), IGNORED, np.uint8)
        for region in own:
            again[coco.annToMask(region) > 0] = region["category_id"]
            assert region["area"] == coco.annToMask(region).sum()
        name = one["file_name"]
        assert np.array_equal(again, mask_of(out / "masks" / (f"{name}.png" if "/04." in name else name)))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == ["ground", "sky", "bird"]


def test_a_stopped_run_goes_on(
    folder: Path, model: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(folder, model, tmp_path / "whole")
    whole: Callable = through.examine_all

    def some(*given: Any):
        monkeypatch.setattr(through, "examine_all", whole)
        for number, item in enumerate(whole(*given)):
            if number == 15:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(through, "examine_all", some)
    with pytest.raises(KeyboardInterrupt):
        made(folder, model, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()
    said: list[str] = []
    assert made(folder, model, tmp_path / "masks", said).resumed == 12
    assert said[0] == "segment  resumed: 12 of 24 images are done already"
    for one in (tmp_path / "whole").rglob("*.png"):
        assert (tmp_path / "masks" / one.relative_to(tmp_path / "whole")).read_bytes() == one.read_bytes()


def test_masks_are_made_one_by_one_and_their_room_is_known_before(
    folder: Path, model: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def noted(name: str, work: Callable) -> Callable:
        def done(*given: Any) -> Any:
            events.append(name)
            return work(*given)

        return done

    monkeypatch.setattr(models, "classes_back", noted("made", models.classes_back))
    monkeypatch.setattr(segmenting, "as_png", noted("packed", segmenting.as_png))
    made(folder, model, tmp_path / "masks")
    assert events[::2] == ["made"] * (len(events) // 2)
    assert events[1::2] == ["packed"] * (len(events) // 2)
    written = [file.stat().st_size for file in (tmp_path / "masks").rglob("*.png")]
    monkeypatch.setattr(through.shutil, "disk_usage", lambda place: Usage(9, 9, 10_000))
    decoded.clear()
    with pytest.raises(
        ValueError, match=r"24 images take .* choose another disk, or make the images smaller"
    ) as caught:
        made(folder, model, tmp_path / "again")
    told = float(str(caught.value).split("images take ")[1].split(" kB")[0])
    assert 1000 * told == pytest.approx(np.mean(written), rel=0.1)
    assert decoded == []


def test_no_mask_takes_another_ones_name(folder: Path, model: Path, tmp_path: Path, decoded: list[str]) -> None:
    some = tmp_path / "some"
    some.mkdir()
    names = ["a.jpg", "a.png", "a.jpg.jpg", "a.jpg.png.bmp", "b.jpg", "B.png", "c.jpg"]
    with Image.open(folder / "a" / "04.png") as image:
        for number, name in enumerate(names):
            image.crop((0, 0, 20, 18 + number)).save(some / name)
    made(some, model, tmp_path / "masks")
    short = {"c.jpg": "c.png", "a.jpg.png.bmp": "a.jpg.png.png"}
    for number, name in enumerate(names):
        assert size_of(tmp_path / "masks" / "masks" / short.get(name, f"{name}.png")) == (20, 18 + number)


def test_nothing_is_overwritten_unasked(folder: Path, model: Path, tmp_path: Path, decoded: list[str]) -> None:
    out = tmp_path / "masks"
    made(folder, model, out)
    (out / "masks" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="masks is there already: name another folder with -o, or replace it with"):
        made(folder, model, out)
    assert (out / "masks" / "mine.txt").exists()
    made(folder, model, out, force=True)
    assert not (out / "masks" / "mine.txt").exists()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match="is there already, and no masks of `sslflow segment`"):
        made(folder, model, other, force=True)
    with pytest.raises(ValueError, match="the next time its masks would be images"):
        made(folder, model, folder / "masks")


def test_the_command_finds_a_runs_model_and_says_mistakes_in_a_line(
    folder: Path,
    file: Path,
    model: Path,
    tmp_path: Path,
    decoded: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["sslflow", *map(str, words)])
        code = cli.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    monkeypatch.chdir(tmp_path)
    code, _, err = call("segment", folder, "--model", "simclr-0")
    assert (code, err) == (
        1,
        "artifacts/segmenters/simclr-0.safetensors: there is no segmenter of that run; `sslflow run` trains those of "
        "run.segment in params.yaml\n",
    )
    save_segmenter(segmenter("pad"), paths.segmenter("simclr", 0))
    code, out, err = call("segment", folder, "--model", "simclr-0", "--device", "cpu")
    assert (code, out.splitlines()[-1]) == (
        0,
        "segmented: masks of 22 images, 3 classes (2 can't be used, 1 other files)",
    )
    assert "middle square" not in err
    assert not any((mask_of(one) == IGNORED).any() for one in (tmp_path / "segmented").rglob("*.png"))
    save_segmenter(None, tmp_path / "none.safetensors")
    spoiled = segmenter()
    torch.nn.init.constant_(spoiled.decoder.last.weight, torch.nan)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    save_segmenter(spoiled, tmp_path / "spoiled.safetensors")
    save_encoder(small(), tmp_path / "encoder.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    for words, says in (
        (("--model", "simclr-1"), "there is no encoder of that run"),
        (("--model", "nothing.safetensors"), "nothing.safetensors: there is no such file, nor run"),
        (("--model", "none.safetensors"), "holds no segmenter: there were no masks to train one on"),
        (("--model", "spoiled.safetensors"), "its weights are not finite numbers: damaged"),
        (("--model", "encoder.safetensors"), "expected a segmenter, found an encoder"),
        (("--model", "text.safetensors"), "text.safetensors: damaged, or of another version of sslflow"),
        (("--model", "simclr-0", "--batch", "0"), "--batch: expected 1 or more"),
        (("--model", "simclr-0", "--sixteen-bit", "9,3"), "--sixteen-bit: expected full"),
    ):
        code, out, err = call("segment", folder, *words, "-o", "m", "--device", "cpu")
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert says.replace("encoder of that", "segmenter of that") in err


def test_colours_are_those_of_pascal_voc() -> None:
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert [tuple(one) for one in palette()[:5].tolist()] == expected
    assert tuple(palette()[15].tolist()) == (192, 128, 128)
    assert len(np.unique(palette()[:255], axis=0)) == 255
