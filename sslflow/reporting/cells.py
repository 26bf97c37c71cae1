"""What stands in the tables of sections that have their own: a number, what lies behind it, what it differs by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A number. `behind`: its interval, and what else is known of it; `top`: whether it is the best of its column, or
    may be; `gap`: how far it is from the row that it is compared with, and that interval; `verdict`: what that means;
    `seeds`: on how many, where not all have both; empty where there is nothing to compare with."""

    words: str
    behind: str
    top: bool = False
    gap: tuple[str, str] = ("", "")
    verdict: str = ""
    seeds: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table: a cell for each column, None where there is none. `way`: how it was made, where rows of a table
    differ in it."""

    title: str
    control: bool
    cells: list[Cell | None]
    way: str = ""
