from __future__ import annotations

import csv
import json
import re
import subprocess
from html.parser import HTMLParser

import fakerun
import numpy as np
import pyarrow.parquet as pq
import pytest

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.drawing.embedded import sprite
from sslflow.ingest.images.prepare import prepare
from sslflow.reporting import curves, origin, story
from sslflow.reporting.images import atlas, neighbours
from sslflow.reporting.images.confusion import confusion
from sslflow.runtime.files import read_json, write_csv, write_json
from sslflow.stages import report
from tests.conftest import write_dataset

CLASSES = ("boot", "bag", "coat")
HOSTILE = '"><script>alert(1)</script><img src=https://x.invalid/a.png onerror=alert(2)>.png'
PARAMS = """
run: {methods: [METHODS], seeds: [SEEDS], launch: python -m}
report: {map_images: 60, queries: 3, neighbour_count: 4}
finetune: {fractions: [0.1, 0.01]}
methods: {simclr: {temperature: 0.2}, rotation: {}, stale: {secret: 42}}
data: {}
"""


class Page(HTMLParser):
    """Everything that a test wants to know of a page, read as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag in ("script", "style", "title"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def params(methods: str, seeds: str) -> None:
    (paths.ARTIFACTS.parent / "params.yaml").write_text(PARAMS.replace("METHODS", methods).replace("SEEDS", seeds))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made() -> Page:
    report.main()
    return Page((paths.REPORT / "index.html").read_text())


def test_whole(folder, capsys):
    params("rotation, simclr", "0, 1")
    labels = fakerun.whole(["rotation", "simclr"], [0, 1], CLASSES, {"train": 90, "test": 30})
    write_json(paths.metrics("prepare"), {"duplicates": 3, "leaked": 2, "quarantined": 1})
    write_csv(paths.PREPARED / "quarantine.csv", ["path", "reason"], [["a.jpg", "truncated"]])
    facts = read_json(paths.PREPARED / "dataset.json")
    write_json(paths.PREPARED / "dataset.json", facts | {"warnings": ["nothing to test on of 1 of 3 classes: <owl>"]})
    for seed in (0, 1):
        answers = [[row, "bag", "bag" if row % 2 else "boot", "bag"] for row in range(90, 120)]
        write_csv(paths.tuned("scratch", seed), ["row", "actual", "each 1 0", "each 1 1"], answers)
    page = made()

    headings = " ".join(page.text.split())
    assert "rotation: a linear classifier on its frozen features is right on 85.5 % of the test images" in headings
    # The distance is that of the answers that its interval is of, not of the numbers on the board.
    assert re.search(r"6\.7 points \([^)]*: may be chance\) above random weights and 10\.5 points above raw", headings)
    assert "rotation beside each control, at equal accuracy: random weights:" in headings
    assert "Fine-tuned with 10 % of the labels it reaches 88.0 %, 8.0 points above training from scratch" in headings
    for words in (
        "fine-tuned 1 %",
        "fine-tuned, 1 a class",
        "from scratch–75.0 (",
        "Energy of training: not read",
        "Retrieval: does an image find others of its class?",
        "R@1",
        "3 exact duplicates",
        f"3 classes: {', '.join(f'{name} {(labels == number).sum()}' for number, name in enumerate(CLASSES))}.",
        "nothing to test on of 1 of 3 classes: <owl>",
        "1 × truncated",
        "Leakage, mended.",
        "Most frequent mistakes",
        "rotation Healthy: it learns.",
        "simclr Sick. It is flat. Try less. (seed 1) Healthy: it learns. (seed 0)",
    ):
        assert words in headings
    identities = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] for attributes in page.all("a")]
    assert len(links) == 12
    assert all(link.startswith("#") and link[1:] in identities for link in links)
    assert len(page.all("svg")) == 1 + 2 * 3
    pictures = [attributes["alt"] for attributes in page.all("img")]
    assert "What rotation makes of a few images" in pictures

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "report: artifacts/report/index.html"
    assert any(line.startswith("random weights") for line in lines)
    with (paths.ARTIFACTS / "curves.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["run", "step", *curves.SHOWN]
    assert {row["run"] for row in rows} == {"rotation-0", "rotation-1", "simclr-0", "simclr-1"}
    assert len(rows) == 4 * 20


def test_asks_the_network_for_nothing(folder):
    params("simclr", "0")
    fakerun.whole(["simclr"], [0], CLASSES, {"train": 40, "test": 10})
    page = made()
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster", "data", "action", "xlink:href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
        assert "url(" not in attributes.get("style", "")
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed", "base", "form"})
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    whole = (paths.REPORT / "index.html").read_text()
    style = whole.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|WebSocket|eval)\s*\(", " ".join(page.scripts))
    assert all("alt" in attributes for attributes in page.all("img"))


def test_hostile_names_stay_text(folder):
    params("simclr", "0")
    classes = ("<b>boot</b>", "</script><script>alert(3)</script>", "coat & bag")
    fakerun.whole(["simclr"], [0], classes, {"train": 40, "test": 10})
    fakerun.dataset(folder / "hostile", {"train": 40, "test": 10}, classes, names=[HOSTILE] * 50)
    for file in (folder / "hostile").iterdir():
        file.replace(paths.PREPARED / file.name)
    write_csv(paths.PREPARED / "quarantine.csv", ["path", "reason"], [[HOSTILE, f"broken: {HOSTILE}"]])
    page = made()
    assert len(page.all("script")) == 3
    assert not any("onerror" in attributes or "https" in attributes.get("src", "") for _, attributes in page.tags)
    assert not page.all("b")
    data = json.loads(next(script for script in page.scripts if script.startswith("{")))
    assert data["names"] == [HOSTILE] * 50
    assert data["classes"] == list(classes)
    assert HOSTILE in page.text


def test_without_labels(folder):
    params("simclr", "0")
    labels = fakerun.dataset(paths.PREPARED, {"pool": 50})
    fakerun.features("simclr", 0, labels)
    fakerun.curve("simclr", 0)
    fakerun.clusters("simclr", 0, labels)
    fakerun.metrics("probe", "simclr", 0)
    fakerun.metrics("pretrain", "simclr", 0, rankme=9.0, seconds=1.0)
    write_csv(paths.predictions("simclr", 0), ["row", "actual", "predicted"], [])
    page = made()
    assert "No labels" in page.text
    assert "Confusion" not in page.text
    assert "accuracy" not in page.text.lower()
    assert "Nearest neighbours" in page.text
    assert not any("wrong" in attributes.get("class", "").split() for _, attributes in page.tags)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_handful_of_images_and_nothing_else(folder, count):
    params("simclr", "0")
    labels = fakerun.dataset(paths.PREPARED, {"pool": count}, channels=3)
    fakerun.features("simclr", 0, labels)
    page = made()
    data = json.loads(next(script for script in page.scripts if script.startswith("{")))
    assert len(data["methods"][0]["xy"]) == count
    assert "No curve was written." in page.text
    assert "Nothing has been measured yet." in page.text


def test_without_images_it_is_about_videos(folder, capsys):
    prepare(paths.PREPARED, lambda line: None, source="none", image_size=8, channels=3)
    (folder / "params.yaml").write_text("run: {methods: [], clip_methods: [alignment], seeds: [0]}\nreport: {}\n")
    page = made()
    assert "pictures and sounds of videos" in page.text
    assert "Leaderboard" not in page.text
    assert "0 images" not in page.text
    assert "nothing has been measured" not in capsys.readouterr().out


def test_no_features_no_map(folder):
    params("simclr", "0")
    fakerun.dataset(paths.PREPARED, {"pool": 5})
    page = made()
    assert not page.all("canvas")


def test_labelled_but_not_probed(folder):
    params("simclr", "0")
    labels = fakerun.dataset(paths.PREPARED, {"train": 20, "test": 4}, CLASSES)
    fakerun.features("simclr", 0, labels)
    page = made()
    assert "1 method, not probed yet." in page.text
    assert "No labels" not in page.text


def test_no_method_has_finished(folder):
    params("simclr, rotation", "0, 1")
    fakerun.dataset(paths.PREPARED, {"train": 20, "test": 4}, CLASSES)
    page = made()
    assert "2 methods, not probed yet." in page.text
    assert "Nothing has been measured yet." in page.text
    assert "No curve was written." in page.text
    assert json.loads((paths.REPORT / "run.json").read_text())["methods"] == ["simclr", "rotation"]


def test_one_class_and_a_test_set_without_images(folder):
    params("simclr", "0")
    labels = fakerun.dataset(paths.PREPARED, {"train": 20}, ("boot",))
    fakerun.features("simclr", 0, labels)
    fakerun.metrics("probe", "simclr", 0)
    write_csv(paths.predictions("simclr", 0), ["row", "actual", "predicted", "neighbours"], [])
    page = made()
    assert "No labels" in page.text, "none that anything could be measured by"
    assert "Nearest neighbours" in page.text
    data = json.loads(next(script for script in page.scripts if script.startswith("{")))
    assert (data["classes"], data["methods"][0]["answers"]) == (["boot"], [])
    assert (paths.REPORT / "test_images.csv").read_text() == "row,path,sha256,label,group\n"


def test_features_that_are_no_numbers_are_told_and_the_others_shown(folder):
    params("simclr, rotation", "0")
    fakerun.whole(["simclr", "rotation"], [0], CLASSES, {"train": 40, "test": 10})
    file = paths.features("simclr", 0) / "features.npy"
    features = np.load(file)
    features[[3, 7], 2] = np.nan, np.inf
    np.save(file, features)
    page = made()
    assert "simclr: the features of 2 of 50 images are not finite numbers" in page.text
    data = json.loads(next(script for script in page.scripts if script.startswith("{")))
    assert [method["method"] for method in data["methods"]] == ["rotation"]


def test_what_spoils_the_numbers_stands_above_them(folder):
    params("rotation, simclr", "0, 1")
    fakerun.whole(["rotation", "simclr"], [0, 1], CLASSES, {"train": 40, "test": 10})
    text = made().text
    assert text.index("Sick. simclr (seed 1): It is flat.") < text.rindex("Leaderboard")


def test_the_map_knows_errors_and_clusters(folder):
    params("simclr", "0")
    labels = fakerun.whole(["simclr"], [0], CLASSES, {"train": 30, "test": 30})
    page = made()
    data = json.loads(next(script for script in page.scripts if script.startswith("{")))
    (method,) = data["methods"]
    assert method["answers"][:30] == [-1] * 30
    wrong = [answer != label for answer, label in zip(method["answers"][30:], labels[30:], strict=True)]
    assert wrong == [number % 5 == 0 for number in range(30)]
    assert (data["suspicions"], method["clusters"]) == ([], labels.tolist())


def test_the_run_card_says_what_the_numbers_rest_on(folder):
    params("simclr", "0, 1")
    labels = fakerun.whole(["simclr"], [0, 1], CLASSES, {"train": 40, "test": 10})
    page = made()
    card = json.loads((paths.REPORT / "run.json").read_text())
    assert (card["methods"], card["seeds"], card["data"]["images"]) == (["simclr"], [0, 1], 50)
    assert card["params"]["methods"] == {"simclr": {"temperature": 0.2}}
    assert {"stage": "pretrain", "run": "simclr-1", "seconds": 90.0} in card["seconds"]
    assert card["machine"]["cores"] >= 1
    assert card["data"]["sha256"][:12] in page.text
    with (paths.REPORT / "test_images.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["label"] for row in rows] == [CLASSES[label] for label in labels[40:]]
    manifest = pq.read_table(paths.PREPARED / "manifest.parquet")
    other = ["1", *manifest["sha256"].to_pylist()[1:]]
    place = manifest.schema.get_field_index("sha256")
    pq.write_table(manifest.set_column(place, "sha256", [other]), paths.PREPARED / "manifest.parquet")
    report.main()
    assert json.loads((paths.REPORT / "run.json").read_text())["data"]["sha256"] != card["data"]["sha256"]


def test_code_has_changed_where_more_than_settings_and_results_have(folder):
    author = [f"-c user.{key}={value}" for key, value in (("name", "a"), ("email", "a@b.c"))]
    git = ["git", *" ".join(author).split()]
    (folder / "artifacts").mkdir()
    for name in ("params.yaml", "code.py", "dvc.lock", "artifacts/curves.csv"):
        (folder / name).write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    for name in ("params.yaml", "dvc.lock", "artifacts/curves.csv"):
        (folder / name).write_text("2")
    assert re.fullmatch("[0-9a-f]{12}", origin.commit())
    (folder / "code.py").write_text("2")
    assert origin.commit().endswith(" with changes")


def test_panels_of_a_quantity_share_their_axes(folder):
    for method, steps in (("a", 10), ("b", 20)):
        for seed in (0, 1):
            fakerun.curve(method, seed, steps=steps)
    found = {row.title: row for row in curves.panels(["a", "b", "c"], [0, 1])}
    rows = {
        title: [re.findall(r'text-anchor="(?:end|middle)">(.*?)<', one) for _, one in row.drawn]
        for title, row in found.items()
    }
    assert [name for name, _ in found["RankMe"].drawn] == ["a", "b"]
    assert rows["RankMe"][0] == rows["RankMe"][1]
    assert rows["Loss"][0][-1] == rows["Loss"][1][-1] == "20"
    assert found["RankMe"].drawn[0][1].count("<polyline") == 2


def test_what_other_runs_left_is_not_looked_at(folder):
    fakerun.whole(["stale", "simclr"], [0, 3], CLASSES, {"train": 40, "test": 10})
    params("simclr", "0")
    page = made()
    whole = (paths.REPORT / "index.html").read_text()
    assert "stale" not in whole
    assert "secret" not in whole
    assert "temperature" in page.text
    assert "stale" not in (paths.ARTIFACTS / "curves.csv").read_text()
    assert set(json.loads(paths.LEADERBOARD.read_text())) == {"simclr", "random", "pixels", "scratch"}


def test_a_missing_run_is_told(folder):
    fakerun.whole(["simclr"], [0], CLASSES, {"train": 40, "test": 10})
    params("simclr", "0, 1")
    assert "simclr, linear: 1 of 2 seeds" in made().text


def test_features_of_other_images_are_refused(folder):
    params("simclr", "0")
    fakerun.dataset(paths.PREPARED, {"pool": 6})
    fakerun.features("simclr", 0, np.zeros(5, dtype=np.int64))
    with pytest.raises(ValueError, match="features of 5 images, but 6 are prepared"):
        report.main()


def test_same_input_same_page(folder):
    params("simclr", "0")
    fakerun.whole(["simclr"], [0], CLASSES, {"train": 40, "test": 10})
    report.main()
    first = (paths.REPORT / "index.html").read_bytes()
    report.main()
    assert (paths.REPORT / "index.html").read_bytes() == first


def test_map_keeps_groups_together_and_survives_collapse():
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 30)
    features = np.eye(3, 8)[labels] + 0.05 * draw.normal(size=(90, 8))
    places_ = atlas.embed(features.astype(np.float32), seed=0)
    assert places_.min() >= 0
    assert places_.max() <= 1
    distances = np.linalg.norm(places_[:, None] - places_[None], axis=2) + np.eye(90) * 9
    assert (labels[distances.argmin(axis=1)] == labels).mean() > 0.95
    assert np.allclose(atlas.embed(np.ones((20, 4), dtype=np.float32), seed=0), 0.5)


def test_neighbours_match_a_full_sort(monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    draw = np.random.default_rng(0)
    features = draw.normal(size=(40, 5)).astype(np.float32)
    asked, bank = np.array([0, 33]), np.arange(30)
    rows, close = neighbours.nearest(features, asked, bank, 6)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for query, found, similarity in zip(asked, rows, close, strict=True):
        expected = unit[query] @ unit[:30].T
        expected[bank == query] = -2
        assert found.tolist() == np.argsort(-expected)[:6].tolist()
        assert np.allclose(similarity, np.sort(expected)[::-1][:6], atol=1e-6)


def test_wrong_neighbours_are_those_of_another_class(folder):
    labels = fakerun.dataset(paths.PREPARED, {"train": 20, "test": 4}, CLASSES)
    features = np.random.default_rng(1).normal(size=(24, 3)).astype(np.float32)
    for line in neighbours.table(Dataset(), features, np.array([20, 21]), 5):
        own = line[0].label
        assert [item.wrong for item in line[1:]] == [item.label != own for item in line[1:]]
    assert len(set(labels.tolist())) > 1


def test_neighbours_of_large_images_are_shown_small(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 300, 300), dtype=np.uint8)
    dataset = write_dataset(tmp_path / "large", pixels, np.zeros(6, np.int64), ["train"] * 4 + ["test"] * 2)
    ((query, *_),) = neighbours.table(dataset, np.ones((6, 2), np.float32), np.array([4]), 2)
    assert (query.picture.width, query.picture.height) == (112, 112)
    small = write_dataset(tmp_path / "small", pixels[..., :28, :28], np.zeros(6, np.int64), ["train"] * 6)
    ((query, *_),) = neighbours.table(small, np.ones((6, 2), np.float32), np.array([4]), 2)
    assert query.picture.width == 28


def test_confusion_counts(folder):
    write_csv(
        folder / "a.csv", ["row", "actual", "predicted"], [[0, "bag", "bag"], [1, "bag", "boot"], [2, "coat", "coat"]]
    )
    found = confusion([folder / "a.csv", folder / "absent.csv"], CLASSES)
    assert found is not None
    assert found.counts.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert found.shares[1] == [0.5, 0.5, 0.0]
    assert found.mistakes() == [("bag", "boot", 1, 0.5)]


def test_curve_points_are_thinned_and_gaps_left_out():
    rows = [{"step": str(step), "loss": "" if step == 5 else str(2 * step)} for step in range(1, 1001)]
    points = curves.points(rows, "loss")
    assert len(points) <= curves.POINTS
    assert all(y == pytest.approx(2 * x) for x, y in points)
    assert curves.points(rows, "rankme") == []


@pytest.mark.parametrize(("low", "high"), [(0.0, 5.03), (-3.2e-5, 4e-5), (7.0, 7.0), (0.0, 0.0), (12345.0, 98765.0)])
def test_ticks_span_the_values(low, high):
    found = curves.ticks(low, high)
    assert found[0] <= low + 1e-9 * abs(low)
    assert found[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(found) <= 7


def test_sprite_holds_every_image():
    page, columns = sprite(np.zeros((10, 1, 8, 8), dtype=np.uint8), cell=6)
    assert (columns, page.width, page.height) == (4, 24, 18)


def test_remarks_warn_of_what_is_not_better_than_random_weights():
    def row(linear: float, std: float = 0.0) -> dict[str, dict[str, float]]:
        return {"linear": {"mean": linear, "std": std, "n": 2}}

    board = {"simclr": row(0.62, 0.02), "rotation": row(0.60, 0.02), "random": row(0.61)}
    sentences = " ".join(story.remarks(board, ["simclr", "rotation"], (), True))
    assert "within the spread of the seeds" in sentences
    assert "rotation does not beat random weights (60.0 % against 61.0 %)" in sentences
    assert "simclr does not beat" not in sentences


def test_what_few_labelled_images_mean_is_said(folder):
    params("simclr", "0")
    fakerun.whole(["simclr"], [0], CLASSES, {"train": 12, "test": 10})
    text = made().text
    assert "There are 10 labelled test images: one more that is right is 10.0 points" in text
    assert "kNN asks for 20 neighbours, and there are 12 labelled training images: all of them vote." in text


def test_rows_that_no_image_has_masks_for_are_said(folder):
    params("simclr", "0")
    file = paths.ARTIFACTS.parent / "params.yaml"
    file.write_text(file.read_text().replace("run: {", "run: {segment: [simclr], "))
    fakerun.whole(["simclr"], [0], CLASSES, {"train": 12, "test": 10})
    text = made().text
    assert "run.segment and its controls were left out: there are no images with masks to train and to test on" in text
    assert "run.detect" not in text


def test_of_many_labelled_images_nothing_is_said(folder):
    params("simclr", "0")
    fakerun.whole(["simclr"], [0], CLASSES, {"train": 30, "test": 220})
    text = made().text
    assert "labelled test images" not in text
    assert "neighbours, and there are" not in text
