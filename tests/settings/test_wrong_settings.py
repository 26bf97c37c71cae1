"""Whatever stands in params.yaml, `sslflow check` accepts it or says a sentence with the setting's name; never a
traceback."""

from __future__ import annotations

import datetime
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipelines.plan import plan
from sslflow.commands import build, check
from sslflow.settings.params import ParamsError, load
from tests import tiny
from tests.conftest import ROOT

FULL = load(ROOT / "recipes" / "full.yaml")


def leaves(content: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Places of all sections and settings."""
    inner = content.items() if isinstance(content, dict) else ()
    return [*([place] if place else []), *(one for key, value in inner for one in leaves(value, (*place, key)))]


def changed(**values: Any) -> dict[str, Any]:
    """The recipe with other values; `__` stands for a dot."""
    text = io.StringIO()
    YAML(typ="safe").dump(FULL, text)
    content = YAML(typ="safe").load(text.getvalue())
    for name, value in values.items():
        *outer, last = name.split("__")
        place = content
        for key in outer:
            place = place[key]
        place[last] = value
    return content


def problems(content: Any, folder: Path) -> list[str]:
    """What the check says of a file with this content; nothing where it is in order."""
    file = folder / "params.yaml"
    with file.open("w", encoding="utf-8") as handle:
        YAML(typ="safe").dump(content, handle)
    try:
        check.check(file)
    except ParamsError as error:
        return error.problems
    return []


WRONG = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**30, -1e30, 1e30, 1e-30, float("nan"), float("inf"), -0.0, 0.5]),
    st.text("abz_:/ 0.-é\u2028", max_size=6),
    st.dates(datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)),
    st.lists(st.one_of(st.none(), st.integers(-2, 3), st.text("ab", max_size=2), st.just([1])), max_size=3),
    st.dictionaries(st.sampled_from(["a", "train", "lr", "name", "source"]), st.integers(-1, 1), max_size=2),
)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(places=st.lists(st.sampled_from(leaves(FULL)), min_size=1, max_size=3, unique=True), value=WRONG)
def test_any_value_anywhere_is_accepted_or_named(places, value, tmp_path) -> None:
    content = changed()
    touched = []
    for place in places:
        outer: Any = content
        for key in place[:-1]:
            outer = outer.get(key) if isinstance(outer, dict) else None
        if isinstance(outer, dict):
            outer[place[-1]] = value
            touched.append(".".join(place))
    for problem in problems(content, tmp_path):
        assert "\n" not in problem
        assert len(problem) < 700
        assert "Traceback" not in problem
        named = [name for name in touched if _names(problem, name)]
        assert named, (problem, touched)


def _names(problem: str, touched: str) -> bool:
    """Whether the sentence names the setting, the section that it is in or one within it, or a name that was in it."""
    begins = problem.partition(":")[0]
    same = begins.startswith(touched) or touched.startswith(begins.partition("[")[0])
    return same or touched in problem or touched.rpartition(".")[2] in problem or touched.partition(".")[0] in begins


# Sentences


SENTENCES = [
    ("run__seeds", 3, "run.seeds: should be a list, such as [3], found 3"),
    ("run__seeds", [], "run.seeds is empty: name at least one"),
    ("run__seeds", [-1], "run.seeds[0]: should be greater than or equal to 0, found -1"),
    ("run__seeds", [0, 0], "run.seeds names one twice: 0, 0"),
    ("run__seeds", None, "run.seeds: should be a list, found nothing"),
    ("run__methods", "simclr", "run.methods: should be a list, such as [simclr], found 'simclr'"),
    ("run__methods", ["SimCLR"], "run.methods: there is no method 'SimCLR', did you mean 'simclr'?"),
    ("run__segment", ["byol"], "run.segment names byol, and run.methods doesn't"),
    ("run__segment_controls", ["lite"], "run.segment_controls: there is no 'lite' in starts, did you mean 'lite0'?"),
    ("segment__fractions", [], "segment.fractions: the list is empty: name at least one"),
    ("detect__fractions", [], "detect.fractions: the list is empty: name at least one"),
    ("run__segment", ["simclr"], "run.segment: source samples:fashion has no masks, and data.annotations names none"),
    ("run__detect_controls", ["scratch"], "run.detect_controls: source samples:fashion has no boxes"),
    ("segment__batch_size", 1, "segment.batch_size: should be greater than or equal to 2, found 1"),
    ("run__launch", "torchrun --nproc-per-node 2", "run.launch: should end with -m"),
    ("compute__device", "gpu", "compute.device: there is no device 'gpu', did you mean 'cpu'?"),
    ("compute__device", "CPU", "compute.device: there is no device 'CPU', did you mean 'cpu'?"),
    ("compute__device", "meta", "compute.device: there is no device 'meta'"),
    ("compute__threads", "two", "compute.threads: should be an integer, found 'two'"),
    ("data__source", "Folder", "data.source: there is no source 'Folder', did you mean 'folder'?"),
    ("data__source", "samples:fashon", "data.source: there is no sample 'fashon', did you mean 'fashion'?"),
    ("data__source", "torchvision:", "data.source: there is no source 'torchvision:'"),
    ("data__source", "folder:x", "data.source: there is no source 'folder:x', did you mean 'folder'?"),
    ("data__probe_source", "folder", "data.probe_source: there is no source 'folder'"),
    ("data__image_size", "28", "data.image_size: should be an integer, found '28': leave out the quotes"),
    ("data__channels", 2, "data.channels: should be 1 or 3, found 2"),
    ("data__background", "White", "data.background: should be 'white', 'black' or 'grey', found 'White', did you mean"),
    ("data__test_fraction", "20%", "data.test_fraction: should be a number, found '20%'"),
    ("data__annotations", "coco:gone.json", "data.annotations: there is no file gone.json"),
    ("data__annotations", "voc", "data.annotations: expected masks:FOLDER, coco:FILE.json or voc:FOLDER, found voc"),
    ("data__annotations_test", "coco:b.json", "data.annotations_test says more of data.annotations, which is ''"),
    ("data__masks__classes", "cat", "data.masks.classes: should be a list, such as [cat], found 'cat'"),
    ("data__masks__values", [1, 1], "data.masks: values names one twice: 1"),
    ("train__batch_size", 1, "train.batch_size: 1 leaves one image alone, and BatchNorm needs two: at least 2"),
    ("train__batch_size", 2.0, "train.batch_size: should be an integer, found 2.0"),
    ("train__lr", "1e-3", "train.lr: should be a number, found '1e-3': leave out the quotes"),
    ("train__lr", float("nan"), "train.lr: should be a finite number, found nan"),
    ("train__lr", float("inf"), "train.lr: should be a finite number, found inf"),
    ("train__lr", 1e30, "train.lr: should be less than or equal to 10000, found 1e+30"),
    ("train__betas", 0.9, "train.betas: should be a list, such as [0.9], found 0.9"),
    ("train__betas", [0.9], "train.betas[1]: missing: the list is too short"),
    ("train__betas", [0.9, 1.0], "train.betas[1]: should be less than 1, found 1.0"),
    ("train__optimizer", "AdamW", "train.optimizer: should be 'adamw', 'sgd' or 'lars', found 'AdamW', did you mean"),
    ("train__compile", "yes", "train.compile: should be true or false, found 'yes'"),
    ("methods__simclr__temperature", 0, "methods.simclr.temperature: should be greater than 0, found 0"),
    ("methods__simclr__projector", 128, "methods.simclr.projector: should be a list, such as [128], found 128"),
    ("methods__dino__views__local__scale", [0.5, 0.2], "methods.dino.views.local: scale is 0.5 to 0.2: expected the"),
    ("methods__mae__mask", 1, "methods.mae.mask: should be less than 1, found 1"),
    ("views__crop", 0.5, "views.crop: expected settings (key: value), found 0.5"),
    ("probe__knn__k", 0, "probe.knn.k: should be greater than 0, found 0"),
    ("probe__linear__regularisation", [], "probe.linear.regularisation: the list is empty: name at least one"),
    ("finetune__batch_size", 1, "finetune.batch_size: should be greater than or equal to 2, found 1"),
    ("finetune__fractions", 0.1, "finetune.fractions: should be a list, such as [0.1], found 0.1"),
    ("adapt__settings", "opda", "adapt.settings: should be a list, such as [opda], found 'opda'"),
    ("adapt__starts", [], "adapt.starts: the list is empty: name at least one"),
    ("adapt__starts", ["zero"], "adapt.starts[0]: should be 'pretrained' or 'random', found 'zero'"),
    ("adapt__train__batch_size", 1, "adapt.train.batch_size: 1 leaves one image alone"),
    ("domains__digits__source", "folder", "domains.digits.source: there is no source 'folder'"),
    ("clips", [], "clips: expected sets by names of your own (name: settings), found []"),
    ("clips__instruments__source", "samples:instrument", "clips.instruments.source: there is no sample of videos"),
    ("report__adapter", "danse", "report.adapter: there is no method 'danse', did you mean 'dance'?"),
    ("probes", {}, "probes: no stage reads this section, did you mean 'probe'?"),
]


@pytest.mark.parametrize(("setting", "value", "sentence"), SENTENCES)
def test_a_value_that_can_t_be_is_a_sentence_that_names_the_setting(setting, value, sentence, tmp_path) -> None:
    found = problems(changed(**{setting: value}), tmp_path)
    assert [one for one in found if one.startswith(sentence)], found
    assert not [one for one in found if "tuple" in one or "Input" in one]


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "a.b", "a+b", "é è"])
def test_a_set_s_name_is_one_that_folders_and_stages_may_have(name: str, tmp_path) -> None:
    content = changed()
    for section, one in (("domains", "digits"), ("clips", "instruments")):
        content[section][name] = content[section][one]
    found = problems(content, tmp_path)
    for section in ("domains", "clips"):
        (said,) = [one for one in found if f"{name!r} can't be a name" in one and one.startswith(section)]
        assert said.endswith("use letters, digits, _ and -, and no - at the beginning")
        assert not [one for one in found if "may hold" in one], "one sentence for one mistake"


@pytest.mark.parametrize("path", [".", "", "..", "artifacts", "data", "/"])
def test_a_folder_that_holds_the_project_s_results_is_refused(path: str, tmp_path, monkeypatch) -> None:
    content = changed(data__source="folder", data__path=path)
    monkeypatch.chdir(tmp_path)
    assert [
        one for one in problems(content, tmp_path) if one.startswith(f"data.path: {path!r} holds the project's own")
    ]
    content["data"]["path"] = "data/raw"
    assert not [one for one in problems(content, tmp_path) if one.startswith("data.path")]


TEXTS = [
    ("run: {} # caf\xe9".encode("latin-1"), "line 1: the byte 0xe9 is no UTF-8: save the file as UTF-8"),
    (b"run:\n  a: 1\n  b: \xff\n", "line 3: the byte 0xff is no UTF-8"),
    ("run: {}".encode("utf-16"), "its text is UTF-16: save it as UTF-8"),
    ("run: {}".encode("utf-32"), "its text is UTF-32: save it as UTF-8"),
    (b"run:\n\tmethods: 3\n", "line 2: a tab where the line begins: YAML is indented by spaces"),
    (b"run:\n  a: 1\n  \tb: 3\n", "line 3: a tab where the line begins"),
    (b"run: {}\ntrain: {}\nrun: {}\n", "line 3: run stands there twice, and only one can count"),
    (b"run:\n  a: 1\n  a: 2\n", "line 3: a stands there twice"),
    (b"run: [a\nb: 3\n", "not valid YAML: line 2: "),
    (b"run:\n  a: 1\n b: 2\n", "not valid YAML: line 3: "),
    (b"run: {a: 1}\x00", "control characters are not allowed"),
    (b"run: {}\n---\nb: 3\n", "line 2: "),
    (b"run: !!python/object:os.system {}\n", "line 1: could not determine a constructor"),
    (b"1: {a: 2}\n", "expected names of sections, found 1"),
    (b"", "expected sections with settings, found none"),
    (b"- a\n", "expected sections with settings, found none"),
    (b"hello", "expected sections with settings, found none"),
]


@pytest.mark.parametrize(("text", "sentence"), TEXTS)
def test_what_is_no_settings_file_is_one_line_with_the_file_s_name(text: bytes, sentence: str, tmp_path) -> None:
    """Whoever reads it first: the check, or the plan, of which DVC would read it."""
    folder = tiny.make(tmp_path / "project")
    (folder / "params.yaml").write_bytes(text)
    for read in (lambda: load(folder / "params.yaml"), lambda: plan(folder=folder)):
        with pytest.raises(ParamsError) as caught:
            read()
        (problem,) = caught.value.problems
        assert sentence in problem
        assert "\n" not in problem
        assert str(caught.value).startswith(f"{folder / 'params.yaml'}: 1 problem")


@pytest.mark.parametrize("begin", [b"\xef\xbb\xbf", b"", b"# \r\n"])
def test_a_byte_order_mark_and_other_ends_of_lines_are_no_matter(begin: bytes, tmp_path) -> None:
    (tmp_path / "params.yaml").write_bytes(begin + b"run:\r\n  seeds: [1e0]\r\n")
    assert load(tmp_path / "params.yaml") == {"run": {"seeds": [1.0]}}


def test_a_folder_in_its_place_is_said(tmp_path) -> None:
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(ParamsError, match="expected a file with settings: Is a directory"):
        load(tmp_path / "params.yaml")


# What a constructor refuses, before any work


BUILT = [
    ({"run__methods": ["simclr", "mae"]}, "methods.mae: mae needs a ViT"),
    ({"run__methods": ["simclr", "colorization"], "data__channels": 1}, "methods.colorization: colorization needs"),
    ({"encoder__name": "resnet_50"}, "methods.simclr: encoder.name: there is no encoder 'resnet_50', did you mean"),
    ({"encoder": {"name": "vit_tiny", "width": 40}}, "methods.simclr: encoder.width 40 does not divide"),
    ({"encoder": {"name": "vit_tiny", "patch_size": 64}}, "methods.simclr: encoder.patch_size 64 is larger"),
    ({"encoder__grid": 0}, "methods.simclr: encoder.grid is 0"),
    ({"train__token_dropout": 0.5}, "methods.simclr: token_dropout is 0.5, a share of the patches of a ViT"),
    ({"run__clip_methods": ["synchrony"], "clip_views__window": 9.0}, "clip_methods.synchrony: "),
    ({"clips__instruments__seconds": 0.3, "clips__instruments__fps": 7}, "clip_methods.alignment: clips: 0.3 s of 7"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "sentence"), BUILT)
def test_what_is_to_be_run_is_built_once_by_the_check(values, sentence: str, tmp_path) -> None:
    file = tmp_path / "params.yaml"
    with file.open("w") as handle:
        YAML(typ="safe").dump(changed(**values), handle)
    check.check(file)
    with pytest.raises(ParamsError) as caught:
        build.refuse(file)
    assert [one for one in caught.value.problems if one.startswith(sentence)], caught.value.problems


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda file: file.stem)
def test_what_the_recipes_run_can_be_built(recipe: Path) -> None:
    build.refuse(recipe)


def test_every_method_can_be_built_without_data(tmp_path) -> None:
    content = changed(encoder={"name": "vit_tiny", "patch_size": 4}, data__channels=3)
    content["run"] |= {"methods": check.names("images"), "clip_methods": check.names("clips")}
    with (tmp_path / "params.yaml").open("w") as handle:
        YAML(typ="safe").dump(content, handle)
    build.refuse(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"run__match": ["simclr"]}, "run.match: there are no images with captions; name these in data.captions"),
        ({"run__match_controls": ["blind"]}, "run.match_controls: there are no images with captions"),
        ({"run__methods": ["clip"]}, "run.methods: clip learns from captions: there are no images with captions"),
        ({"run__methods": ["virtex"]}, "run.methods: virtex learns from captions: there are no images with captions"),
        ({"data__captions": "csv:nowhere.csv"}, "data.captions: there is no file nowhere.csv"),
        ({"data__captions": "names"}, "data.captions names is for data.source samples:emoji, found samples:fashion"),
        (
            {"data__captions": "names", "data__source": "samples:emoji", "data__probe_source": "samples:fashion"},
            "data.captions is of the images in data.path",
        ),
    ],
)
def test_captions_that_are_not_there_are_told_before_anything_runs(values, said, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = {"methods__clip": {"text_encoder": {}}, "methods__virtex": {}}
    found = problems(changed(**blocks, **values), tmp_path)
    assert [one for one in found if one.startswith(said)]


def test_captions_that_are_there_are_no_problem(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    assert problems(load(ROOT / "recipes" / "captions.yaml"), tmp_path) == []
