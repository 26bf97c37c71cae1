"""The report's section on domain adaptation, over runs that are made up."""

from __future__ import annotations

import re

import fakerun
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from sslflow import paths
from sslflow.adaptation.task import open_task, target_answers
from sslflow.data.dataset import Dataset
from sslflow.drawing.svg import Points, histograms, scatter
from sslflow.examination.adaptation.scores import adaptation_scores
from sslflow.reporting.adaptation import decisions
from sslflow.runtime.files import write_json
from sslflow.stages import score
from tests.reporting.test_report import HOSTILE, Page, made

PARAMS = """
run: {methods: [simclr], adapt_methods: [METHODS], seeds: [0, 1], launch: python -m}
report: {map_images: 60, queries: 3, neighbour_count: 4}
methods: {simclr: {}}
domains: {mine: {source: imagefolder, target: imagefolder}}
adapt: {domains: mine, settings: [as_is], starts: [pretrained]}
"""
DOMAINS = paths.domains("mine")
SOURCE = ("boot", "bag", "coat")
TARGET = ("boot", "bag", "sock")
COUNT = 80


def project(methods: str = "source_only, gated_dance", target: tuple[str, ...] = TARGET, source=SOURCE) -> None:
    """Settings, images to pretrain on and both domains."""
    (paths.ARTIFACTS.parent / "params.yaml").write_text(PARAMS.replace("METHODS", methods))
    fakerun.dataset(paths.PREPARED, {"pool": 6})
    fakerun.dataset(DOMAINS / "source", {"train": 50}, source)
    fakerun.dataset(DOMAINS / "target", {"train": COUNT}, target)


def adapted(
    method: str,
    seed: int = 0,
    name: str = "as_is-pretrained",
    threshold: float = 0.5,
    right: float = 0.0,
    draw: int = 7,
    **scores: float,
) -> None:
    """A run: the first half of the images is kept, the rest rejected in three groups; at other thresholds all or
    nothing. Of a share `right` of the images, the same ones for all seeds, the truth is found out."""
    target = Dataset(DOMAINS / "target")
    source = Dataset(DOMAINS / "source")
    unknownness = np.linspace(0.01, 0.99, COUNT, dtype=np.float32)
    rejected = unknownness > threshold
    nearest = [source.classes[row % 2] for row in range(COUNT)]
    actual = ["" if label < 0 else target.classes[label] for label in target.labels]
    for row in np.flatnonzero(np.random.default_rng(draw).random(COUNT) < right):
        rejected[row], unknownness[row] = actual[row] not in SOURCE, actual[row] not in SOURCE
        nearest[row] = nearest[row] if rejected[row] else actual[row]
    columns = {
        "path": target.column("path"),
        "predicted": ["unknown" if no else kind for no, kind in zip(rejected, nearest, strict=True)],
        "nearest_class": nearest,
        "confidence": 1 - unknownness,
        "unknownness": unknownness,
        "group": np.where(rejected, np.arange(COUNT) % 3, -1),
        "actual": actual,
    }
    file = paths.adapted(method, seed) / f"{name}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
    numbers = np.random.default_rng(seed)
    tensors = {
        "source": numbers.normal(size=(50, 8)).astype(np.float16),
        "source_labels": source.labels.astype(np.int64),
        "target": numbers.normal(size=(COUNT, 8)).astype(np.float16),
        "threshold": np.array([threshold], dtype=np.float32),
    }
    save_file(tensors, file.with_suffix(".safetensors"))
    prefix = name.replace("-", "_")
    fakerun.metrics("score", method, seed, seconds=2.0, **{f"{prefix}_{key}": value for key, value in scores.items()})


def scored(method: str, seed: int, h: float, unk: float = 0.5) -> None:
    rest = {"os_star": 0.7, "auroc": 0.8, "main_best_threshold": h + 0.1}
    adapted(method, seed, "as_is-pretrained", 0.5, 0.0, 7, h=h, main=h, unk=unk, **rest)


def words(page: Page) -> str:
    """What the section says."""
    text = " ".join(page.text.split())
    return text[text.index("Adaptation to another domain") : text.rindex("How it was made")]


