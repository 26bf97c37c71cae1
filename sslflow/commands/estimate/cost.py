"""What a stage costs, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sslflow.reporting.leaderboard import duration


@dataclass
class Cost:
    """Of one stage, in a machine that does nothing else."""

    seconds: float = 0.0
    ram: int = 0
    """Bytes, at most."""
    disk: int = 0
    """Bytes that stay, DVC's cache included."""
    gpu: int = 0
    """Bytes of GPU memory, at most."""
    work: float = 0.0
    """Processor seconds, where several processes share the work; 0: as many as seconds."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds by what they are spent on."""
    notes: list[str] = field(default_factory=list)
    """What the numbers rest on, where not on a measurement of the thing itself."""
    problems: list[str] = field(default_factory=list)
    """Why it can't run as it is set."""

    def spend(self, what: str, seconds: float) -> None:
        """Add seconds to the whole and to a part."""
        self.seconds += seconds
        self.parts[what] = self.parts.get(what, 0.0) + seconds

    @property
    def binds(self) -> str:
        """The largest part, and its share."""
        if not self.parts:
            return ""
        what = max(self.parts, key=lambda name: self.parts[name])
        return f"{what} {100 * self.parts[what] / max(self.seconds, 1e-9):.0f} %"


def table(costs: Mapping[str, Cost], with_gpu: bool) -> list[str]:
    """A line for each stage, below a heading."""
    width = max(len("stage"), *(len(name) for name in costs))
    gpu = f"{'GPU':>9}" if with_gpu else ""
    lines = [f"{'stage':<{width}}  {'time':>12}{'RAM':>9}{gpu}{'disk':>9}  most of it"]
    for name, cost in costs.items():
        gpu = f"{size(cost.gpu):>9}" if with_gpu else ""
        lines.append(
            f"{name:<{width}}  {duration(cost.seconds):>12}{size(cost.ram):>9}{gpu}{size(cost.disk):>9}  {cost.binds}"
        )
    return lines


def notes(costs: Mapping[str, Cost]) -> list[str]:
    """The notes of all stages, each once, with the stages that it is about."""
    about: dict[str, list[str]] = {}
    for name, cost in costs.items():
        for note in cost.notes:
            about.setdefault(note, []).append(name)
    return [f"{_few(names)}: {note}" for note, names in about.items()]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"


def size(count: float) -> str:
    """`–`, `820 MB`, `1.4 GB`."""
    if count < 5e5:
        return "–"
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
