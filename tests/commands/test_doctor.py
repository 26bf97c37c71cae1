"""What `sslflow doctor` finds: each fault that it knows is made here, and named."""

from __future__ import annotations

import resource
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pipelines import doctor as of_flows
from sslflow import cli
from sslflow.commands import doctor, speeds
from sslflow.runtime import device
from tests import tiny
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.make(tmp_path_factory.mktemp("doctor") / "project")
    (folder / "params.yaml").write_text((ROOT / "recipes/cpu.yaml").read_text())
    return folder


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(doctor, "check", lambda: None)  # tested where it is


def about(found) -> dict[str, tuple[str, str]]:
    return {one[1]: (one[0], one[2]) for one in found}


def test_in_order(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["sslflow", "doctor", "--quick"])
    (Path() / "dvc.yaml").write_text(tiny.PIPELINE.replace("${run.methods}", "${run.controls}"))
    assert cli.main() == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("nothing stops the pipeline")
    for what in ("Python", "versions", "processors", "open files", "ffmpeg", "DVC", "Prefect", "remotes"):
        assert f"\n  {what}" in f"\n{said.replace('·', ' ')}"


def test_what_stops_the_pipeline_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong() -> None:
        raise ValueError("params.yaml: train.lr: expected a number\nparams.yaml: train.epochs: missing")

    monkeypatch.setattr(doctor, "check", wrong)
    monkeypatch.setattr(sys, "argv", ["sslflow", "doctor", "--quick"])
    assert cli.main() == 1
    said = capsys.readouterr().out
    assert "! settings" in said
    assert "train.epochs: missing" in said
    assert "stops the pipeline (!)" in said


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.151.2" if name == "fastapi" else real(name))
    level, words = about(of_flows.findings())["Prefect"]
    assert level == "note", "the runner needs no Prefect"
    assert "fastapi 0.151.2 (works: >=0.139,<0.151)" in words


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["nosuchpackage>=1", "torch>=99", 'onnx; extra == "export"'])
    monkeypatch.setattr(doctor, "OF_FLOWS", ())
    there = [one for one in metadata.distributions() if one.name in ("torch", "sslflow")]
    made = metadata.PathDistribution(Path("sslflow.dist-info"))
    Path("sslflow.dist-info").mkdir(exist_ok=True)
    Path("sslflow.dist-info/METADATA").write_text("Name: sslflow\nVersion: 1\n")
    monkeypatch.setattr(metadata, "distributions", lambda: [*there, made])
    found = [one for one in doctor.findings(False) if one.about == "packages"]
    assert [one.level for one in found] == ["stops", "note"]
    assert "not installed: nosuchpackage" in found[0].words
    assert "torch" in found[1].words
    assert "onnx" not in found[0].words, "extras may be missing"


def test_a_device_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    found = list(doctor._devices("cuda"))
    assert found[0].level == "stops"
    assert "torch finds no usable GPU" in found[0].words


def test_more_threads_than_processors() -> None:
    found = next(iter(doctor._processors(999)))
    assert found.level == "note"
    assert "more threads than processors" in found.words


def test_a_full_disk_and_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_disk", lambda: 1_000_000)
    monkeypatch.setattr(doctor, "_needed", lambda content: 5e9)
    (disk,) = doctor._disk({})
    assert (disk.level, disk.words) == (
        "stops",
        "1 MB free; images and features need about 5.0 GB, DVC's cache included",
    )
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 65536))
    (files,) = doctor._files()
    assert (files.level, files.words) == ("note", "256 at once; `ulimit -n 65536` allows more")


def test_what_a_run_needs_of_the_disk() -> None:
    content = {"data": {"channels": 3, "image_size": 10}, "run": {"methods": ["a"], "seeds": [0, 1]}}
    assert doctor._needed(content) is None, "not known yet how many images there are"
    Path("data/listings").mkdir(parents=True)
    Path("data/listings/data.csv").write_text("path\n" + "x\n" * 7)
    assert doctor._needed(content) == 2 * 7 * (300 + 2 * 512 * 4)


def test_remotes() -> None:
    here = Path().resolve()
    config = Path(".dvc/config")
    before = config.read_text()
    config.write_text(
        f"{before}['remote \"near\"']\n    url = {here}/store\n['remote \"far\"']\n    url = s3://bucket/x\n"
    )
    found = about(of_flows.findings())
    assert found["remotes"] == ("note", "none is the default: `dvc remote default near` makes one")
    assert found["remote near"] == ("note", f"{here}/store: {of_flows.NOTHING_YET}")
    (here / "store").mkdir()
    assert about(of_flows.findings())["remote near"] == ("ok", f"{here}/store answers")
    level, words = found["remote far"]
    assert level == "note"
    assert words.startswith("s3://bucket/x: ")
    config.write_text(before)


def test_a_server_that_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    level, words = about(of_flows.findings())["server"]
    assert level == "note"
    assert "no server answers there" in words


def test_not_in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    level, words = about(of_flows.findings())["DVC"]
    assert level == "stops"
    assert "call it in the project's folder" in words


def test_speeds_are_measured_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speeds, "SECONDS", 0.05)
    monkeypatch.setattr(doctor, "disk_speeds", lambda folder: (20e6, 2e9))
    content = {"run": {"methods": ["a"]}, "data": {"image_size": 16, "channels": 3}, "encoder": {"width": 4}}
    found = about(doctor._speeds(content))
    assert int(found["decoding"][1].split()[0]) > 20
    assert int(found["a step"][1].split()[0]) > 20
    assert found["slowest"][1].startswith(("a step: ", "decoding, done once"))
    assert found["disk speed"] == ("note", "20 MB a second written and copied into DVC's cache, 2.0 GB read")
