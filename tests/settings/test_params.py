"""Settings are read strictly, and everything that is wrong is said at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from sslflow.settings.params import (
    Count,
    Fraction,
    Over,
    ParamsError,
    Positive,
    Widths,
    checked,
    keys,
    lookup,
    read,
    schema,
    sections,
)


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


# Sections over shared ones


def train(*, epochs: Count, lr: Positive, warmup: Fraction = 0.1) -> None:
    """What the shared section and a method's block configure together."""


METHODS = {"methods.a": inner, "methods.a.train": Over("train", train)}


def test_a_block_lies_over_the_shared_section_key_by_key(write):
    file = write("train: {epochs: 12, lr: 3e-3}\nmethods: {a: {depth: 2, train: {epochs: 3}}}")
    assert read(METHODS, file) == {"methods.a": {"depth": 2}, "methods.a.train": {"epochs": 3, "lr": 3e-3}}


def test_of_the_shared_section_those_keys_count_that_the_callable_has(write):
    file = write("train: {epochs: 12, lr: 1, local_crops: 2}\nmethods: {a: {}}")
    assert read(METHODS, file)["methods.a.train"] == {"epochs": 12, "lr": 1}


@pytest.mark.parametrize(
    "text", ["methods: {a: {train: {}}}", "methods: {a: }", "methods: {}", "methods:", "other: {}"]
)
def test_a_block_may_be_absent(write, text):
    assert read(METHODS, write(f"train: {{epochs: 12, lr: 1}}\n{text}")) == {
        "methods.a": {},
        "methods.a.train": {"epochs": 12, "lr": 1},
    }


def test_a_shared_section_may_be_absent(write):
    file = write("methods: {a: {train: {epochs: 1, lr: 1}}}")
    assert read(METHODS, file)["methods.a.train"] == {"epochs": 1, "lr": 1}


def test_what_is_wrong_is_named_where_it_stands(write):
    file = write("train: {epochs: 0}\nmethods: {a: {train: {warmup: 2, ephocs: 3}}}")
    with pytest.raises(ParamsError) as caught:
        read(METHODS, file)
    assert caught.value.problems == [
        "methods.a.train.ephocs: unknown, did you mean 'epochs'?",
        "train.epochs: should be greater than 0, found 0",
        "methods.a.train.lr: missing, and not in train either",
        "methods.a.train.warmup: should be less than or equal to 1, found 2",
    ]


def test_a_shared_value_that_is_wrong_is_no_matter_where_a_block_has_its_own(write):
    assert read(METHODS, write("train: {epochs: 0, lr: 1}\nmethods: {a: {train: {epochs: 1}}}"))


@pytest.mark.parametrize(
    ("text", "place"), [("train: 3", "train"), ("train: {}\nmethods: {a: {train: 3}}", "methods.a.train")]
)
def test_a_value_in_place_of_a_section_is_refused(write, text, place):
    with pytest.raises(ParamsError, match=f"{place}: expected settings .*, found 3"):
        read(METHODS, write(text))


def test_merge_keys_are_refused_with_what_to_do(write):
    text = "train: &train {epochs: 12, lr: 1}  # not <<: here\nmethods:\n  a:\n    train: {<<: *train, epochs: 3}"
    with pytest.raises(ParamsError, match=r"line 4: merge keys .* recipes/full\.yaml"):
        read(METHODS, write(text))
    with pytest.raises(ParamsError, match="line 2: merge keys"):
        read(METHODS, write("methods:\n  <<: {a: {}}"))


def test_the_sections_that_are_read_are_the_outermost_and_the_shared_ones():
    assert sections({**METHODS, "probe": probe, "probe.inner": inner}) == {"methods.a", "train", "probe"}


def test_a_section_is_looked_up_unchecked():
    content = {
        "train": {"epochs": 12, "crop": {"least": 0.2, "most": 1}},
        "methods": {"a": {"train": {"crop": {"least": 0.5}}}, "b": None},
    }
    assert lookup(content, "methods.a.train", over="train") == {"epochs": 12, "crop": {"least": 0.5, "most": 1}}
    assert lookup(content, "methods.b.train", over="train") == content["train"]
    assert lookup(content, "methods.c.train") == lookup(content, "train.epochs") == {}


