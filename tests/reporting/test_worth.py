"""What labels are worth, in words and as lines."""

from __future__ import annotations

import numpy as np
import pytest

from sslflow.evaluation.savings import Needed
from sslflow.reporting.images.by_labels import apart, spaced
from sslflow.reporting.images.worth import Prices, energy_sentence, sentence

PRICES = Prices(label=0.1, hour=2.0)


@pytest.mark.parametrize(
    ("needs", "seconds", "words"),
    [
        (Needed(300, 250, 380), 1800, ["300 (250 to 380)", "Worth it: 200 labels at 0.1 each are 20.00", "1.00 at 2"]),
        (Needed(300, 250, np.inf), 1800, ["(250 to more than all)", "Worth it"]),
        (Needed(300, 250, 380), 180_000, ["Not worth it here", "pays from 0.5000 a label on"]),
        (Needed(120, 80, 150), 1800, ["which may be chance"]),
        (Needed(60, 50, 90), 1800, ["Not worth it here: it needs no more labels than simclr"]),
        (Needed(np.inf, 400, np.inf), 1800, ["with all the labels there are", "No number of labels here replaces it"]),
        (Needed(np.inf, 80, np.inf), 1800, ["with all the labels there are", "It may be chance"]),
    ],
)  # fmt: skip
def test_the_sentence_says_no_more_than_the_interval(needs, seconds, words):
    said = sentence("simclr", "raw pixels", [(100, needs)], seconds, PRICES)
    for word in words:
        assert word in said
    assert ("Worth it" in said) == ("Worth it" in words[-1] or any("Worth it" in one for one in words))


def test_the_largest_number_of_labels_that_can_be_compared_is_told():
    table = [(10, Needed(20, 15, 25)), (100, Needed(300, 200, 400)), (1000, Needed(np.inf, np.inf, np.inf))]
    assert "with 100 labels it needs 300" in sentence("simclr", "raw pixels", table, 60.0, PRICES)


def test_energy_costs_where_it_was_read_and_has_a_price():
    table, priced = [(100, Needed(300, 250, 380))], Prices(label=0.1, hour=2.0, kwh=0.5)
    said = sentence("simclr", "raw pixels", table, 1800, priced, 3000.0)
    assert "1.00 at 2 an hour, and 3,000.0 Wh, 1.50 at 0.5 a kWh; it pays from 0.0125 a label on" in said
    for prices, energy in ((PRICES, 3000.0), (priced, None)):
        assert "Wh" not in sentence("simclr", "raw pixels", table, 1800, prices, energy)
    assert "Not worth it here" in sentence("simclr", "raw pixels", table, 1800, priced, 4e7)


def test_energy_that_was_not_read_is_said_to_be_so():
    assert "not read" in energy_sentence(None)
    assert "0.0 Wh" in energy_sentence(0.0)


@pytest.mark.parametrize(
    ("of_gpu", "words"),
    [(None, "of the processors that"), (3.0, "of the processors and GPU that"), (5.0, "of the GPU alone (")],
)
def test_energy_is_said_to_be_of_what_was_read(of_gpu, words):
    assert f"5.0 Wh a run, {words}" in energy_sentence(5.0, of_gpu)


def test_names_beside_lines_do_not_stand_on_one_another():
    assert apart([50.0, 52.0, 10.0], 12.0) == [50.0, 62.0, 10.0]
    assert spaced([1, 2, 40, 100], float, 30.0) == [2, 40, 100]
