"""The report in a real browser: headless Chromium opens it, a script in a copy of the page does what a reader does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import fakerun
import pyarrow.parquet as pq
import pytest

from sslflow import paths
from sslflow.runtime.files import write_csv
from sslflow.stages import report

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed: apt-get install chromium")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--window-size=1000,1400", "--virtual-time-budget=20000", "--dump-dom"),
]
CLASSES = ("boot", "bag", "coat")
ATTEMPTS = 3
READER = """<pre id="seen">{}</pre><script>
addEventListener("load", async () => {
  const find = (name) => document.getElementById("map-" + name);
  const canvas = find("canvas"), card = find("card"), seen = {};
  const data = JSON.parse(find("data").textContent);
  const drawn = () => canvas.toDataURL();
  const changes = (act) => { const before = drawn(); act(); return drawn() !== before; };
  const choose = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); };
  const point = (type, [x, y]) => {
    const box = canvas.getBoundingClientRect(), at = (v) => canvas.clientWidth * (0.5 + (v / 1000 - 0.5) * 0.94);
    const [left, top] = [box.left + canvas.clientLeft, box.top + canvas.clientTop];
    const where = { clientX: left + at(x), clientY: top + at(y), pointerType: "mouse" };
    canvas.dispatchEvent(new PointerEvent(type, where));
    return card.hidden ? null : card.querySelector("p").textContent.split("\\n");
  };
  const places = data.methods[0].xy, far = ([x, y], [u, v]) => Math.hypot(x - u, y - v) > 8;
  const others = (index) => places.filter((_, other) => other !== index);
  const alone = [...places.keys()].filter((index) => others(index).every((place) => far(place, places[index])));
  const hover = (index) => point("pointermove", places[index]);

  await find("sprite").decode();
  await new Promise((done) => setTimeout(done, 500));
  seen.side = canvas.clientWidth;
  const empty = document.createElement("canvas");
  [empty.width, empty.height] = [canvas.width, canvas.height];
  seen.blank = drawn() === empty.toDataURL();
  seen.before = card.hidden;
  seen.expected = alone.map((index) => [data.names[index], data.classes[data.labels[index]]]);
  seen.hovered = alone.map((index) => hover(index).slice(0, 2));
  seen.inside = (() => { const a = card.getBoundingClientRect(), b = canvas.getBoundingClientRect();
    return a.left >= b.left && a.right <= b.right + 1 && a.top >= b.top && a.bottom <= b.bottom + 1; })();
  point("pointerleave", [0, 0]);
  seen.left = card.hidden;

  const buttons = () => [...find("legend").children];
  seen.legend = buttons().map((button) => button.childNodes[1].textContent);
  seen.one_class = changes(() => buttons()[0].click());
  seen.pressed = buttons().map((button) => button.getAttribute("aria-pressed"));
  seen.only = [...new Set(alone.map(hover).filter(Boolean).map((words) => words[1]))];
  point("pointerleave", [0, 0]);
  seen.all_again = changes(() => buttons()[0].click());
  seen.points = changes(() => find("pictures").click());
  seen.pictures = changes(() => find("pictures").click());
  choose(find("colour"), "cluster");
  seen.clusters = buttons().map((button) => button.childNodes[1].textContent);
  seen.by_split = changes(() => choose(find("colour"), "split"));
  seen.splits = buttons().map((button) => button.childNodes[1].textContent);
  seen.methods = [...find("method").options].map((option) => option.text);
  seen.other_method = changes(() => choose(find("method"), 1));
  seen.zoomed = changes(() => find("in").click());
  seen.reset = changes(() => find("reset").click());
  const wheel = (keys) => canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: -50, cancelable: true, ...keys }));
  const touch = (type, pointerId, clientX) =>
    canvas.dispatchEvent(new PointerEvent(type, { clientX, clientY: 300, pointerId, pointerType: "touch" }));
  seen.scrolls_by = !changes(() => { seen.left_to_the_page = wheel({}); });
  seen.wheeled = changes(() => { seen.taken = !wheel({ ctrlKey: true }); });
  find("in").click();
  touch("pointerdown", 7, 300);
  seen.dragged = changes(() => touch("pointermove", 7, 340));
  touch("pointerup", 7, 340);
  find("reset").click();
  touch("pointerdown", 1, 200);
  touch("pointerdown", 2, 300);
  seen.pinched = changes(() => touch("pointermove", 2, 420));
  touch("pointerup", 1, 200);
  touch("pointerup", 2, 420);
  find("reset").click();
  for (const kind of ["error", "suspicion"]) {
    choose(find("colour"), kind);
    seen[kind] = buttons().map((button) => button.childNodes[1].textContent);
  }
  const wrong = data.methods[0].answers.findIndex((answer, index) => answer >= 0 && answer !== data.labels[index]);
  choose(find("method"), 0);
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  for (let step = 0; step <= wrong; step++) canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  seen.taken_for = [card.querySelector("p").textContent, data.classes[data.methods[0].answers[wrong]]];
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  seen.by_key = card.hidden ? null : card.querySelector("p").textContent.split("\\n")[0];
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script></body>"""


@dataclass(frozen=True)
class Visit:
    """What a visit to a page has shown: what its reader `seen`, and the lines of the browser's `console`."""

    seen: dict
    console: list[str]


