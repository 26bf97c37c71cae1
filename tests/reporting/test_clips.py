"""The report's section on picture and sound, over runs that are made up."""

from __future__ import annotations

import base64
import io
import wave

import fakerun
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from av_fixtures import RATE, MemoryClips
from PIL import Image
from safetensors.numpy import save_file

from sslflow import paths
from sslflow.data.dataset import Dataset
from sslflow.reporting.clips import pairings, sounds
from sslflow.reporting.clips import section as audiovisual
from sslflow.reporting.clips.moments import Moments
from sslflow.reporting.clips.results import Correspondences
from sslflow.reporting.clips.sound_maps import boxed, overlaid
from tests.reporting.test_report import HOSTILE, Page, made

PARAMS = """
run: {methods: [simclr], clip_methods: [METHODS], seeds: [0, 1], launch: python -m}
report: {map_images: 60, queries: 3, neighbour_count: 4, clip_method: SHOWN}
methods: {simclr: {}}
pretrain_clips: {clips: squares}
clip_methods: {alignment: {views: {window: 1.0}}}
"""
SET = paths.clips("squares")
CONTROLS = {f"control_conditions_{key}": value for key, value in (("accuracy", 0.5), ("low", 0.42), ("high", 0.58))}
LEARNED = {"accuracy": 0.9, "low": 0.8, "high": 0.97, "threshold": 0.2, "pairs": 64.0, "seconds": 2.0, "clips": 32.0}
RETRIEVAL = {
    f"retrieval_{way}own_{depth}{chance}": value
    for way, chance, value in (("picture_", "", 0.5), ("sound_", "", 0.6), ("", "_chance", 0.0625))
    for depth in ("r1", "r5", "r10", "mrr", "ndcg30")
}
POINTED = {"hits": 0.7, "low": 0.6, "high": 0.8, "centre": 0.3, "silence": 0.2, "noise": 0.65, "random": 0.1}
LOCALISED = {f"localisation_{name}": value for name, value in POINTED.items()}


def project(
    methods: str = "alignment", shown: str = "alignment", clips: MemoryClips | None = None
) -> MemoryClips | None:
    """Settings, images to pretrain on, and clips."""
    text = PARAMS.replace("METHODS", methods).replace("SHOWN", shown)
    (paths.ARTIFACTS.parent / "params.yaml").write_text(text)
    fakerun.dataset(paths.PREPARED, {"pool": 6})
    if clips:
        clips.write(SET)
    return clips


def scores(method: str, seed: int = 0, **values: float) -> None:
    """The metrics of a run that compares pictures and sounds."""
    fakerun.metrics("examine", method, seed, **LEARNED | CONTROLS | RETRIEVAL | LOCALISED | values)


def paired(clips: MemoryClips, method: str = "alignment", moments: bool = False, maps: bool = True) -> pa.Table:
    """Decisions, retrieval and maps of a run; of the wrong pairs every fourth is taken for a right one."""
    folder = paths.examined(method, 0)
    folder.mkdir(parents=True)
    test = clips.rows("test")
    others = test if moments else np.roll(test, 2)
    count = len(test)
    same = np.repeat([True, False], count)
    score = np.where(np.arange(2 * count) % 4 == 0, 0.1, 0.3) + np.linspace(0, 0.01, 2 * count)
    score = np.where(same, score, 0.4 - score)
    decisions = pa.table(
        {
            "clip": np.tile(test, 2),
            "start": np.full(2 * count, 0.5),
            "sound_clip": np.concatenate([test, others]),
            "sound_start": np.where(same, 0.5, 1.75),
            "same": same,
            "score": score,
            "right": (score > 0.2) == same,
        }
    )
    pq.write_table(decisions, folder / "decisions.parquet")
    found = [
        {
            "asked": asked,
            "clip": int(test[query]),
            "start": 0.25,
            "rank": rank,
            "found": int(test[(query + rank - 2) % count]),
            "found_start": 0.25,
            "score": 1 / rank,
            "own": rank == 2,
            "same_class": bool(clips.labels[test[query]] == clips.labels[test[(query + rank - 2) % count]] >= 0),
        }
        for asked in ("picture", "sound")
        for query in range(count)
        for rank in (1, 2, 3)
    ]
    pq.write_table(pa.Table.from_pylist(found), folder / "retrieval.parquet")
    if maps:
        draw = np.random.default_rng(0).random((3, count, 4, 4)).astype(np.float32)
        tensors = dict(zip(("own", "silence", "noise"), draw, strict=True))
        box = np.stack([clips.columns[edge][test] for edge in ("x0", "y0", "x1", "y1")], axis=1)
        rest = {"clip": test, "start": np.full(count, 0.25, np.float32), "box": box}
        save_file(
            {**tensors, **{name: np.ascontiguousarray(one) for name, one in rest.items()}}, folder / "maps.safetensors"
        )
    return decisions


