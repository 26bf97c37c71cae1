"""Shares and times in words."""

from __future__ import annotations


def percent(share: float) -> str:
    """`84.1`; all and none are said where they are meant, and not where they are nearly so."""
    return f"{min(max(100 * share, 0.1), 99.9) if 0 < share < 1 else 100 * share:.1f}"


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 12 s`, `2 h 05 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
