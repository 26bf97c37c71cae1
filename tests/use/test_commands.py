"""The three commands, as they are typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sslflow import cli
from sslflow.use import folder as through


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sslflow", *map(str, words)])
    code = cli.main()
    said = capsys.readouterr()
    return code, said.out, said.err


def test_from_a_folder_to_neighbours_and_to_a_file_for_others(
    folder: Path,
    file: Path,
    tmp_path: Path,
    decoded: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, monkeypatch, "embed", folder, "--encoder", file.name, "--device", "cpu", "--map")
    assert code == 0
    assert out.splitlines()[-1] == "features.parquet: 22 images, 32 features each (2 can't be used, 1 other files)"
    assert err.startswith("warning: 2 images can't be used; all of them stand in features.quarantine.csv:")
    asked = folder / "a" / "04.png", folder / "b" / "deep" / "20.png"
    code, out, _ = call(capsys, monkeypatch, "search", *asked, "--top", 2, "--device", "cpu", "--sheet", "found.png")
    assert code == 0
    lines = out.splitlines()
    assert [lines[row] for row in (0, 3, 6)] == [f"{asked[0]}:", f"{asked[1]}:", "wrote found.png"]
    assert (lines[1], lines[4]) == (" 1.000  a/04.png", " 1.000  b/deep/20.png")
    mistyped = folder / "a" / "040.png"
    assert call(capsys, monkeypatch, "search", mistyped) == (1, "", f"{mistyped}: there is no such file\n")
    code, out, _ = call(capsys, monkeypatch, "export", file.name, "--to", "safetensors", "-o", "mine.safetensors")
    assert code == 0
    assert out.startswith("mine.safetensors: safetensors, ")
    assert out.endswith("its card: mine.safetensors.md\n")
    assert {one.name for one in tmp_path.iterdir()} == {
        *("images", "encoder.safetensors", "features.parquet", "features.quarantine.csv", "found.png"),
        *("mine.safetensors", "mine.safetensors.md"),
    }


def test_a_command_that_is_stopped_says_so(
    folder: Path,
    file: Path,
    decoded: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(through, "_fill", stopped)
    with pytest.raises(SystemExit) as ended:
        call(capsys, monkeypatch, "embed", folder, "--encoder", file, "-o", tmp_path / "f.parquet", "--device", "cpu")
    assert ended.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "embed: stopped; run it again to resume"

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(through, "_fill", full)
    code, _, err = call(
        capsys, monkeypatch, "embed", folder, "--encoder", file, "-o", tmp_path / "f.parquet", "--device", "cpu"
    )
    assert (code, err) == (1, "embed: too little memory: a smaller --batch or --side needs less\n")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("embed", "images", "--encoder", "{file}", "--sixteen-bit", "900,300"),
            "--sixteen-bit: expected full, stretch",
        ),
        (("embed", "images", "--encoder", "{file}", "--device", "gpu"), "--device: there is no device 'gpu'"),
        (("embed", "images", "--encoder", "{file}", "--side", "8"), "leave out --side and --network"),
        (("search", "a.png", "--sheet", "a.jpg"), "a.jpg: the contact sheet is a PNG"),
        (("search", "a.png", "--in", "none.parquet"), "there is no such table; `sslflow embed` makes one"),
        (("export", "{file}", "--to", "keras", "-o", "a.keras"), "there is no format 'keras'"),
    ],
)
def test_mistakes_are_said_in_a_line(
    words: tuple[str, ...],
    says: str,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, monkeypatch, *(word.format(file=file) for word in words))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert says in err
