import dataclasses

import pytest

from data.world.constants import WorldConstants


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("documents", 0),
        ("queries", -1),
        ("users", 0),
        ("days", 0),
        ("topics", 121),
        ("click_noise", 1.1),
        ("patience", float("nan")),
        ("position_exponent", float("inf")),
        ("supply_exponent", -0.1),
        ("reformulation_median_seconds", 0.0),
        ("feed_need_share", 0.9),
        ("first_day", "tomorrow"),
        ("first_day", "2024-02-30"),
    ],
)
def test_wrong_values_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}|feed_need_share|feed-need-share"):
        WorldConstants(**{name: value})


def test_every_number_has_a_rule():
    """Every number is checked, including numbers that are added later, so that -1 raises ValueError."""
    free = {"poor_quality"}  # A threshold on a standard normal number can be negative.
    for field in dataclasses.fields(WorldConstants):
        if field.name not in free and isinstance(field.default, int | float):
            with pytest.raises(ValueError):
                WorldConstants(**{field.name: -1})


def test_start_is_midnight_utc():
    assert WorldConstants(first_day="1970-01-02").start_us == 86_400_000_000