def visit(page: str, folder: Path) -> Visit:
    """Open a page with a reader's script at its end. Whatever stands in the console is an error: the page logs nothing,
    and the browser logs there what it could not run, and what the page was not allowed to ask for."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", READER))
    # On a busy machine the browser may end before its reader has: once more, then.
    for attempt in range(ATTEMPTS):
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / f'profile-{attempt}'}", file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
        if found and found[1] != "{}":
            break
    assert found, done.stderr
    return Visit(json.loads(unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line])


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("report"))
        Path("params.yaml").write_text(
            "{run: {methods: [rotation, simclr], seeds: [0], launch: python -m}, report: {map_images: 120, queries: 3},"
            " finetune: {fractions: [0.1, 0.01]}, data: {}, methods: {}}"
        )
        fakerun.whole(["rotation", "simclr"], [0], CLASSES, {"train": 90, "test": 30})
        rows = pq.read_table(paths.PREPARED / "manifest.parquet").to_pylist()
        one = [rows[0]["path"], "train", "boot"]
        header = ["row", "path", "split", "label"]
        copies = [[0, *one, 95, rows[95]["path"], "test", "boot", "yes"]]
        other = ["other_row", "other_path", "other_split", "other_label", "leak"]
        write_csv(paths.AUDIT / "copies.csv", [*header, *other], copies)
        write_csv(paths.AUDIT / "suspects.csv", header, [[1, rows[1]["path"], "train", "bag"], [0, *one]])
        for name in ("looks", "outliers"):
            write_csv(paths.AUDIT / f"{name}.csv", header, [])
        report.main()
        return (paths.REPORT / "index.html").read_text()


def test_map_answers_and_nothing_is_asked_of_the_network(page, tmp_path):
    found = visit(page, tmp_path)
    assert found.console == []
    seen = found.seen
    assert seen["requests"] == []
    assert seen["side"] > 300
    assert (seen["blank"], seen["before"], seen["left"], seen["inside"]) == (False, True, True, True)
    assert len(seen["expected"]) > 10
    assert seen["hovered"] == seen["expected"]
    assert sorted(seen["legend"]) == sorted(CLASSES)
    assert seen["pressed"] == ["true", "false", "false"]
    assert seen["only"] == [seen["legend"][0]]
    told = ("one_class", "all_again", "points", "pictures", "by_split", "other_method", "zoomed", "reset")
    for act in (*told, "wheeled", "dragged", "pinched"):
        assert seen[act], f"{act}: the map stayed as it was"
    assert (seen["scrolls_by"], seen["left_to_the_page"], seen["taken"]) == (True, True, True)
    assert seen["error"] == ["right", "wrong", "not a test image"]
    assert seen["suspicion"] == ["copy between training and test", "doubtful label", "nothing"]
    words, taken_for = seen["taken_for"]
    assert f"taken for {taken_for}" in words
    assert seen["clusters"] == ["cluster 0", "cluster 1", "cluster 2"]
    assert seen["splits"] == ["train", "test"]
    assert seen["methods"] == ["rotation", "simclr"]
    assert seen["by_key"]


@pytest.mark.parametrize(
    ("whole", "broken", "words"),
    [
        ('"use strict";', '"use strict"; const = 1;', "SyntaxError"),
        ("</body>", '<img src="https://sslflow.invalid/a.png" alt=""></body>', "Content Security Policy"),
    ],
)
def test_a_broken_page_is_noticed(page, tmp_path, whole, broken, words):
    assert whole in page
    found = visit(page.replace(whole, broken), tmp_path)
    assert words in " ".join(found.console)
