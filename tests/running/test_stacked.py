"""Settings of cells: stacked where they vary, and the same again when taken apart."""

import numpy as np
import pytest

from statsgd.running.stacked import Stacked, alike, axis_values


def is_number(leaf):
    return isinstance(leaf, float | np.ndarray)


SETTINGS = [
    {"rate": 0.1, "table": np.arange(3.0), "same": 2.0, "name": "a"},
    {"rate": 0.2, "table": np.ones(3), "same": 2.0, "name": "a"},
]


def test_cells_are_what_was_stacked():
    stacked = Stacked.of(SETTINGS, is_number)
    assert stacked.varied["same"] is None
    assert stacked.shared == {"rate": None, "table": None, "same": 2.0, "name": "a"}
    for index, settings in enumerate(SETTINGS):
        cell = stacked.cell(index)
        assert cell["name"] == "a"
        assert cell["rate"] == np.float32(settings["rate"])
        np.testing.assert_array_equal(cell["table"], settings["table"])


@pytest.mark.parametrize(
    "changes", [{"name": "b"}, {"table": np.ones(4)}, {"same": 2}, {"same": None}, {"more": 1.0}]
)
def test_settings_that_differ_in_more_than_numbers_are_not_alike(changes):
    assert alike(*SETTINGS, is_number)
    assert not alike(SETTINGS[0], SETTINGS[1] | changes, is_number)


@pytest.mark.parametrize("entries", [[], 1.0, [[1.0]]])
def test_an_axis_has_values(entries):
    np.testing.assert_array_equal(axis_values("rate", [1, 2]), [1.0, 2.0])
    with pytest.raises(ValueError, match="grid 'rate' must be a non-empty sequence of numbers"):
        axis_values("rate", entries)
