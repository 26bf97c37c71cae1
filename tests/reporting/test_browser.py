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
import pytest

from sslflow import paths
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
  seen.legend = buttons().map((button) => button.textContent);
  seen.one_class = changes(() => buttons()[0].click());
  seen.pressed = buttons().map((button) => button.getAttribute("aria-pressed"));
  seen.only = [...new Set(alone.map(hover).filter(Boolean).map((words) => words[1]))];
  point("pointerleave", [0, 0]);
  seen.all_again = changes(() => buttons()[0].click());
  seen.points = changes(() => find("pictures").click());
  seen.pictures = changes(() => find("pictures").click());
  choose(find("colour"), "cluster");
  seen.clusters = buttons().map((button) => button.textContent);
  seen.by_split = changes(() => choose(find("colour"), "split"));
  seen.splits = buttons().map((button) => button.textContent);
  seen.methods = [...find("method").options].map((option) => option.text);
  seen.other_method = changes(() => choose(find("method"), 1));
  seen.zoomed = changes(() => find("in").click());
  seen.reset = changes(() => find("reset").click());
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
            "{run: {methods: [rotation, simclr], seeds: [0], launch: python -m}, report: {map_images: 60, queries: 3},"
            " finetune: {fractions: [0.1, 0.01]}, data: {}, methods: {}}"
        )
        fakerun.whole(["rotation", "simclr"], [0], CLASSES, {"train": 90, "test": 30})
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
    for act in ("one_class", "all_again", "points", "pictures", "by_split", "other_method", "zoomed", "reset"):
        assert seen[act], f"{act}: the map stayed as it was"
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
