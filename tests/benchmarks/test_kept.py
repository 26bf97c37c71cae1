"""What benchmarks keep is made anew where it would be made of something else."""

from __future__ import annotations

from pathlib import Path

from benchmarks import kept
from sslflow.runtime.files import write_text


def test_what_is_kept_is_made_anew_for_other_settings_code_or_samples(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kept, "ROOT", tmp_path / "project")
    code, sample = tmp_path / "project/sslflow/ingest/a.py", tmp_path / "project/data/samples/x/b.parquet"
    write_text(code, "1")
    write_text(sample, "1")
    folder, made = tmp_path / "prepared", []

    def anew(settings: object) -> bool:
        before = len(made)
        kept.make(folder, settings, ("ingest",), lambda: made.append(write_text(folder / "dataset.json", "{}")))
        assert (folder / "dataset.json").exists()
        return len(made) > before

    assert anew({"size": 8})
    assert not anew({"size": 8})
    assert anew({"size": 9})
    write_text(code, "2")
    assert anew({"size": 9})
    write_text(sample, "2")
    assert anew({"size": 9})
    assert not anew({"size": 9})
    (folder / "dataset.json").unlink()
    folder.rmdir()
    assert anew({"size": 9})
