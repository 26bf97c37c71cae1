"""Settings are read strictly, and everything that is wrong is said at once."""

from __future__ import annotations

from typing import Literal

import pytest

from sslflow.settings.params import Count, Fraction, ParamsError, Positive, Widths, read


def probe(
    *, lr: Positive, epochs: Count, share: Fraction = 0.5, name: Literal["a", "b"] = "a", widths: Widths = (8,)
) -> None:
    """A callable to configure."""


def inner(*, depth: Count = 1) -> None:
    """A callable whose section lies inside probe's."""


@pytest.fixture
def write(tmp_path):
    def write(text: str):
        file = tmp_path / "params.yaml"
        file.write_text(text)
        return file

    return write


def test_numbers_are_read_as_yaml_1_2(write):
    file = write("probe: {lr: 1e-3, epochs: 2, widths: [4, 5], name: b}")
    assert read({"probe": probe}, file) == {"probe": {"lr": 1e-3, "epochs": 2, "widths": (4, 5), "name": "b"}}


def test_all_problems_are_in_one_message(write):
    file = write("probe: {lrr: 1, epochs: 0, share: 1.5, name: c, widths: [4, -1]}")
    with pytest.raises(ParamsError) as caught:
        read({"probe": probe, "prob": inner}, file)
    message = str(caught.value)
    assert "7 problems" in message
    for expected in (
        "probe.lrr: unknown, did you mean 'lr'?",
        "probe.epochs: should be greater than 0, found 0",
        "probe.share: should be less than or equal to 1, found 1.5",
        "probe.name: should be 'a' or 'b', found 'c'",
        "probe.widths[1]: should be greater than 0, found -1",
        "probe.lr: missing",
        "prob: missing section, did you mean 'probe'?",
    ):
        assert expected in message


@pytest.mark.parametrize("value", ["true", "'3'", "2.5"])
def test_a_number_of_another_kind_is_refused(write, value):
    with pytest.raises(ParamsError, match="epochs"):
        read({"probe": probe}, write(f"probe: {{lr: 1, epochs: {value}}}"))


def test_a_section_inside_another_belongs_to_its_own_callable(write):
    file = write("probe: {lr: 1, epochs: 1, inner: {depth: 3}}")
    assert read({"probe": probe, "probe.inner": inner}, file)["probe.inner"] == {"depth": 3}
    with pytest.raises(ParamsError, match=r"probe\.inner: unknown"):
        read({"probe": probe}, file)


def test_an_empty_section_takes_the_defaults(write):
    assert read({"inner": inner}, write("inner:")) == {"inner": {}}


@pytest.mark.parametrize("text", ["", "- a", "a: [", "probe: 3"])
def test_what_is_no_settings_file_is_one_clear_error(write, text):
    with pytest.raises(ParamsError):
        read({"probe": probe}, write(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ParamsError, match="no such file"):
        read({"probe": probe}, tmp_path / "params.yaml")
