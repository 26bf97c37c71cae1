"""The command line, and the check of the whole of params.yaml."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from ruamel.yaml import YAML

from sslflow import cli
from sslflow.adaptation import method as adaptation
from sslflow.audiovisual import method as clips
from sslflow.commands import check
from sslflow.commands.show import show
from sslflow.settings.params import ParamsError, load, schema
from sslflow.settings.sections import KINDS
from sslflow.training import method as images
from sslflow.training.ingredients import CAPTIONED, ingredients

RECIPE = (tiny.ROOT / "recipes" / "full.yaml").read_text()


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sslflow", *words])
    code = cli.main()
    said = capsys.readouterr()
    return code, said.out, said.err


def test_plan_says_what_would_run_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.make(tmp_path / "project"))
    code, out, _ = call(capsys, monkeypatch, "plan", "pretrain@a-0")
    assert code == 0
    assert out == (
        "* prepare       will run    never ran\n"
        "* pretrain@a-0  will run    never ran\n"
        "2 stages: 0 up to date, 2 will run, 0 may run\n"
    )
    code, _, err = call(capsys, monkeypatch, "plan", "pretain")
    assert code == 1
    assert "did you mean 'pretrain'" in err


def test_methods_are_listed_with_their_idea(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "methods")
    assert code == 0
    lines = out.splitlines()
    listed = ["clips:", *clips.names(), "adaptation:", *adaptation.names()]
    listed += [line for kind in KINDS for line in (f"{kind}:", *images.names(kind))]
    assert sorted(line.split()[0] for line in lines) == sorted(listed)
    start, names = lines.index("images:"), ["images:", *images.names("images")]
    assert [line.split()[0] for line in lines[start : start + len(names)]] == names
    assert all(len(line.split()) > 4 for line in lines if line.startswith(" "))


def test_clean_only_says_unless_it_is_sure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.make(tmp_path / "project")
    monkeypatch.chdir(folder)
    (folder / "prepared").write_text("h")
    (folder / "old").mkdir()
    lock = 'schema: "2.0"\nstages:\n  pretrain@old-0:\n    cmd: x\n    outs:\n    - path: old\n'
    (folder / "dvc.lock").write_text(lock)
    code, out, _ = call(capsys, monkeypatch, "clean")
    assert (code, out) == (0, "pretrain@old-0: old\n1 left over; `sslflow clean --yes` removes them\n")
    assert (folder / "old").exists()
    code, out, _ = call(capsys, monkeypatch, "clean", "--yes")
    assert code == 0
    assert "removed 1" in out
    assert not (folder / "old").exists()
    assert "pretrain@old-0" not in (folder / "dvc.lock").read_text()


def test_run_hands_on_to_the_runner(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sslflow.cli", "run", "--jobs", "1", "pretain"],
        cwd=tiny.make(tmp_path / "project"),
        env={"PYTHONPATH": str(tiny.ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no stage 'pretain', did you mean 'pretrain'?" in done.stderr


# The check


def problems(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "params.yaml").write_text(text)
    try:
        check.check(tmp_path / "params.yaml")
    except ParamsError as error:
        return error.problems
    return []


def test_a_teacher_is_asked_for_where_a_method_learns_from_one(tmp_path: Path) -> None:
    asked = ("  - simclr\n", "  - simclr\n  - distillation\n")
    (found,) = problems(tmp_path, asked)
    assert found == "start.teacher: distillation learns from a teacher, and there is none; set it to a name in starts"
    assert problems(tmp_path, asked, ("teacher: random ", "teacher: lite0 ")) == []
    (found,) = problems(tmp_path, asked, ("teacher: random ", "teacher: lite "))
    assert found == "start.teacher: there is no 'lite' in starts, did you mean 'lite0'?"


@pytest.mark.parametrize(
    ("setting", "old"), [("adapt.weights", "  weights: ''"), ("pretrain_clips.start", "  start: ''")]
)
def test_weights_are_a_name_in_starts_or_a_file(tmp_path: Path, setting: str, old: str) -> None:
    def found(value: str) -> list[str]:
        return problems(tmp_path, (old, f"{old[:-2]}{value}"))

    assert found("lite0") == found("artifacts/encoders/simclr-0.safetensors") == []
    assert found("lite") == [f"{setting}: there is no 'lite' in starts, nor such a file, did you mean 'lite0'?"]
    assert found("random")[0].startswith(f"{setting}: there is no 'random' in starts")
    for name in ("package:efficientnet-lite0", "timm:vit_small_patch14_dinov2.lvd142m"):
        assert found(name) == [f"{setting}: put {name} into a block of starts, and its name here"]


def test_a_name_in_starts_is_no_path(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, ("\nstart:  ", "  a/b: {weights: x.pth, network: resnet18}\nstart:  "))
    assert found.startswith("starts: 'a/b' can't be a name: use letters, digits")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    found = "\n".join(
        problems(
            tmp_path,
            ("image_size: 28", "image_sise: 28"),
            ("temperature: 0.2", "temperature: -1"),
            ("lr: 3e-3\n  weight_decay: 1e-4", "lr: fast\n  weight_decay: 1e-4"),
            ("\nprobe:", "\nprobes:"),
            ("\n  seeds:\n  - 0\n", "\n  seeds:\n  - 1\n"),
            ("  memory_format: channels_last\n", "  memory_format: channels_last\n  wamup: 0.2\n"),
            ("\nclip_views:", "\nclip_view:"),
            ("neighbours: 6", "neighbours: few"),
            ("hidden: 128\n    train: {epochs: 320, weight_decay: 0.2}", "hidden: 0"),
        )
    )
    assert "data.image_sise: unknown, did you mean 'image_size'?" in found
    assert "methods.simclr.temperature: should be greater than 0, found -1" in found
    assert found.count("train.lr: should be") == 1
    assert "probes: no stage reads this section, did you mean 'probe'?" in found
    assert "run.seeds names one twice" in found
    assert "train.wamup: no method has this setting, did you mean 'warmup'?" in found
    assert "clip_view: no stage reads this section, did you mean 'clip_views'?" in found
    assert "clip_views: missing section, did you mean 'clip_view'?; it may be empty" in found
    assert "adapt_methods.gated_dance.neighbours: should be" in found
    assert "clip_methods.correspondence.hidden: should be greater than 0, found 0" in found


def test_a_shared_setting_that_some_methods_have_is_no_mistake(tmp_path: Path) -> None:
    assert problems(tmp_path, ("    p: 0.0 ", "    p: 0.0\n  local: {crops: 3}\n  noise: 0.1 ")) == []
    assert problems(tmp_path, ("    p: 0.0 ", "    p: 0.0\n  local: {crop: 3}\n  nois: 0.1 ")) == [
        "views.local.crop: no method has this setting, did you mean 'local.crops'?",
        "views.nois: no method has this setting, did you mean 'noise'?",
    ]


def test_a_method_that_does_not_exist_or_has_no_settings(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        ("  - simclr\n  - rotation\n", "  - simclrr\n  - rotation\n"),
        ("\n  barlow_twins:", "\n  barlow_twin:"),
        ("\n  - alignment\n", "\n  - alignment\n  - synchrony\n"),
        ("\n  synchrony:", "\n  synchron:"),
    )
    assert "run.methods: there is no method 'simclrr', did you mean 'simclr'?" in found
    assert "methods.barlow_twin: there is no such method, did you mean 'barlow_twins'?" in found
    assert (
        "run.methods: 'barlow_twins' has no settings; add a block methods.barlow_twins, which may be empty: DVC has to "
        "see it" in found
    )
    assert "clip_methods.synchron: there is no such method, did you mean 'synchrony'?" in found
    assert any(one.startswith("run.clip_methods: 'synchrony' has no settings") for one in found)


def test_blocks_of_methods_that_are_not_run_may_be_absent_and_others_empty(tmp_path: Path) -> None:
    content = load(tiny.ROOT / "recipes" / "full.yaml")
    for kind, block in check.BLOCKS.items():
        content[block] = dict.fromkeys(content["run"][check.ASKED[kind].partition(".")[2]])
    file = tmp_path / "params.yaml"
    with file.open("w") as handle:
        YAML(typ="safe").dump(content, handle)
    assert {kind: set(found) for kind, found in check.check(file).items()} == {
        "images" if kind == "data" else kind: set(content[block]) for kind, block in check.BLOCKS.items()
    }


def test_names_in_settings_are_checked(tmp_path: Path) -> None:
    for asked, wrong, words in (
        ("  - cda\n  - opda\n", "  - cda\n  - opa\n", "adapt.settings: there is no setting 'opa', did you mean"),
        ("  - dance\n", "  - danse\n", "run.adapt_methods: there is no method 'danse', did you mean 'dance'?"),
        (
            "  - alignment\n",
            "  - alinment\n",
            "run.clip_methods: there is no method 'alinment', did you mean 'alignment'?",
        ),
        (
            "  domains: digits ",
            "  domains: digit ",
            "adapt.domains: there is no 'digit' in domains, did you mean 'digits'?",
        ),
        ("  clips: instruments ", "  clips: strings ", "pretrain_clips.clips: there is no 'strings' in clips"),
        ("  start: simclr ", "  start: vicreg ", "adapt.start: there is no 'vicreg' in run.methods"),
        (
            "  companion: simclr ",
            "  companion: simcl ",
            "adapt.companion: there is no 'simcl' in methods, did you mean",
        ),
    ):
        (found,) = problems(tmp_path, (asked, wrong))
        assert found.startswith(words)
    unused = [
        ("  - source_only\n  - dance\n  - ovanet\n  - gated_dance\n", ""),
        ("adapt_methods:  ", "adapt_methods: []"),
    ]
    assert problems(tmp_path, *unused, ("  domains: digits ", "  domains: digit ")) == []


def test_settings_of_an_earlier_version_are_named_with_what_to_do(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, ("\npretrain:\n", "\ntwo_views: {flip: 0.5}\n\npretrain:\n"))
    assert found == "two_views: is called views now; recipes/full.yaml shows what belongs there"
    (found,) = problems(
        tmp_path, ("\ntrain:  ", "\ntrain: &train"), ("train: {batch_size: 64, lr:", "train: {<<: *train, lr:")
    )
    assert "merge keys (<<) are not read" in found
    assert "recipes/full.yaml" in found


def test_the_check_says_what_there_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call(capsys, monkeypatch, "check", "--params", str(tiny.ROOT / "recipes" / "full.yaml"))
    assert code == 0
    beside = CAPTIONED | {"depth"}
    alone = [name for name in images.names("images") if not beside.intersection(ingredients(images.find(name)))]
    known = f"{len(adaptation.names())} for adaptation, {len(clips.names())} for clips, {len(alone)} for images"
    asked = ", ".join(check.to_run(tiny.ROOT / "recipes" / "full.yaml"))
    assert "simclr" in asked
    assert f"is in order; to run: {asked}; methods with settings: " in out
    assert sorted(known.split(", ")) == sorted(out.partition("settings: ")[2].strip().split(", "))


def test_a_mistyped_setting_that_methods_share_is_not_a_problem_for_each_of_them(tmp_path: Path) -> None:
    found = problems(tmp_path, ("\n  epochs: 12\n", "\n  epoch: 12\n"))
    assert found[0] == "train.epoch: no method has this setting, did you mean 'epochs'?"
    (missing,) = found[1:]
    assert re.fullmatch(
        r"methods\.\w+\.train\.epochs: missing, and not in train either, nor in \d+ sections more", missing
    )


def test_the_check_loads_no_package_that_takes_long_and_that_no_signature_needs() -> None:
    recipe = str(tiny.ROOT / "recipes" / "full.yaml")
    heavy = {"sklearn", "scipy", "timm", "torchvision", "matplotlib", "pandas", "dvc", "prefect"}
    code = (
        "import sys; from pathlib import Path; from sslflow.commands.check import check; "
        f"check(Path({recipe!r})); print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tiny.ROOT)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_what_a_method_gets_is_shown_with_where_it_is_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(
        "train: {epochs: 12, batch_size: 8, lr: 1e-3}\nviews: {flip: 0.25, colour: {hue: 0.0}, local: {crops: 3}}\n"
        "methods: {simclr: {train: {epochs: 2}, views: {colour: {jitter: 0.5}}}}"
    )
    code, out, _ = call(capsys, monkeypatch, "check", "--show", "simclr")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:2] == ["methods:", "simclr:"]
    for line in (
        "epochs: 2",
        "batch_size: 8 # train",
        "lr: 0.001 # train",
        "flip: 0.25 # views",
        "jitter: 0.5",
        "hue: 0.0 # views.colour",
        "grey: 0.2 # default",
        "smallest: 0.2 # default",
    ):
        assert line in lines
    assert "local" not in out
    shown = YAML(typ="safe").load(out)["methods"]["simclr"]
    kind = images.find("simclr")
    assert set(shown) == {*schema(kind), "start", "views", "train"}
    assert set(shown["views"]) == set(schema(kind.Views))
    code, _, err = call(capsys, monkeypatch, "check", "--show", "simclrr")
    assert (code, err) == (1, "there is no method 'simclrr', did you mean 'simclr'?\n")


def test_methods_of_one_name_are_both_shown() -> None:
    shown = YAML(typ="safe").load(show("supervised", tiny.ROOT / "recipes" / "full.yaml"))
    assert shown["methods"]["supervised"]["train"]["epochs"] == 6
    assert shown["clip_methods"]["supervised"]["train"]["weight_decay"] == 0.2


def test_no_params_file_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = call(capsys, monkeypatch, "check")
    assert code == 1
    assert "there is no such file" in err
