"""How long stages take that share a machine."""

from __future__ import annotations

import pytest

from pipelines.plan import Planned
from pipelines.side_by_side import total

STAGES = [
    Planned("prepare", (), "stale", ()),
    Planned("a", ("prepare",), "stale", ()),
    Planned("b", ("prepare",), "stale", ()),
    Planned("report", ("a", "b"), "stale", ()),
]
SECONDS = {"prepare": 10.0, "a": 30.0, "b": 20.0, "report": 5.0}


@pytest.mark.parametrize(
    ("jobs", "cores", "work", "seconds"),
    [
        (1, 2, {}, 65.0),
        (2, 2, {}, 45.0),
        (2, 1, {}, 65.0),  # side by side on one processor each is half as fast
        (2, 2, {"a": 60.0}, 10 + 30 + 10 + 5),  # a wants both: of 3 that are wanted there are 2, until b has ended
    ],
)
def test_total(jobs: int, cores: int, work: dict[str, float], seconds: float) -> None:
    found = total(STAGES, SECONDS, dict.fromkeys(SECONDS, 0.0) | work, jobs, cores)
    assert found == pytest.approx(seconds)


def test_stages_that_do_not_run_take_no_time() -> None:
    assert total(STAGES, {"a": 3.0, "report": 1.0}, {"a": 0.0, "report": 0.0}, 2, 2) == 4.0
    assert total(STAGES, {}, {}, 2, 2) == 0.0
