"""How long a run takes whose stages share a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.plan import Planned, heights


def total(
    stages: Sequence[Planned], seconds: Mapping[str, float], work: Mapping[str, float], jobs: int, cores: int
) -> float:
    """Seconds from the first to the last of the `stages`, run as `runner.execute` does, up to `jobs` side by side.

    `seconds` is what each takes alone, `work` its processor seconds; where those that run together want more processors
    than the `cores` there are, each gets its share.
    """
    height = heights(stages)
    waiting = sorted((stage for stage in stages if stage.name in seconds), key=lambda stage: -height[stage.name])
    left: dict[str, float] = {}
    missing = {stage.name for stage in waiting}
    now = 0.0
    while waiting or left:
        for stage in list(waiting):
            if len(left) < jobs and not missing & set(stage.after):
                waiting.remove(stage)
                left[stage.name] = seconds[stage.name]
        wanted = sum(max(1.0, work[name] / max(seconds[name], 1e-9)) for name in left)
        speed = min(1.0, cores / wanted)
        passed = min(left.values()) / speed
        now += passed
        left = {name: rest - passed * speed for name, rest in left.items()}
        for name in [name for name, rest in left.items() if rest <= 1e-9]:
            del left[name]
            missing.discard(name)
    return now