def words(page: Page) -> str:
    """What the section says."""
    text = " ".join(page.text.split())
    return text[text.rindex("Picture and sound") : text.rindex("How it was made")]


def heard(page: Page) -> list[str]:
    return [attributes["src"] for attributes in page.all("audio")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tables_sentences_and_one_run_to_look_at():
    clips = project("correspondence, alignment", clips=MemoryClips(12))
    assert clips
    scores("correspondence", accuracy=0.51, low=0.45, high=0.57)
    scores("alignment", other_class=0.95, probe_picture_accuracy=0.8, probe_picture_random_accuracy=0.4)
    paired(clips)
    page = made()
    told = words(page)
    for said in (
        "Learned: alignment. Not learned: correspondence. How clips were recorded (frame rate and black borders of the"
        " picture; rate, loudness and bandwidth of the sound) does not tell what belongs together.",
        "alignment, asked whether a frame and a sound belong together or come from different sources, is right in 90.0"
        " % (80 to 97), above chance (50). Its maps point at what sounds in 70.0 % (60 to 80) of frames, not clearly"
        " more than noise instead (65).",
        "is right in 51.0 % (45 to 57), which is not above chance (50)",
        "alignment, a sound60.060.060.060.060.0",
        "chance6.26.26.26.26.2",
        "alignment70.060 to 8030.0▲ below20.0▲ below65.0not below10.0▲ below",
        "frames, random",
        "alignment80.040.0",
        "One run to look at and to listen to: alignment-0",
        "Belong together, recognised",
        "Of different sources, but taken for one",
        "what scores above 0.20 is taken for a pair",
        "its own",
    ):
        assert said in told, said
    assert "examinealignment-02.0 s" in page.text.replace("\n", "")
    assert "#audiovisual" in [a["href"] for a in page.all("a")]
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "media-src data:;" in policy
    sources = heard(page)
    assert len(sources) > 20
    assert all(source.startswith("data:audio/wav;base64,") for source in sources)
    assert all("controls" in a and a["preload"] == "none" and a["aria-label"] for a in page.all("audio"))
    assert all(a["src"].startswith("data:image/webp;base64,") and a["alt"] for a in page.all("img"))
    assert len([a for a in page.all("img") if a["alt"].endswith(", silence")]) == 6


def test_what_labels_are_worth_stands_among_the_probes_and_is_no_task():
    clips = project("alignment, supervised", clips=MemoryClips(12))
    assert clips
    scores("alignment", probe_picture_accuracy=0.8, probe_sound_accuracy=0.7)
    fakerun.metrics(
        "examine", "supervised", 0, seconds=3.0, clips=16.0, probe_picture_accuracy=0.93, probe_sound_accuracy=0.91
    )
    told = words(made())
    assert "supervised93.091.0" in told
    assert "supervised, asked" not in told


def test_the_sounds_are_those_of_the_moments_shown():
    clips = project(clips=MemoryClips(12))
    assert clips
    scores("alignment")
    paired(clips)
    found = set()
    for source in heard(made()):
        with wave.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
            found.add(file.readframes(file.getnframes()))
    whole = [clips.sound[row] for row in clips.rows("test")]
    possible = {one.tobytes() for one in whole}
    for start in (0.25, 0.5, 1.75):
        possible |= {one[round(start * RATE) : round((start + 1) * RATE)].tobytes() for one in whole}
    assert found
    assert found <= possible


def test_decisions_are_sorted_into_their_kinds_and_by_sureness():
    clips = project(clips=MemoryClips(12))
    assert clips
    rows = paired(clips).to_pylist()
    moments = Moments(Dataset(SET), 1.0, 1)
    file = paths.examined("alignment", 0) / "decisions.parquet"
    kinds = pairings.decided(file, moments, "alignment", 0.2, sounds.Player(10**7))
    assert sum(kind.count for kind in kinds) == len(rows)
    counts = {
        title: sum(row["same"] == together and row["right"] == right for row in rows)
        for (together, right), title in pairings.TITLES["source"].items()
    }
    assert {kind.title: kind.count for kind in kinds} == {title: count for title, count in counts.items() if count}
    for kind in kinds:
        assert len(kind.decisions) == min(pairings.SAMPLES, kind.count)
        sure = [abs(one.score - 0.2) for one in kind.decisions]
        assert sure == sorted(sure, reverse=True)
        assert all(("'s sound" in one.caption) == kind.title.startswith("Of different") for one in kind.decisions)


def test_no_run_no_section():
    project()
    page = made()
    assert "Picture and sound" not in page.text
    assert not page.all("audio")


def test_what_was_not_asked_for_is_not_looked_at():
    project("alignment")
    scores("correspondence")
    scores("alignment", 7)
    assert "Picture and sound" not in made().text


def test_a_method_that_has_not_run_is_not_shown_and_another_is():
    clips = project("alignment, correspondence", clips=MemoryClips(12))
    assert clips
    scores("correspondence")
    paired(clips, "correspondence")
    told = words(made())
    assert "to listen to: correspondence-0" in told
    assert "alignment" not in told


def test_without_clips_on_the_disk_there_are_tables():
    project()
    scores("alignment")
    told = words(made())
    assert "Learned: alignment." in told
    assert "One run to look at" not in told


def test_without_labels_and_boxes():
    clips = project(clips=MemoryClips(12, labels=False, boxes=False))
    assert clips
    scores("alignment")
    paired(clips)
    page = made()
    told = words(page)
    for absent in (
        "other class",
        "another class",
        "anything of its class",
        "missed",
        "on it",
        "What the encoders know",
    ):
        assert absent not in told, absent
    test = clips.rows("test")
    assert f"{clips.columns['number'][test[0]]}, {clips.columns['number'][test[-1]]}'s sound" in told
    assert not [a for _, a in page.tags if a.get("class") == "wrong"]
    assert [a for _, a in page.tags if a.get("class") == "own"]


def test_clips_without_sound_and_a_task_of_its_own():
    clips = MemoryClips(12)
    clips.columns["audible"] = np.zeros(len(clips), dtype=bool)
    project("temporal_order", clips=clips)
    test = clips.rows("test")
    folder = paths.examined("temporal_order", 0)
    folder.mkdir(parents=True)
    right = np.arange(len(test)) % 2
    answers = {"clip": test, "given": np.ones_like(test), "right": right, "confidence": np.full(len(test), 0.625)}
    pq.write_table(pa.table(answers), folder / "decisions.parquet")
    own = {"accuracy": 0.5, "low": 0.3, "high": 0.7, "chance": 0.5, "questions": 8.0, "above_chance": 0.0}
    fakerun.metrics("examine", "temporal_order", 0, seconds=3.0, clips=16.0, test_clips=8.0, test_sources=4.0, **own)
    page = made()
    told = words(page)
    assert "Nothing was learned yet." in told
    assert "recorded" not in told
    assert "temporal_order, asked its own question, is right in 50.0 %" in told
    assert "Trained on 16 clips; tested on 8 clips of 4 sources not among them" in told
    assert f"Right {len(test) // 2}" in told
    assert "in order (62 % sure)" in told
    assert "in order, but it is not in order (62 % sure)" in told
    assert "no sound" in told
    assert heard(page) == []
    assert "Where does the sound" not in told


def test_other_moments_are_known_by_the_table():
    clips = project("synchrony", clips=MemoryClips(12))
    assert clips
    of_sources = {f"source_{name}": value for name, value in (LEARNED | CONTROLS).items()}
    fakerun.metrics("examine", "synchrony", 0, **LEARNED | CONTROLS | RETRIEVAL | of_sources)
    paired(clips, "synchrony", moments=True, maps=False)
    told = words(made())
    assert "asked whether frames and a sound are of the same moment or of two moments of one clip" in told
    assert "asked whether a frame and a sound belong together or come from different sources" in told
    assert "Of two moments, but taken for one" in told
    assert not any(f"{colour}'s sound" in told for colour in clips.classes)
    kinds = [task.kind for task in Correspondences({"run": {"clip_methods": ["synchrony"]}}, [0]).tasks()]
    assert kinds == ["moment", "source"]


def test_nothing_to_test_on():
    project(clips=MemoryClips(4))
    fakerun.metrics("examine", "alignment", 0, seconds=3.0, clips=8.0, test_clips=0.0, test_sources=0.0)
    paths.examined("alignment", 0).mkdir(parents=True)
    told = words(made())
    assert "Nothing can be said yet" in told
    assert "Right and wrong" not in told


def recorded(low: float, high: float) -> dict[str, float]:
    """What is right by recording conditions alone."""
    return {
        "control_conditions_accuracy": (low + high) / 2,
        "control_conditions_low": low,
        "control_conditions_high": high,
    }


def test_a_score_that_recordings_alone_may_give_is_in_doubt():
    project("alignment, correspondence")
    scores("alignment", 0, **recorded(0.7, 0.82))
    scores("correspondence")
    told = words(made())
    assert "Learned: correspondence. In doubt, since how clips were recorded tells the same pairs: alignment." in told
    assert "of the sound) tells what belongs together." in told
    assert "By how clips were recorded alone, 76.0 % (70 to 82) is right: all of the score may be that." in told
    assert told.count("▲ above 50") == 1
    assert told.count("not above 50") == 1


def test_a_score_that_is_clearly_above_what_recordings_give_is_learned():
    project()
    scores("alignment", 0, **recorded(0.6, 0.7))
    told = words(made())
    assert "Learned: alignment." in told
    assert "By how clips were recorded alone, 65.0 % (60 to 70) is right: part of the score may be that." in told


def test_what_is_one_half_by_construction_is_no_evidence():
    project()
    scores("alignment", 0, **{f"control_{side}_accuracy": 0.5 for side in ("picture", "sound", "metadata")})
    told = words(made())
    for absent in ("shortcut", "frame alone", "metadata"):
        assert absent not in told, absent
    assert "does not tell what belongs together" in told


def test_below_one_half_is_nothing_that_tells():
    project()
    scores("alignment", 0, **recorded(0.3, 0.45))
    told = words(made())
    assert "does not tell what belongs together" in told
    assert "▲ above 50" not in told


def test_seeds_are_averaged_with_the_ends_of_their_intervals():
    project()
    scores("alignment", 0, accuracy=0.8, low=0.6, high=0.9)
    scores("alignment", 1, accuracy=0.6, low=0.3, high=0.7)
    (task,) = Correspondences({"run": {"clip_methods": ["alignment"]}}, [0, 1]).tasks()
    assert (task.accuracy.mean, task.accuracy.low, task.accuracy.high) == pytest.approx((0.7, 0.45, 0.8))
    assert task.accuracy.spread == pytest.approx(0.1414, abs=1e-4)
    assert not task.learned
    assert "70.0 ± 14.145 to 80" in words(made())


def test_files_about_other_clips_are_refused():
    clips = project(clips=MemoryClips(12))
    assert clips
    scores("alignment")
    paired(clips)
    folder = paths.examined("alignment", 0)
    tensors = {"clip": np.array([99]), "start": np.zeros(1, np.float32), "box": np.full((1, 4), np.nan, np.float32)}
    maps = {name: np.ones((1, 2, 2), np.float32) for name in ("own", "silence", "noise")}
    save_file({**tensors, **maps}, folder / "maps.safetensors")
    with pytest.raises(ValueError, match="not about the clips in data/clips/squares; run `dvc repro`"):
        made()
    (folder / "maps.safetensors").unlink()
    table = pq.read_table(folder / "decisions.parquet")
    wrong = pa.array(np.full(table.num_rows, -1))
    pq.write_table(table.set_column(table.column_names.index("clip"), "clip", wrong), folder / "decisions.parquet")
    with pytest.raises(ValueError, match=r"decisions\.parquet: not about the clips"):
        made()


def test_hostile_names_stay_text():
    clips = MemoryClips(12)
    clips.classes = ["<b>red</b>", '"><script>alert(1)</script>', "a & b", "x"]
    clips.columns["path"] = np.array([HOSTILE] * len(clips))
    project(clips=clips)
    scores("alignment")
    paired(clips)
    page = made()
    assert not page.all("b")
    assert page.all("script") == [{}], "the one that opens sections"
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert HOSTILE in page.text
    assert "<b>red</b>" in words(page)


def test_same_input_same_page():
    clips = project(clips=MemoryClips(12))
    assert clips
    scores("alignment")
    paired(clips)
    made()
    first = (paths.REPORT / "index.html").read_bytes()
    made()
    assert (paths.REPORT / "index.html").read_bytes() == first


def test_sounds_have_only_so_much_room():
    assert sum(audiovisual.ROOM.values()) <= 2_000_000
    player = sounds.Player(100_000)
    second = np.ones(16_000, dtype=np.int16)
    urls = [player.url(second, 16_000) for _ in range(4)]
    assert [bool(url) for url in urls] == [True, True, False, False]
    assert player.url(second[:4000], 16_000), "what is shorter still fits"
    assert not player.url(np.zeros(10, np.int16), 16_000), "silence is not played"
    long = sounds.Player(10**7).url(np.ones(10 * 8000, np.int16), 8000)
    with wave.open(io.BytesIO(base64.b64decode(long.partition(",")[2]))) as file:
        assert file.getnframes() == sounds.SECONDS * 8000


def test_a_higher_rate_is_lowered_and_the_tone_stays():
    rate, times = 44_100, np.arange(44_100) / 44_100
    tone = 10_000 * np.sin(2 * np.pi * 1000 * times)
    high = 10_000 * np.sin(2 * np.pi * 12_000 * times)
    samples, lower = sounds.lowered((tone + high).astype(np.int16), rate)
    assert (lower, len(samples)) == (16_000, 16_000)
    expected = 10_000 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    assert np.abs(samples - expected).max() < 20
    same, kept = sounds.lowered(samples, 8000)
    assert kept == 8000
    assert same is samples


def test_low_tones_stand_below():
    times = np.arange(16_000) / 16_000
    samples = (8000 * np.sin(2 * np.pi * 200 * times)).astype(np.int16)
    url = sounds.spectrogram(samples, 16_000, 100, 64).url
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("L"), dtype=float)
    assert pixels.shape == (64, 100)
    assert pixels[48:].mean() > 2 * pixels[:32].mean()


def test_maps_mark_their_highest_place_and_a_flat_one_marks_none():
    frame = Image.new("RGB", (40, 40), (120, 120, 120))
    scores_ = np.zeros((40, 40))
    scores_[30, 10] = 1
    shown = np.asarray(overlaid(frame, scores_)).astype(int)
    assert shown[30, 4].min() > 240, "the ring, six pixels from the place"
    assert shown[10, 30].max() < 100
    flat = np.asarray(overlaid(frame, np.ones((40, 40))))
    assert (flat == 120).all()
    box = np.asarray(boxed(frame, np.array([0.25, 0.5, 0.75, 1.0])))
    assert (box[18:26, 20].min(), box[18:26, 20].max()) == (0, 255)
    assert (box[:18] == 120).all()
