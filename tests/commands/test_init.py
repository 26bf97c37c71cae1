"""`sslflow init`: what it finds in a folder, what it proposes for which machine, what it writes and what never."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sslflow.commands import init, proposal, survey
from sslflow.commands.annotated import annotation_hints
from sslflow.commands.host import Host
from sslflow.commands.labelling import Labels, labels
from sslflow.commands.schedule import NAMES
from sslflow.commands.survey import Counted, Seen, Survey
from sslflow.ingest.images.raster import Used
from sslflow.settings.params import load, lookup
from tests import data_fixtures as made
from tests.conftest import ROOT

CPU = Host("auto", "", 16.0, bf16=False, cores=4, free=100.0, weights=True)
GPU = Host("auto", "H100", 80.0, bf16=True, cores=16, free=900.0, weights=True)
SMALL_GPU = dataclasses.replace(GPU, memory=8.0)
BARE = dataclasses.replace(CPU, weights=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, with the settings that it ships with; the machine has no GPU."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / "dvc.yaml").symlink_to(ROOT / "dvc.yaml")
    (folder / "params.yaml").write_bytes((ROOT / "recipes" / "demo.yaml").read_bytes())
    monkeypatch.chdir(folder)
    monkeypatch.setattr(init, "host", lambda device: dataclasses.replace(CPU, asked=device))
    return folder


def grey16(file: Path, low: int, high: int) -> None:
    values = np.linspace(low, high, 40 * 50).reshape(40, 50).astype(np.uint16)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)


def classes(folder: Path, names: str = "cat dog", count: int = 6) -> Path:
    for number, name in enumerate(names.split()):
        made.fill(folder / name, count, first=100 * number)
    return folder


def surveyed(
    images: int, *, side: int = 400, train: int | None = None, classes: int = 10, videos: int = 0, **seen: Any
) -> Survey:
    """As of a folder of so many images of one size."""
    count = min(images, 200)
    found = Seen(**{"shorter": np.full(count, side), "grey": 0, "deep": [], "refused": [], **seen})
    train = images if train is None else train
    of = Labels("imagefolder" if classes else "folder", Path("raw"), "so it is", classes, train, train)
    return Survey(Path("raw"), Counted(Counter({"": images}), videos), of, found)


def proposed(found: Survey, host: Host, recipe: str = "") -> dict[str, Any]:
    name, why = (recipe, "") if recipe else proposal.choose(found, host)
    content = load(ROOT / "recipes" / f"{name}.yaml")
    whole = proposal.propose(found, host, content, name, why)
    return {"recipe": name, "remarks": whole.remarks, **{one.setting: one.value for one in whole.values}}


# What is in a folder


def counted_labels(root: Path) -> Labels:
    found = survey.count(root)
    return labels(root, found.images, found.whole)


@pytest.mark.parametrize(
    ("names", "source", "path", "why"),
    [
        ("cat/1 cat/2 dog/1 dog/2", "imagefolder", ".", "2 folders of classes"),
        ("train/cat/1 train/dog/1 train/dog/2 train/cat/2 test/cat/3 test/dog/3", "imagefolder", ".", "tested on test"),
        ("flowers/daisy/1 flowers/daisy/2 flowers/rose/1 flowers/rose/2", "imagefolder", "flowers", "2 folders"),
        ("1 2 3", "folder", ".", "no folders in it"),
        ("cat/1 cat/2", "folder", ".", "one folder with images only, cat/"),
        ("2023/1 2023/2 2024-05/3 2024-05/4", "folder", ".", "named by dates (2023"),
        ("100CANON/1 101CANON/2 101CANON/3 100CANON/4", "folder", ".", "named by dates"),
        ("a/1 b/2 b/3 4 5 6", "folder", ".", "3 of 6 images lie beside its folders"),
        ("a/1 b/2 c/3 d/4 d/5", "folder", ".", "3 of 4 folders hold a single image"),
        ("images/1 images/2 masks/1 masks/2", "folder", ".", "expected class folders, found images, masks"),
        ("train/1 train/2 test/1 test/2", "folder", ".", "class"),
    ],
)  # fmt: skip
def test_folders_are_labels_where_they_can_be_meant(
    tmp_path: Path, names: str, source: str, path: str, why: str
) -> None:
    for number, name in enumerate(names.split()):
        made.write(tmp_path / f"{name}.jpg", made.encoded(made.scene(seed=number), "JPEG"))
    found = counted_labels(tmp_path)
    assert (found.source, found.path) == (source, tmp_path / path)
    assert why in found.why
    assert bool(found.classes) == (source == "imagefolder")


def test_unlabelled_images_beside_train_and_test_are_what_is_learnt_from(tmp_path: Path) -> None:
    for part in ("train", "test"):
        classes(tmp_path / part, count=4)
    made.fill(tmp_path / "unlabeled", 30)
    found = counted_labels(tmp_path)
    assert (found.source, found.path, found.probe) == ("folder", tmp_path / "unlabeled", tmp_path)
    assert (found.train, found.labelled, found.classes) == (30, 8, 2)


def test_of_a_folder_too_large_to_count_the_folders_still_tell(tmp_path: Path) -> None:
    for part in ("train", "val"):
        classes(tmp_path / "split" / part, "a b c", count=20)
    classes(tmp_path / "plain", "a b c", count=20)
    classes(tmp_path / "parts", "images masks", count=20)
    for name, source, count in (("split", "imagefolder", 3), ("plain", "imagefolder", 3), ("parts", "folder", 0)):
        found = survey.count(tmp_path / name, files=35)
        assert not found.whole
        assert (of := labels(tmp_path / name, found.images, found.whole)).source == source
        assert of.classes <= count
        assert of.train > 0


def test_counting_ends(tmp_path: Path) -> None:
    made.fill(classes(tmp_path, "a b c d"), 30)
    found = survey.count(tmp_path, files=20)
    assert not found.whole
    assert sum(found.images.values()) == 20
    assert not survey.count(tmp_path, seconds=-1).whole
    everything = survey.count(tmp_path, looked=7)
    assert everything.whole
    assert len(set(everything.chosen)) == 7
    assert everything.chosen == survey.count(tmp_path, looked=7).chosen


def test_a_loop_of_links_and_what_systems_make_are_passed_over(tmp_path: Path) -> None:
    made.fill(tmp_path / "a", 3)
    made.fill(tmp_path / "@eaDir", 3)
    made.write(tmp_path / "notes.txt", b"hello")
    made.write(tmp_path / "film.MP4", b"")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    found = survey.count(tmp_path)
    assert (sum(found.images.values()), found.others, found.videos) == (3, 1, 1)


def test_a_folder_that_can_t_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.fill(tmp_path / "open", 2)
    made.fill(tmp_path / "closed", 2)
    scandir = survey.os.scandir

    def refuse(path: Path) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(survey.os, "scandir", refuse)
    found = survey.count(tmp_path)
    assert found.unreadable == ["closed/ (Permission denied)"]
    assert sum(found.images.values()) == 2
    with pytest.raises(ValueError, match="the folder can't be read"):
        survey.survey(tmp_path / "closed")


def test_images_are_looked_at(tmp_path: Path) -> None:
    made.fill(tmp_path, 3, size=(640, 480))
    made.write(tmp_path / "shade.png", made.encoded(made.scene().convert("L").convert("RGB"), "PNG"))
    made.write(tmp_path / "broken.png", b"\x89PNG\r\n\x1a\n" + bytes(30))
    grey16(tmp_path / "deep.png", 300, 900)
    seen = survey.look(tmp_path, sorted(survey.count(tmp_path).chosen))
    assert sorted(seen.shorter.tolist()) == [30, 40, 480, 480, 480]
    assert seen.grey == 2
    assert len(seen.deep) == 1
    assert [line.partition(":")[0] for line in seen.refused] == ["broken.png"]


@pytest.mark.parametrize(
    ("ranges", "white", "ends"),
    [
        ([(100, 4000), (90, 3000)], 65535, [90, 4000]),
        ([(100, 60_000), (90, 50_000)], 65535, "full"),
        ([(0.0, 1.0), (0.25, 0.5)], None, [0, 1]),
        ([(100 * n, 100 * n + 20) for n in range(1, 300, 9)], 65535, "stretch"),
    ],
)
def test_the_range_that_images_use_becomes_black_and_white(ranges, white, ends) -> None:
    deep = [Used(low, high, white) for low, high in ranges]
    assert Seen(np.array([100]), 1, deep, []).ends == ends


# What is proposed


@pytest.mark.parametrize(
    ("found", "host", "recipe"),
    [
        (surveyed(5_000), CPU, "cpu"),
        (surveyed(5_000), dataclasses.replace(GPU, memory=4.0), "cpu"),
        (surveyed(5_000), GPU, "continue"),
        (surveyed(5_000), dataclasses.replace(GPU, weights=False), "photographs-resnet50"),
        (surveyed(500_000), GPU, "photographs-resnet50"),
        (surveyed(500_000), CPU, "cpu"),
        (surveyed(500, grey=200, deep=[Used(90, 900, 65535)] * 200), GPU, "microscopy"),
        (surveyed(500, grey=0, deep=[Used(90, 900, 65535)] * 200), CPU, "cpu"),
        (surveyed(0, videos=40), CPU, "videos"),
    ],
)  # fmt: skip
def test_the_recipe_goes_by_images_and_machine(found: Survey, host: Host, recipe: str) -> None:
    assert proposal.choose(found, host)[0] == recipe


SIZES = [(12, 0), (40, 10), (300, 10), (5_000, 0), (60_000, 10), (3_000_000, 0)]


@pytest.mark.parametrize("host", [CPU, GPU, SMALL_GPU, BARE], ids=["cpu", "gpu", "small gpu", "bare"])
@pytest.mark.parametrize("recipe", [name for name in NAMES if name != "videos"])
def test_every_proposal_is_in_order(project: Path, recipe: str, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    content = load(ROOT / "recipes" / f"{recipe}.yaml")
    for images, classes in SIZES:
        for side in (28, 64, 480):
            found = surveyed(images, side=side, classes=classes)
            whole = proposal.propose(found, dataclasses.replace(host, free=1e6), content, recipe, "")
            values = {one.setting: one.value for one in whole.values}
            assert 16 <= values["data.image_size"] <= side
            assert values["train.batch_size"] >= 2
            assert images // values["train.batch_size"] >= 2
            assert all(one.why for one in whole.values)
            assert {"random", "pixels"} <= {*values["run.controls"]}, "labels may come later"
    init.write(whole, Path("raw"))  # which checks it
    written = load(project / "params.yaml")
    for setting, value in values.items():
        section, _, key = setting.rpartition(".")
        assert (lookup(written, section) if section else written)[key] == value


def test_values_follow_images_and_machine() -> None:
    few, many = proposed(surveyed(300, train=240), CPU), proposed(surveyed(50_000), CPU)
    assert (few["data.image_size"], many["data.image_size"]) == (96, 64)
    assert few["train.batch_size"] == 32
    assert few["train.epochs"] > many["train.epochs"] == 1
    assert "start.blocks" not in few
    assert many["start.blocks"] == 6
    assert few["compute.threads"] == 2
    on_gpu, on_small = proposed(surveyed(50_000), GPU), proposed(surveyed(50_000), SMALL_GPU)
    assert (on_gpu["train.batch_size"], on_small["train.batch_size"]) == (128, 64)
    assert on_gpu["start.weights"] == "lite0"
    deep = proposed(surveyed(5_000, grey=200, deep=[Used(90, 900, 65535)] * 200), GPU)
    assert (deep["data.image_size"], deep["train.precision"], "start.blocks" in deep) == (224, "bf16", False)


def test_a_smaller_batch_of_a_paper_s_recipe_has_a_smaller_rate() -> None:
    found = proposed(surveyed(500_000), SMALL_GPU, "photographs-resnet50")
    own = load(ROOT / "recipes" / "photographs-resnet50.yaml")
    assert found["train.batch_size"] == 64
    assert found["train.lr"] == own["train"]["lr"] / 4
    assert found["methods.byol.train.lr"] == pytest.approx(own["methods"]["byol"]["train"]["lr"] / 4, rel=1e-3)
    assert "train.lr" not in proposed(surveyed(500_000), GPU, "photographs-resnet50")


def test_tiny_images_get_a_small_stem_rather_than_a_large_network() -> None:
    resnet, vit = (proposed(surveyed(9_000, side=32), GPU, f"photographs-{name}") for name in ("resnet50", "vit-s"))
    assert (resnet["encoder.name"], resnet["encoder.stem_stride"]) == ("resnet18", 1)
    assert vit["encoder.patch_size"] == 4
    assert "encoder.name" not in proposed(surveyed(9_000), GPU, "photographs-resnet50")


def test_without_the_weights_nothing_asks_for_them() -> None:
    found = proposed(surveyed(5_000), BARE, "continue")
    assert found["starts"] == {}
    assert found["start.weights"] == found["start.teacher"] == "random"
    assert found["run.methods"] == ["simclr", "dino"]
    assert found["run.controls"] == ["random", "pixels"]


def test_a_small_disk_makes_small_images_or_none() -> None:
    half = dataclasses.replace(GPU, free=20.0)
    assert proposed(surveyed(90_000), half)["data.image_size"] == 160
    with pytest.raises(ValueError, match=r"90,000 images take 2\.1 GiB at 64 pixels.*and 1\.0 GiB are free here"):
        proposed(surveyed(90_000), dataclasses.replace(GPU, free=1.0))


def test_a_million_images_are_kept_as_jpeg_and_a_few_as_pixels() -> None:
    assert "data.store" not in proposed(surveyed(90_000), dataclasses.replace(GPU, free=500.0))
    found = proposed(surveyed(1_000_000), dataclasses.replace(GPU, free=500.0))
    size = found["data.image_size"]
    assert size >= 160
    assert found["data.store"] == "jpeg"
    assert proposed(surveyed(1_000_000), dataclasses.replace(GPU, free=30.0))["data.image_size"] < size
    with pytest.raises(ValueError, match=r"1,000,000 images take 4\.\d GiB at 64 pixels.*and 1\.0 GiB are free here"):
        proposed(surveyed(1_000_000), dataclasses.replace(GPU, free=1.0))


@pytest.mark.parametrize(
    ("found", "host", "recipe", "said"),
    [
        (surveyed(12), CPU, "", "12 images are a handful"),
        (surveyed(500), CPU, "", "little can be learnt"),
        (surveyed(5_000), CPU, "", "Fine-grained photographs lose"),
        (surveyed(5_000), CPU, "photographs-vit-s", "There is no GPU, and photographs-vit-s is made for one"),
        (surveyed(5_000), GPU, "photographs-vit-s", "--recipe continue is likely to be better"),
        (surveyed(500_000), CPU, "", "takes hours on a CPU"),
        (surveyed(500, refused=["a.png: damaged"]), CPU, "", "1 of 201 images looked at can't be used"),
    ],
)
def test_what_is_worth_knowing_is_said(found: Survey, host: Host, recipe: str, said: str) -> None:
    assert [line for line in proposed(found, host, recipe)["remarks"] if said in line]


# What is written


def test_a_folder_becomes_settings(project: Path, tmp_path: Path) -> None:
    raw = classes(tmp_path / "raw", count=40)
    said = list(init.init(raw))
    assert said[0].startswith("recipe cpu: no GPU")
    assert "  data.source " in said[1]
    written = (project / "params.yaml").read_text()
    assert (
        load(project / "params.yaml")["data"] | {"path": str(raw), "source": "imagefolder"}
        == load(project / "params.yaml")["data"]
    )
    assert "  channels: 3             # 1 grey | 3 colour" in written
    lines = {line.split()[0]: line.split()[1] for line in said if line.startswith("  data.image")}
    assert lines == {"data.image_size": "28"}


@pytest.mark.parametrize(
    ("beside", "content", "setting"),
    [
        ("Annotations/a.xml", b"<annotation/>", "voc:{place}"),
        (
            "annotations/train.json",
            b'{"images": [' + b" " * 200_000 + b'], "categories": []}',
            "coco:{place}/annotations/train.json",
        ),
        ("masks/a/b.png", b"", "masks:{place}/masks"),
        ("notes.json", b'{"images": 3}', ""),
        ("captions.json", b'{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "a cat"}]}', ""),
    ],
)
def test_masks_and_boxes_beside_images_are_pointed_out(
    tmp_path: Path, beside: str, content: bytes, setting: str
) -> None:
    made.write(tmp_path / "set" / beside, content)
    (tmp_path / "set/images").mkdir()
    for folder in (tmp_path / "set", tmp_path / "set/images"):
        said = list(annotation_hints(folder))
        assert len(said) == bool(setting)
        wanted = setting.format(place=tmp_path / "set")
        assert (
            not said
            or f"set data.annotations to {wanted}, and name methods in run.segment or run.detect (docs/dense.md)"
            in said[0]
        )


def test_depth_maps_beside_images_are_pointed_out(tmp_path: Path) -> None:
    file = tmp_path / "set/depth/a/b.png"
    file.parent.mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(file)
    assert not list(annotation_hints(tmp_path / "set/images"))
    Image.fromarray(np.full((4, 4), 900, np.uint16)).save(file)
    for folder in (tmp_path / "set", tmp_path / "set/images"):
        (said,) = annotation_hints(folder)
        assert f"set data.depth to png:{tmp_path / 'set/depth'}" in said


def test_a_file_of_coco_s_to_test_on_is_pointed_out(tmp_path: Path) -> None:
    for name in ("instances_train2017", "a_val"):
        made.write(tmp_path / f"set/annotations/{name}.json", b'{"categories": [')
    (said,) = annotation_hints(tmp_path / "set")
    place = tmp_path / "set/annotations"
    assert f"to coco:{place}/instances_train2017.json, and data.annotations_test to coco:{place}/a_val.json" in said


def test_grey_images_of_16_bits(project: Path, tmp_path: Path) -> None:
    for number in range(9):
        grey16(tmp_path / "raw" / f"{number}.png", 300 + number, 2000 + number)
    list(init.init(tmp_path / "raw"))
    data = load(project / "params.yaml")["data"]
    assert (data["sixteen_bit"], data["channels"]) == ([307, 2000], 1)


def test_videos(project: Path, tmp_path: Path) -> None:
    for number in range(4):
        made.write(tmp_path / "raw" / "ab"[number % 2] / f"{number}.mp4", b"")
    made.fill(tmp_path / "raw", 1)
    said = "\n".join(init.init(tmp_path / "raw"))
    assert "1 images are left out" in said
    content = load(project / "params.yaml")
    assert content["data"]["source"] == "none"
    assert (content["clips"]["mine"]["source"], content["clips"]["mine"]["path"]) == ("folders", str(tmp_path / "raw"))


def test_what_somebody_edited_stays(project: Path, tmp_path: Path) -> None:
    raw, file = classes(tmp_path / "raw"), project / "params.yaml"
    list(init.init(raw))
    first = file.read_text()
    list(init.init(raw, "microscopy"))  # its own is nobody's
    assert file.read_text() != first
    file.write_text(first.replace("flip: 0.5", "flip: 0.0", 1))
    edited = file.read_bytes()
    with pytest.raises(ValueError, match="was edited"):
        list(init.init(raw))
    assert file.read_bytes() == edited
    list(init.init(raw, force=True))
    assert file.read_text() == first
    file.write_text(first + "# a word of mine\n")
    with pytest.raises(ValueError, match="was edited"):
        list(init.init(raw))
    file.unlink()
    list(init.init(raw))
    assert file.read_text() == first


def nothing(folder: Path) -> None:
    folder.mkdir()


def text(folder: Path) -> None:
    made.write(folder / "a.txt", b"hello")


def file(folder: Path) -> None:
    folder.write_text("hello")


def three(folder: Path) -> None:
    made.fill(folder, 3)


def broken(folder: Path) -> None:
    for number in range(9):
        made.write(folder / f"{number}.jpg", b"\xff\xd8\xff\xe0nothing")


WRONG = [
    (lambda folder: None, None, "there is no such folder"),
    (nothing, None, "no images and no videos here"),
    (text, None, "no images and no videos here; 1 other files"),
    (file, None, "expected a folder of images or videos, found a file"),
    (three, None, "3 images: nothing can be learnt from fewer than 8"),
    (broken, None, "none of 9 images looked at can be used: "),
    (three, "videos", "no videos here, and 3 images"),
    (three, "photograph-vit-s", "there is no recipe 'photograph-vit-s', did you mean 'photographs-vit-s'?"),
    (three, "demo", "there is no recipe 'demo'"),
]


@pytest.mark.parametrize(("make", "recipe", "said"), WRONG)
def test_what_can_t_be_is_said_and_nothing_written(
    project: Path, tmp_path: Path, make: Callable[[Path], None], recipe: str | None, said: str
) -> None:
    make(tmp_path / "raw")
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        list(init.init(tmp_path / "raw", recipe))
    assert "\n" not in str(caught.value)
    assert (project / "params.yaml").read_bytes() == before


def test_a_folder_that_holds_the_project_s_results_is_refused(project: Path) -> None:
    made.fill(project / "images", 9)
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ValueError, match="holds the project's own results"):
        list(init.init(Path()))
    assert (project / "params.yaml").read_bytes() == before


def test_outside_of_a_project_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="run this in a copy of the project"):
        list(init.init(tmp_path))
