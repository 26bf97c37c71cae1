"""README, CONTRIBUTING and the guides say what is so: their commands are parsed by the programs that they call, their
settings are checked, and the files, modules and settings that they name exist."""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.cli.parser import DvcParserError, get_main_parser
from dvc.exceptions import InvalidArgumentError
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from pipelines import runner
from pipelines.plan import group, outputs, plan
from sslflow import cli
from sslflow.commands import check
from sslflow.settings.params import Over, ParamsError, keys, load
from sslflow.settings.sections import IMAGES, KINDS, data_kind
from tests.conftest import RECIPE, ROOT

GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
OTHERS = ("captions", "depth", "scenes", "text", "volumes")
"""Recipes with settings and results that `make full` has not."""
FOR_IMAGES = [one for one in RECIPES if load(one)["run"]["methods"] and data_kind(load(one)) == IMAGES]
PROGRAMS = ("sslflow", "dvc", "make", "python")
HELD = {
    "<method>": "[^/]+",
    "<run>": "[^/]+",
    "<seed>": r"\d+",
    "METHOD": "[^/]+",
    "SEED": "[0-9]+",
    "NAME": "[^/]+",
    "mine": "[^/]+",
    "<name>": "[^/]+",
}
"""Words of the guides that stand for any name."""


def blocks(file: Path) -> Iterator[tuple[str, str]]:
    """The language of each fenced block, and its text."""
    for indent, language, text in re.findall(
        r"^( *)```(\w*)\n(.*?)^ *```$", file.read_text(), re.DOTALL | re.MULTILINE
    ):
        yield language, "\n".join(line.removeprefix(indent) for line in text.splitlines())