# Mappings in a section


@dataclass(frozen=True)
class Crop:
    """The part of an image."""

    least: Fraction = 0.2
    most: Fraction = 1.0

    def __post_init__(self) -> None:
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, more than most, {self.most}")


@dataclass(frozen=True)
class Look:
    """A crop, and how the crop is changed."""

    size: Count
    crop: Crop = Crop()
    names: tuple[str, ...] = ()


def views(*, flip: Fraction = 0.5, crop: Crop = Crop(least=0.4), look: Look = Look(size=3)) -> None:
    """A callable that holds settings in mappings."""


VIEWS = {"methods.a.views": Over("views", views)}


def test_a_mapping_becomes_the_dataclass_of_its_parameter(write):
    file = write("views: {look: {size: 8, crop: {least: 0.1}, names: [x]}}")
    found = read(VIEWS, file)["methods.a.views"]
    assert found == {"look": Look(size=8, crop=Crop(least=0.1), names=("x",))}
    views(**found)


def test_fields_that_are_not_named_are_those_of_the_parameter_s_default(write):
    assert read(VIEWS, write("views: {crop: {most: 0.9}}"))["methods.a.views"] == {"crop": Crop(least=0.4, most=0.9)}
    assert read(VIEWS, write("views: {crop: }"))["methods.a.views"] == {"crop": Crop(least=0.4)}


def test_a_mapping_lies_over_the_shared_one_field_by_field(write):
    file = write(
        "views: {flip: 0.1, crop: {least: 0.3, most: 0.8, other: 1}, look: {size: 4, crop: {most: 0.6}}}\n"
        "methods: {a: {views: {crop: {most: 0.7}, look: {crop: {least: 0.5}}}}}"
    )
    assert read(VIEWS, file)["methods.a.views"] == {
        "flip": 0.1,
        "crop": Crop(least=0.3, most=0.7),
        "look": Look(size=4, crop=Crop(least=0.5, most=0.6)),
    }


def test_all_problems_of_mappings_are_in_one_message_with_their_full_names(write):
    file = write(
        "views: {crop: {most: 2}}\n"
        "methods: {a: {views: {crop: {leest: 0.7}, look: {size: 0, crop: 3, names: [1]}}}, b: {views: {crop: false}}}"
    )
    with pytest.raises(ParamsError) as caught:
        read({**VIEWS, "methods.b.views": views, "look": Look}, file)
    assert caught.value.problems == [
        "methods.a.views.crop.leest: unknown, did you mean 'least'?",
        "views.crop.most: should be less than or equal to 1, found 2",
        "methods.a.views.look.size: should be greater than 0, found 0",
        "methods.a.views.look.crop: expected settings (key: value), found 3",
        "methods.a.views.look.names[0]: should be a string, found 1",
        "methods.b.views.crop: expected settings (key: value), found False",
        "look: missing section (known: methods, views)",
    ]


def test_values_that_do_not_fit_together_are_a_problem_like_any_other(write):
    file = write(
        "views: {crop: {most: 0.3}}\nmethods: {a: {views: {crop: {least: 0.5}}}}\ncrop: {least: 0.9, most: 0.1}"
    )
    with pytest.raises(ParamsError) as caught:
        read({**VIEWS, "crop": Crop}, file)
    assert caught.value.problems == [
        "methods.a.views.crop: least is 0.5, more than most, 0.3",
        "least is 0.9, more than most, 0.1",
    ]


def test_a_field_without_a_default_is_asked_for(write):
    def needs(*, look: Look) -> None:
        """A parameter without a default."""

    problems: list[str] = []
    checked({"a": needs, "b": needs}, {"a": {"look": {}}, "b": {}}, problems)
    assert problems == ["a.look.size: missing", "b.look: missing"]


def test_keys_of_mappings_are_dotted():
    assert [*keys(views)] == [
        "flip",
        "crop",
        "crop.least",
        "crop.most",
        "look",
        "look.size",
        "look.crop",
        "look.crop.least",
        "look.crop.most",
        "look.names",
    ]
    assert list(schema(Crop)) == ["least", "most"]