def cells(page: Page) -> list[str]:
    return [a.get("class", "") for a in page.all("small")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def judged(method: str, seed: int, right: float, draw: int = 7) -> dict[str, float]:
    """A run with the scores that its decisions have."""
    adapted(method, seed, right=right, draw=draw)
    task, file = open_task(DOMAINS), paths.adapted(method, seed) / "as_is-pretrained.parquet"
    found = adaptation_scores(score.decisions(file, task), target_answers(DOMAINS))
    fakerun.metrics("score", method, seed, seconds=2.0, **{f"as_is_pretrained_{key}": found[key] for key in found})
    return found


def test_table_sentences_and_one_run_to_look_at():
    project("source_only, dance, gated_dance")
    found = {
        method: [judged(method, seed, right) for seed in (0, 1)][-1]
        for method, right in (("source_only", 0.5), ("dance", 0.0), ("gated_dance", 0.95))
    }
    page = made()
    told = words(page)
    above = 100 * (found["gated_dance"]["h"] - found["source_only"]["h"])
    below = 100 * (found["source_only"]["h"] - found["dance"]["h"])
    for said in (
        "gated_dance is at least level with doing nothing here.",
        f"dance: worse in as_is: −{below:.1f} (−",
        f"gated_dance: better in as_is: +{above:.1f} (+",
        "all classes as they are; the score is H",
        f"source_only{100 * found['source_only']['h']:.1f} ± 0.0",
        f"gated_dance{100 * found['gated_dance']['h']:.1f} ± 0.0▲ +{above:.1f} (+",
        "over seeds and target images",
        "say so, as adapt_methods.gated_dance.unknown",
        "best threshold*",
        "One run to look at: gated_dance-0, from pretrained weights",
        "of 80 target images rejected",
        "Known, recognised",
        "not of the source's classes",
    ):
        assert said in told, said
    assert min(cells(page).count("worse"), cells(page).count("better")) >= 2
    assert [a["class"] for a in page.all("svg") if "class" in a] == ["scatter", "scatter"]
    assert "rejected above 0.50" in told
    assert "adaptgated_dance-12.0 s" in page.text.replace("\n", "")
    assert "#adaptation" in [a["href"] for a in page.all("a")]
    groups = [a["alt"] for a in page.all("img") if a["alt"].startswith("Group ")]
    assert sorted(alt.partition(":")[0] for alt in groups) == ["Group 0", "Group 1", "Group 2"]
    for attributes in page.all("img"):
        assert attributes["src"].startswith("data:image/webp;base64,")


def test_what_is_right_and_wrong_is_counted_once():
    project()
    scored("gated_dance", 0, 0.5)
    task = open_task(DOMAINS)
    found = decisions.read_decisions(paths.adapted("gated_dance", 0) / "as_is-pretrained.parquet", task)
    table = pq.read_table(paths.adapted("gated_dance", 0) / "as_is-pretrained.parquet").to_pylist()
    kinds = {title: rows for title, rows, _ in decisions.kinds(found)}
    assert sorted(np.concatenate(list(kinds.values())).tolist()) == list(range(COUNT))

    def rows(known: bool, predicted) -> list[int]:
        return [row for row, one in enumerate(table) if (one["actual"] in SOURCE) == known and predicted(one) is True]

    assert sorted(kinds["Known, recognised"]) == rows(True, lambda one: one["predicted"] == one["actual"])
    assert sorted(kinds["Known, but rejected"]) == rows(True, lambda one: one["predicted"] == "unknown")
    assert sorted(kinds["Unknown, rejected"]) == rows(False, lambda one: one["predicted"] == "unknown")
    assert sorted(kinds["Unknown, but given a class"]) == rows(False, lambda one: one["predicted"] in SOURCE)
    # Unknownness rises from row to row: the surest of the kept is the first, of the rejected the last.
    assert kinds["Known, recognised"].tolist() == sorted(kinds["Known, recognised"])
    assert kinds["Unknown, rejected"].tolist() == sorted(kinds["Unknown, rejected"], reverse=True)
    for title, count, figures in decisions.samples(found, task):
        assert len(figures) == min(count, decisions.SAMPLES)
        arrows = {"→" in figure.caption for figure in figures}
        assert arrows == {title in ("Known, given a wrong class", "Unknown, but given a class")}


def test_what_was_adapted_from_is_told_once():
    project()
    for seed in (0, 1):
        scored("gated_dance", seed, 0.5)
        words_ = "lite0: package:x, Apache-2.0, sha256 5793…"
        write_json(paths.adapted("gated_dance", seed) / "as_is-pretrained.json", {"weights": words_})
    assert words(made()).count("Pretrained weights: lite0: package:x, Apache-2.0, sha256 5793….") == 1


def test_no_adaptation_no_section():
    project(methods="")
    page = made()
    assert "#adaptation" not in [a["href"] for a in page.all("a")]
    assert "doing nothing" not in page.text


def test_methods_that_have_not_run_are_no_section(folder):
    project()
    assert "doing nothing" not in made().text
    scored("dance", 0, 0.5)
    assert "doing nothing" not in made().text


def test_what_was_not_asked_for_is_not_looked_at():
    project()
    for method in ("source_only", "gated_dance", "dance"):
        scored(method, 0, 0.5)
    adapted("gated_dance", 7, h=0.9, main=0.9)
    adapted("gated_dance", 0, "as_is-random", h=0.9, main=0.9)
    (paths.adapted("gated_dance", 0) / "opda-pretrained.parquet").write_text("not one")
    told = words(made())
    assert "opda" not in told
    assert "random" not in told
    assert re.search(r"\bdance\b", told) is None


def test_without_labels():
    project(target=())
    adapted("source_only")
    adapted("gated_dance", threshold=0.3)
    page = made()
    told = words(page)
    assert "The target has no labels" in told
    for title in ("Kept, surest", "Kept, least sure", "Rejected, surest", "Rejected, least sure"):
        assert title in told
    assert "known and unknown can't be told apart" in told
    assert "by the answer" in told
    assert "source_only50.03" in told, "rejected, groups"
    assert not {"H", "UNK", "AUROC", "OS*"} & set(told.split())
    assert cells(page) == []


@pytest.mark.parametrize(("threshold", "words_"), [(2.0, "Nothing was rejected."), (0.0, "All were rejected.")])
@pytest.mark.parametrize("target", [TARGET, ()])
def test_nothing_or_all_rejected(threshold, words_, target):
    project(target=target)
    adapted("gated_dance", threshold=threshold)
    page = made()
    told = words(page)
    assert words_ in told
    assert ("rejected above" in told) == (threshold < 1)
    assert ("Groups of what was rejected" in told) == (threshold < 1)
    titles = [title for title in ("recognised", "given a class", "Kept, surest") if title in told]
    assert bool(titles) == (threshold > 1)


def test_all_target_images_unknown():
    project(target=("sock", "hat", "scarf"))
    adapted("gated_dance", unk=0.5, main=0.5)
    told = words(made())
    assert "the score is UNK" in told
    assert "Known," not in told


def test_without_features_no_map_and_no_threshold():
    project()
    scored("gated_dance", 0, 0.5)
    (paths.adapted("gated_dance", 0) / "as_is-pretrained.safetensors").unlink()
    page = made()
    assert not [a for a in page.all("svg") if a.get("class") == "scatter"]
    assert "rejected above" not in words(page)
    assert "Unknown, rejected" in words(page)


def test_nothing_to_compare_with_is_said():
    project("gated_dance")
    scored("gated_dance", 0, 0.5)
    page = made()
    assert "add source_only to run.adapt_methods" in words(page)
    assert cells(page) == []
    project_file = paths.ARTIFACTS.parent / "params.yaml"
    project_file.write_text(PARAMS.replace("METHODS", "source_only"))
    scored("source_only", 0, 0.5)
    assert "no other method has run" in words(made())


def test_files_of_other_images_are_refused():
    project()
    scored("gated_dance", 0, 0.5)
    kept = paths.adapted("gated_dance", 0) / "as_is-pretrained.safetensors"
    fewer = {"source": np.zeros((50, 2)), "target": np.zeros((3, 2)), "source_labels": np.zeros(50, np.int64)}
    save_file({**fewer, "threshold": np.ones(1)}, kept)
    with pytest.raises(ValueError, match=r"50 source and 3 target images; expected 50 and 80; run `dvc repro`"):
        made()
    manifest = DOMAINS / "target" / "manifest.parquet"
    table = pq.read_table(manifest)
    pq.write_table(table.set_column(table.column_names.index("path"), "path", pa.array(["x"] * COUNT)), manifest)
    with pytest.raises(ValueError, match="not about the images"):
        made()


def test_hostile_names_stay_text():
    source = ("<b>boot</b>", '"><script>alert(1)</script>', "coat & bag")
    project(source=source, target=("<b>boot</b>", HOSTILE, "coat & bag"))
    scored("gated_dance", 0, 0.5)
    page = made()
    assert not page.all("b")
    assert page.all("script") == [{}], "the one that opens sections"
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert "<b>boot</b>" in words(page)
    assert HOSTILE in page.text


def test_settings_of_a_split_file_each_have_their_look():
    project()
    items = [*Dataset(DOMAINS / "source").column("path"), *Dataset(DOMAINS / "target").column("path")]
    both = {"source": list(SOURCE), "target": list(TARGET)}
    write_json(paths.ARTIFACTS.parent / "split.json", {"source": items, "target": items, "settings": {"oda": both}})
    plan = "adapt: {domains: mine, settings: [as_is, oda], starts: [random, pretrained], split: split.json}\n"
    settings = PARAMS.replace("METHODS", "gated_dance").partition("adapt: ")[0] + plan
    (paths.ARTIFACTS.parent / "params.yaml").write_text(settings)
    for name in ("as_is-random", "oda-random", "oda-pretrained"):
        adapted("gated_dance", 0, name, h=0.5, main=0.5)
    page = made()
    told = words(page)
    assert "gated_dance-0, from random weights" in told
    assert "oda: 40 of 80 target images rejected" in told
    assert len([a for a in page.all("svg") if a.get("class") == "scatter"]) == 4
    assert "as_is from pretrained" not in told


def test_a_small_difference_among_few_images_may_be_chance():
    project()
    judged("source_only", 0, 0.5)
    judged("gated_dance", 0, 0.5, draw=14)
    told = words(made())
    assert "gated_dance: nowhere worse than doing nothing by more than chance may explain." in told
    assert "gated_dance: a difference that may be chance in as_is: " in told
    assert "at least level" not in told


def test_the_same_decisions_on_few_images_are_not_shown_to_be_level():
    project()
    for method in ("source_only", "gated_dance"):
        for seed in (0, 1):
            judged(method, seed, 0.5)
    told = words(made())
    assert "gated_dance: nowhere worse than doing nothing by more than chance may explain." in told
    assert re.search(
        r"gated_dance: a difference that may be chance in as_is: \+0\.0 \(−\d.*? to \+\d.*?\) points", told
    )


def test_one_seed_is_said():
    project()
    params = paths.ARTIFACTS.parent / "params.yaml"
    params.write_text(params.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    for method, right in (("source_only", 0.9), ("gated_dance", 0.0)):
        judged(method, 0, right)
    told = words(made())
    assert "Each method is worse than doing nothing here." in told
    assert "over target images; with one seed, what another would give isn't known" in told


def test_fewer_unknown_images_rejected_is_said():
    """Half of the unknown images less, twice as many of the known ones right."""
    project()
    judged("source_only", 0, 0.5)
    judged("gated_dance", 0, 0.5)
    file = paths.adapted("gated_dance", 0) / "as_is-pretrained.parquet"
    rows = pq.read_table(file).to_pylist()
    for number, row in enumerate(rows):
        if row["actual"] in SOURCE:
            row |= {"predicted": row["actual"], "group": -1}
        elif number % 2:
            row |= {"predicted": row["nearest_class"], "group": -1}
    pq.write_table(pa.Table.from_pylist(rows), file)
    told = words(made())
    assert "Fewer unknown images are rejected than by source_only (gated_dance in as_is)" in told


def test_bars_stand_for_square_roots_of_counts():
    drawing = histograms({"known": np.array([0.01] * 9 + [0.99]), "unknown": np.array([0.5] * 4)}, 0.25, "<here>")
    heights = [abs(float(value)) for value in re.findall(r"v(-?[0-9.]+)h", drawing)]
    assert heights[0] == pytest.approx(3 * heights[1], rel=0.02)
    assert heights[2] == pytest.approx(2 * heights[1], rel=0.02)
    assert "&lt;here&gt;" in drawing
    assert 'class="threshold"' in drawing
    assert 'class="threshold"' not in histograms({"all": np.array([0.5])}, 2.0, "none")


def test_long_names_are_cut_on_the_map_and_many_colours_have_no_legend():
    long = Points("animals & nature & more", np.full((3, 2), 0.99), "red", named=True)
    drawing = scatter([long], "map")
    assert ">animals &amp; n…<" in drawing
    assert drawing.count("M990 990h0") == 3
    project(source=tuple(f"kind {number:02d}" for number in range(20)), target=("kind 01", "sock"))
    scored("gated_dance", 0, 0.5)
    page = made()
    assert "not of the source's classes" in words(page)
    assert "kind 07" not in page.text


def test_features_that_are_all_alike_lie_on_one_place():
    project()
    scored("gated_dance", 0, 0.5)
    kept = paths.adapted("gated_dance", 0) / "as_is-pretrained.safetensors"
    alike = {"source": np.ones((50, 4), np.float16), "target": np.ones((COUNT, 4), np.float16)}
    save_file({**alike, "source_labels": np.zeros(50, np.int64), "threshold": np.array([0.5], np.float32)}, kept)
    made()
    assert "M500 500h0" in (paths.REPORT / "index.html").read_text()
