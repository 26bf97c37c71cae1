"""Tables that stand in a guide, between marks of their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def show(lines: Iterable[str], file: Path | None, name: str) -> None:
    """Print the lines, and put them into the file, if there is one, as `replace_table` does."""
    text = "\n".join(lines)
    print(text)
    if file:
        replace_table(file, name, text)


def replace_table(file: Path, name: str, lines: str) -> None:
    """Put the lines between `<!-- name: begin -->` and `<!-- name: end -->`, in place of what stands there. Ends the
    program where the first of the marks is missing."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, mark, rest = file.read_text(encoding="utf-8").partition(begin)
    if not mark:
        raise SystemExit(f"{file} has no line {begin.strip()}")
    file.write_text(f"{before}{mark}{lines}\n{end}{rest.partition(end)[2]}", encoding="utf-8")