def spans(file: Path) -> list[str]:
    """What stands between backquotes in the text, blocks left out."""
    text = re.sub(r"^ *```.*?^ *```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def words(line: str) -> list[str]:
    """The words of a command line without its comment and its `[optional]` words, or none where it is no command."""
    plain = re.sub(r"\s*\[[A-Z …]+\]", "", line)
    with contextlib.suppress(ValueError):
        found = shlex.split(plain, comments=True)
        return found if len(found) > 1 and found[0] in PROGRAMS else []
    return []


def commands(lines: Iterable[str]) -> set[str]:
    return {shlex.join(found) for line in lines if (found := words(line))}


UNFINISHED = {
    "sslflow select",
    *("dvc exp", "sslflow av", "sslflow av score", "sslflow av search"),
    *("sslflow embed", "sslflow export", "sslflow search"),
}
"""What a sentence names a group of commands by."""
COMMANDS = sorted(
    commands(span for file in GUIDES for span in spans(file))
    | commands(line for file in GUIDES for _, text in blocks(file) for line in text.splitlines())
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, its folders by links; params.yaml is that of `make full`."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    for name in ("sslflow", "pipelines", "recipes"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("data/samples", "dvc.yaml", "Makefile"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(RECIPE, folder / "params.yaml")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def stages(project: Path) -> set[str]:
    """Names of stages, and of groups of them."""
    with contextlib.chdir(project):
        names = [stage.name for stage in plan()]
    return {*names, *map(group, names)}


@pytest.fixture(scope="module")
def outs(project: Path) -> list[str]:
    """What the stages of `make full` write, and those of the recipes for what it has not."""
    found = outputs(project)
    for recipe in OTHERS:
        shutil.copy(ROOT / f"recipes/{recipe}.yaml", project / "params.yaml")
        found += outputs(project)
    shutil.copy(RECIPE, project / "params.yaml")
    return found


# Commands


def arguments(call: Any, monkeypatch: pytest.MonkeyPatch, *line: str) -> tuple[argparse.Namespace, list[str]]:
    """What a program's parser makes of its command line, and the words that it leaves; no more of the program runs."""

    class Parsed(Exception):
        pass

    parse, depth = argparse.ArgumentParser.parse_known_args, 0

    def stop(*given: Any, **named: Any) -> Any:
        nonlocal depth
        depth += 1
        found = parse(*given, **named)
        depth -= 1
        if not depth:
            raise Parsed(found)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        patch.setattr(sys, "argv", list(line))
        try:
            call()
        except Parsed as parsed:
            return parsed.args[0]
    raise AssertionError(f"{line[0]} takes no arguments")


def of_sslflow(line: list[str], monkeypatch: pytest.MonkeyPatch, stages: set[str]) -> None:
    asked, rest = arguments(cli.main, monkeypatch, *line)
    if asked.command == "run":
        asked, rest = arguments(runner.main, monkeypatch, "sslflow run", *rest)
    assert not rest
    assert set(getattr(asked, "targets", ())) <= stages
    if getattr(asked, "show", None):
        assert asked.show in {name for kind in (*KINDS, "clips", "adaptation") for name in check.names(kind)}


def of_dvc(line: list[str], stages: set[str], outs: list[str], folder: Path) -> None:
    asked = get_main_parser().parse_args(line[1:])
    for target in (getattr(asked, "targets", None) or ()) if line[1] != "add" else ():
        assert any(stands_for(target, known) for known in {*stages, *outs}), f"there is no '{target}'"
    if changes := getattr(asked, "set_param", None):
        assert any(in_order(recipe, changes, folder) for recipe in RECIPES)


def in_order(recipe: Path, changes: list[str], folder: Path) -> bool:
    """Whether a recipe is in order once these settings are changed."""
    file = Path(shutil.copy(recipe, folder / "params.yaml"))
    with contextlib.suppress(ParamsError, InvalidArgumentError):  # the second: there is no such setting to change
        apply_overrides(file, changes)
        return bool(check.check(file))
    return False


def of_python(line: list[str], monkeypatch: pytest.MonkeyPatch, stages: set[str], folder: Path) -> None:
    if line[1] != "-m":
        assert (ROOT / line[1]).is_file()
        return
    found = importlib.util.find_spec(line[2])
    assert found, f"there is no module {line[2]}"
    assert found.origin
    if line[2].partition(".")[0] not in ("sslflow", "pipelines", "benchmarks", "tests"):
        return
    if not re.search(r"argparse|runner\.arguments", Path(found.origin).read_text()):
        assert not line[3:]
        return
    monkeypatch.setenv("PREFECT_HOME", str(folder))
    module = importlib.import_module(line[2])
    asked, rest = arguments(module.main, monkeypatch, *line[2:])
    assert not rest
    assert set(getattr(asked, "targets", ())) <= stages


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_understood(command, stages, outs, tmp_path, monkeypatch, capsys, caplog) -> None:
    program, *_ = line = shlex.split(command)
    if command in UNFINISHED:
        with pytest.raises((SystemExit, DvcParserError)):
            of_sslflow(line, monkeypatch, stages) if program == "sslflow" else get_main_parser().parse_args(line[1:])
        assert "required" in capsys.readouterr().err + caplog.text
    elif program == "sslflow":
        of_sslflow(line, monkeypatch, stages)
    elif program == "dvc":
        of_dvc(line, stages, outs, tmp_path)
    elif program == "python":
        of_python(line, monkeypatch, stages, tmp_path)
    else:
        # A file or folder of that name would do for make.
        assert {*line[1:]} <= {*re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}
        subprocess.run([program, "--dry-run", *line[1:]], cwd=ROOT, check=True, capture_output=True)


def test_what_is_cheap_runs(project, monkeypatch, capsys) -> None:
    """Those that only look, of README's list."""
    listed = {line for line in COMMANDS if line.startswith("sslflow ")}
    monkeypatch.chdir(project)
    for command, shown in (
        ("sslflow methods", "simclr"),
        ("sslflow check", "params.yaml is in order"),
        ("sslflow check --show simclr", "temperature: 0.2"),
        ("sslflow plan", "* pretrain@simclr-0"),
    ):
        assert command in listed
        monkeypatch.setattr(sys, "argv", command.split())
        assert cli.main() == 0
        assert shown in capsys.readouterr().out


# Snippets


def snippets(*languages: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{file.stem}-{number}")
        for file in GUIDES
        for number, (language, text) in enumerate(blocks(file))
        if language in languages
    ]


@pytest.mark.parametrize("text", snippets("python"))
def test_python_is_python(text: str) -> None:
    tree = ast.parse(text)
    compile(tree, "<guide>", "exec")
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    exec(compile(ast.Module(imports, []), "<guide>", "exec"), {})


def laid(under: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`own` over `under`, section by section."""
    both = {name for name in own if isinstance(own[name], dict) and isinstance(under.get(name), dict)}
    return {**under, **own, **{name: laid(under[name], own[name]) for name in both}}


@pytest.mark.parametrize("recipe", FOR_IMAGES, ids=lambda file: file.stem)
@pytest.mark.parametrize("text", snippets("yaml", "yml"))
def test_settings_can_be_copied_into_a_recipe(text: str, recipe: Path, tmp_path: Path) -> None:
    YAML().dump(laid(load(recipe), YAML(typ="safe").load(text)), tmp_path / "params.yaml")
    check.check(tmp_path / "params.yaml")


# Names


def stands_for(name: str, known: str) -> bool:
    """Whether a name of the guides, with words for what differs, is this one."""
    pattern = re.escape(name)
    for word, any_ in HELD.items():
        pattern = pattern.replace(re.escape(word), any_)
    return re.fullmatch(pattern, known) is not None


def named(pattern: str) -> list[Any]:
    """What the guides name of this form, each with the guides that do."""
    found: dict[str, set[str]] = {}
    for file in GUIDES:
        for span in spans(file):
            if match := re.fullmatch(pattern, span):
                found.setdefault(match[1], set()).add(file.name)
    return [pytest.param(name, id=f"{name} ({', '.join(sorted(files))})") for name, files in sorted(found.items())]


@pytest.mark.parametrize("file", [*GUIDES, *sorted((ROOT / "docs/decisions").glob("*.md"))], ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text())
    assert not [target for target in targets if not (file.parent / target).exists()]


@pytest.mark.parametrize("path", named(r"((?:sslflow|tests|docs|benchmarks|pipelines|recipes|data/samples)/[^<> …]+)"))
def test_a_file_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", named(r"((?:sslflow|benchmarks|pipelines)(?:\.\w+)+)"))
def test_a_module_or_what_it_holds_is_there(name: str) -> None:
    parts = name.split(".")
    held: Any = importlib.import_module(parts[0])
    for depth, part in enumerate(parts[1:], 2):
        held = getattr(held, part, None) or importlib.import_module(".".join(parts[:depth]))


@pytest.mark.parametrize("path", named(r"((?:artifacts/|data/(?:prepared|domains|clips|listing|weights))[^ …]*)"))
def test_a_result_is_one_of_a_stage(path: str, outs: list[str]) -> None:
    parts = path.rstrip("/").split("/")
    assert any(all(stands_for(*pair) for pair in zip(parts, out.split("/"), strict=False)) for out in outs), (
        f"no stage writes {path}"
    )


def dotted(values: dict[str, Any], place: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{place}{name}"
        if isinstance(value, dict):
            yield from dotted(value, f"{place}{name}.")


@pytest.fixture(scope="module")
def settings() -> set[str]:
    """All that can stand in params.yaml with the blocks and sets of recipes/full.yaml, and of those for what it has
    not."""
    found: set[str] = set()
    for content in (load(RECIPE), *(load(ROOT / f"recipes/{name}.yaml") for name in OTHERS)):
        read = {section: one for own in check.all_schemas(content).values() for section, one in own.items()}
        targets = {section: one.target if isinstance(one, Over) else one for section, one in read.items()}
        found |= {
            *dotted(content),
            *(f"{section}.{key}" for section, target in targets.items() for key in keys(target)),
        }
    return found


SECTIONS = "|".join(load(RECIPE))


@pytest.mark.parametrize("name", named(rf"((?:{SECTIONS})(?:\.[\w<>]+)+)(?:: .*)?"))
def test_a_setting_is_one_that_is_read(name: str, settings: set[str]) -> None:
    assert any(stands_for(name, one) for one in settings), f"nothing reads {name}"
