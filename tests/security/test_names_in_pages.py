"""Names of folders and files as they may come from anywhere, from a folder to the report: they stay text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import fakerun
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.data.splits import TEST
from sslflow.settings.params import load
from sslflow.stages import prepare, probe, report, scan
from tests.conftest import RECIPE, first_images

CLASSES = ("<img src=x onerror=alert(1)>", "\"'><script>alert(2)<", "plain & simple")
FILE = "a\"b'c<svg onload=alert(3)>&amp;"
BROKEN = "'\"><iframe src=x>.png"
PLAIN = re.compile(r"[A-Za-z0-9:-]+")


class Elements(HTMLParser):
    """Elements with their attributes, and the text, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.parts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def laid(folder: Path) -> None:
    """Images in a folder for each class, one that is broken, and settings for them."""
    for number, image in enumerate(first_images(36)[0]):
        place = folder / "data/raw" / CLASSES[number % 3] / f"{FILE} {number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(place)
    (folder / "data/raw" / CLASSES[0] / BROKEN).write_bytes(b"no image")
    params = load(RECIPE)
    params["run"] |= {"methods": ["simclr"], "adapt_methods": [], "clip_methods": [], "controls": ["pixels"]}
    params["run"] |= {"seeds": [0], "tuned_controls": []}
    params |= {"domains": {}, "clips": {}, "starts": {}}
    params["compute"]["device"] = "cpu"
    params["data"] |= {"source": "imagefolder", "path": "data/raw", "image_size": 12, "channels": 1, "workers": 1}
    with (folder / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(params, handle)


def made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Elements:
    """The report of what was prepared and probed there; what a training would have made is made up."""
    monkeypatch.chdir(folder)
    try:
        scan.main()
        prepare.main()
        dataset = Dataset()
        fakerun.features("simclr", 0, dataset.labels)
        fakerun.curve("simclr", 0)
        fakerun.verdict("simclr", 0)
        fakerun.clusters("simclr", 0, dataset.labels)
        fakerun.few("simclr", 0, dataset.labels, dataset.labelled_rows(TEST), dataset.classes, 5)
        fakerun.metrics("pretrain", "simclr", 0, rankme=9.0, seconds=1.0)
        fakerun.metrics("probe", "simclr", 0, linear=0.8, knn=0.8, map=0.6, recall1=0.7)
        probe.main("pixels", 0)
        report.main()
    finally:
        torch.use_deterministic_algorithms(False)
    return Elements((paths.REPORT / "index.html").read_text())


def test_names_become_no_elements_and_no_attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid(tmp_path)
    page = made(tmp_path, monkeypatch)
    attributes = {name for _, own in page.found for name in own}
    assert not [name for name in attributes if name.startswith("on") or not PLAIN.fullmatch(name)]
    tags = [tag for tag, _ in page.found]
    assert tags.count("script") == 3, "those of the template"
    assert "iframe" not in tags
    assert all(own["src"].startswith("data:") for tag, own in page.found if tag == "img")
    for name in (*CLASSES, BROKEN):
        assert name in "".join(page.parts), "as text it is there"
    points = json.loads(next(part for part in page.parts if part.startswith("{")))
    assert all(FILE in name for name in points["names"])
