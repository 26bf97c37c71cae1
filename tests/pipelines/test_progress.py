"""What a run shows of itself: the estimate, the lines, and what is left on a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import tiny
from ruamel.yaml import YAML

from pipelines.plan import Planned
from pipelines.progress import WEIGHTS, Display, Times, approximately, expected, time_left


def stage(name: str, *after: str, state: str = "stale") -> Planned:
    return Planned(name, after, state, ())  # pyright: ignore[reportArgumentType]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.progress.WEIGHTS", {})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def times(tmp_path: Path) -> Times:
    return Times(tmp_path / "work" / "durations.json")


# The estimate

RUN = [stage("prepare"), stage("pretrain@a-0", "prepare"), stage("pretrain@b-0", "prepare"), stage("report")]


def test_what_a_stage_took_last_is_what_it_will_take() -> None:
    last = {"prepare": 3.0, "pretrain@a-0": 60.0, "pretrain@b-0": 90.0, "report": 9.0}
    assert expected([stage.name for stage in RUN], {}, last) == last


def test_longer_than_last_time_holds_for_the_group() -> None:
    last = {"prepare": 3.0, "pretrain@a-0": 60.0, "pretrain@b-0": 90.0}
    found = expected(["pretrain@b-0", "prepare"], {"pretrain@a-0": 120.0}, last)
    assert found == {"pretrain@b-0": 180.0, "prepare": 3.0}


def test_a_stage_that_never_ran_takes_what_its_group_takes() -> None:
    assert expected(["pretrain@c-0"], {}, {"pretrain@a-0": 60.0, "pretrain@b-0": 90.0}) == {"pretrain@c-0": 75.0}
    assert expected(["pretrain@c-0"], {"pretrain@a-0": 10.0}, {"pretrain@b-0": 90.0}) == {"pretrain@c-0": 10.0}


def test_weights_stand_for_the_rest_once_enough_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.progress.WEIGHTS", {"prepare": 1, "pretrain": 20, "probe": 5})
    names = ["prepare", "pretrain@a-0", "probe@a-0"]
    assert expected(names, {"prepare": 3.0}, {}) == {"prepare": 3.0}
    assert expected(names, {"pretrain@a-0": 40.0}, {}) == {"pretrain@a-0": 40.0, "prepare": 2.0, "probe@a-0": 10.0}
    assert expected([*names, "unheard_of"], {"pretrain@a-0": 40.0}, {}).keys() == set(names)


def test_there_is_a_weight_for_each_stage_of_the_pipeline() -> None:
    assert WEIGHTS.keys() == YAML(typ="safe").load(tiny.ROOT / "dvc.yaml")["stages"].keys()


def test_stages_side_by_side_take_as_long_as_the_longest_way() -> None:
    seconds = {"prepare": 3.0, "pretrain@a-0": 60.0, "pretrain@b-0": 90.0, "report": 9.0}
    assert time_left(RUN, (), {}, seconds, jobs=1) == 162
    assert time_left(RUN, (), {}, seconds, jobs=2) == 99
    assert time_left(RUN, ("prepare",), {"pretrain@a-0": 20.0}, seconds, jobs=2) == 90
    assert time_left(RUN, ("prepare", "report", "pretrain@b-0"), {"pretrain@a-0": 20.0}, seconds, jobs=2) == 40
    assert time_left(RUN, seconds, {}, seconds, jobs=2) == 0


def test_a_stage_that_is_late_is_given_as_much_again() -> None:
    assert time_left(RUN[:1], (), {"prepare": 5.0}, {"prepare": 3.0}, jobs=1) == 2


def test_what_is_up_to_date_takes_no_time() -> None:
    stages = [stage("prepare", state="fresh"), stage("report", "prepare", state="pending")]
    assert time_left(stages, (), {}, {"report": 9.0}, jobs=1) == 9


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert time_left(RUN, (), {}, {"prepare": 3.0}, jobs=2) is None
    assert time_left(RUN[:2], (), {"pretrain@a-0": 4.0}, {"prepare": 3.0}, jobs=2) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(2, "10 s"), (34, "30 s"), (54.9, "50 s"), (55, "1 min"), (230, "4 min"), (5000, "83 min"), (9000, "2.5 h")],
)
def test_times_are_said_roughly(seconds: float, words: str) -> None:
    assert approximately(seconds) == words


# The times of earlier runs


def test_times_are_kept_for_the_next_run(times: Times, clock: Clock) -> None:
    display = Display(1, times, io.StringIO(), clock)
    display.planned(RUN)
    display.ended("prepare", "ran", 3.04)
    display.ended("report", "failed", 2.0)
    display.ended("pretrain@a-0", "cached", 1.0)
    display.ended("pretrain@b-0", "stopped", 1.0)
    assert Times(times.file).last == {"prepare": 3.0}
    again = Times(times.file)
    again.add("report", 9)
    assert json.loads(times.file.read_text()) == {"prepare": 3.0, "report": 9}
    assert [file.name for file in times.file.parent.iterdir()] == [times.file.name]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"prepare": "long"}', "\xff"])
def test_a_broken_file_of_times_is_as_none(times: Times, text: str) -> None:
    times.file.parent.mkdir()
    times.file.write_text(text, encoding="latin-1")
    assert Times(times.file).last == {}


# Lines in a log


def written(display: Display) -> str:
    assert isinstance(display.stream, io.StringIO)
    return display.stream.getvalue()


def shown(display: Display) -> list[str]:
    return written(display).splitlines()


def test_a_log_has_a_line_every_ten_seconds_and_all_that_matters(times: Times, clock: Clock) -> None:
    display = Display(2, times, io.StringIO(), clock)
    display.planned(RUN)
    display.started(RUN[1])
    for step in range(1, 301):
        display.line("pretrain@a-0", f"pretrain a-0  step {step}/300  loss {3 - step / 200:.4f}  eta {300 - step}s")
        if step in (150, 155):
            display.line("pretrain@a-0", f"pretrain a-0  step {step}/300  warning: it has collapsed")
        clock.now += 0.125
    for line in ("300 steps", "verdict: healthy", "verdict: cut short"):
        display.line("pretrain@a-0", line)
    display.ended("pretrain@a-0", "ran", 30.04)
    assert shown(display) == [
        "pretrain@a-0 | pretrain a-0  step 1/300  loss 2.9950  eta 299s",
        "pretrain@a-0 | pretrain a-0  step 81/300  loss 2.5950  eta 219s",
        "pretrain@a-0 | pretrain a-0  step 150/300  warning: it has collapsed",
        "pretrain@a-0 | pretrain a-0  step 155/300  warning: it has collapsed",
        "pretrain@a-0 | pretrain a-0  step 161/300  loss 2.1950  eta 139s",
        "pretrain@a-0 | pretrain a-0  step 241/300  loss 1.7950  eta 59s",
        "pretrain@a-0 | pretrain a-0  step 300/300  loss 1.5000  eta 0s",
        "pretrain@a-0 | 300 steps",
        "pretrain@a-0 | verdict: healthy",
        "pretrain@a-0 | verdict: cut short",
        "pretrain@a-0 | ran in 30.0 s [1/4]",
    ]


def test_each_stage_has_its_line(times: Times, clock: Clock) -> None:
    display = Display(2, times, io.StringIO(), clock)
    for name in ("pretrain@a-0", "pretrain@b-0"):
        display.line(name, "> python")
        display.line(name, "reading")
    assert shown(display) == ["pretrain@a-0 | > python", "pretrain@b-0 | > python"]


def test_what_was_said_last_is_shown_though_nothing_follows(times: Times, clock: Clock) -> None:
    display = Display(2, times, io.StringIO(), clock)
    for line in ("> python", "reading 5 files", "fitting"):
        display.line("probe@a-0", line)
    clock.now += 9
    display.tick()
    assert shown(display) == ["probe@a-0 | > python"]
    clock.now += 1
    display.tick()
    clock.now += 60
    display.tick()
    assert shown(display) == ["probe@a-0 | > python", "probe@a-0 | fitting"]


@pytest.mark.parametrize(
    "line",
    [
        "x.py:3: UserWarning: slow",
        "  warnings.warn(UserWarning: slow",
        "prepare: error: no space left",
        "ERROR: failed to reproduce 'prepare'",
        "Traceback (most recent call last):",
        "torch.OutOfMemoryError: CUDA out of memory",
        "KeyboardInterrupt exception",
    ],
)
def test_warnings_and_errors_are_shown_at_once(line: str, times: Times, clock: Clock) -> None:
    display = Display(2, times, io.StringIO(), clock)
    display.line("prepare", "> python")
    display.line("prepare", line)
    display.line("prepare", "reconstruction error 0.21")
    assert shown(display) == ["prepare | > python", f"prepare | {line}"]


def test_a_log_tells_how_far_the_run_is(times: Times, clock: Clock) -> None:
    times.last = {"prepare": 3.0, "pretrain@a-0": 60.0, "pretrain@b-0": 90.0, "report": 9.0}
    display = Display(2, times, io.StringIO(), clock)
    display.planned(RUN)
    display.started(RUN[0])
    clock.now += 4
    display.ended("prepare", "ran", 4.0)
    display.ended("report", "cached", 0.0)
    display.ended("pretrain@a-0", "failed", 1.0)
    display.ended("pretrain@b-0", "not run", 0.0)
    assert shown(display) == [
        "prepare | ran in 4.0 s [1/4, about 2 min left]",
        "pretrain@a-0 | failed in 1.0 s [3/4, about 2 min left]",
        "pretrain@b-0 | not run [4/4]",
    ]


# The line at the bottom of a terminal


def live(display: Display) -> list[str]:
    return tiny.screen(written(display))


def test_a_terminal_has_a_line_at_its_bottom(times: Times, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    times.last = {"pretrain@a-0": 60.0, "pretrain@b-0": 90.0, "report": 250.0}
    with Display(2, times, Terminal(), clock) as display:
        assert live(display) == [""]
        display.planned(RUN)
        assert live(display) == ["stage 0 of 4 · 0:00"]
        display.started(RUN[0])
        display.ended("prepare", "ran", 3.0)
        display.started(RUN[1])
        display.started(RUN[2])
        clock.now += 83
        display.line("pretrain@b-0", "step 1/300")
        assert live(display) == [
            "prepare | ran in 3.0 s [1/4, about 5 min left]",
            "pretrain@b-0 | step 1/300",
            "stage 3 of 4 · pretrain@a-0, pretrain@b-0 · 1:23 · about 4 min left",
        ]
        clock.now += 3600
        display.tick()
        assert live(display)[-1].startswith("stage 3 of 4 · pretrain@a-0, pretrain@b-0 · 1:01:23 · about ")
    assert live(display)[-1] == ""
    assert written(display).count("\n") == len(live(display)) - 1


@pytest.mark.parametrize("columns", range(10, 100, 7))
def test_it_never_takes_more_than_a_line(
    columns: int, times: Times, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    stages = [stage(f"pretrain@context_prediction-{seed}") for seed in range(5)]
    display = Display(5, times, Terminal(), clock)
    display.planned(stages)
    for one in stages:
        display.started(one)
    (line,) = live(display)
    assert len(line) < columns
    if columns > 40:
        assert line.endswith(" more · 0:00")


def test_whatever_ends_a_run_the_line_goes(times: Times, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    display = Display(2, times, Terminal(), clock)
    display.planned(RUN)

    def interrupt() -> None:
        with display:
            display.started(RUN[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    display.line("prepare", "prepare: stopped")
    assert live(display) == ["prepare | prepare: stopped", ""]
    assert "\x1b[?" not in written(display), "nothing to put right after a kill: the cursor is never hidden"


def test_a_terminal_that_can_do_nothing_is_as_a_log(
    times: Times, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with Display(2, times, Terminal(), clock) as display:
        display.planned(RUN)
        display.ended("prepare", "ran", 3.0)
    assert shown(display) == ["prepare | ran in 3.0 s [1/4]"]
