"""mappings/requirements.py: what is wanted of a material, and in which form."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pydantic import ValidationError

from mappings.requirements import Deferral, Predicate, Use


@pytest.mark.parametrize(
    ("given", "test", "value"),
    [
        ({"is": "现势"}, "is", "现势"),
        ({"is": True}, "is", True),
        ({"is": False}, "is", False),
        ({"is": 0}, "is", 0),
        ({"at_least": 6}, "at_least", 6),
        ({"at_most": 8.50}, "at_most", "8.5"),
        ({"at_least": 1e-7}, "at_least", "0.0000001"),
        ({"at_most": "60.0000"}, "at_most", "60.0000"),
        ({"at_least": dt.date(2024, 2, 29)}, "at_least", "2024-02-29"),
        ({"one_of": ["硕士", "博士"]}, "one_of", ("硕士", "博士")),
        ({"one_of": [dt.date(2024, 1, 1), 2.5]}, "one_of", ("2024-01-01", "2.5")),
    ],
)
def test_a_predicate_has_one_test_and_values_as_json_writes_them(given: dict[str, Any], test: str, value: Any) -> None:
    predicate = Predicate.model_validate({"attribute": "state", **given})
    assert (predicate.test, predicate.value) == (test, value)
    assert type(predicate.value) is type(value)
    assert predicate.values == (value if isinstance(value, tuple) else (value,))


@pytest.mark.parametrize("given", [{}, {"is": 1, "at_least": 1}, {"one_of": []}, {"between": 1}, {"is": None}])
def test_not_exactly_one_test(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Predicate.model_validate({"attribute": "state", **given})


@pytest.mark.parametrize(
    ("age", "good"), [("P90D", True), ("P1D", True), ("P0D", False), ("PT36H", False), ("-P1D", False)]
)
def test_an_age_is_a_number_of_whole_days(age: str, good: bool) -> None:
    given = {"material": "resident-id-card", "max_age": age}
    if good:
        assert Use.model_validate(given).max_age == dt.timedelta(days=int(age[1:-1]))
    else:
        with pytest.raises(ValidationError, match="max_age"):
            Use.model_validate(given)


@pytest.mark.parametrize(
    ("left", "days"),
    [("P0D", 0), ("P30D", 30), ("P2W", 14), ("P36525D", 36525)]
    + [
        (bad, None)
        for bad in (30, "30", 86400.0, "PT12H", "P1Y", "P6M", "P36526D", "P9999999D", "-P1D", "P١D", "P1D\n", "")
    ],
)
def test_a_time_left_is_whole_days_and_no_more_than_a_hundred_years(left: Any, days: int | None) -> None:
    given = {"material": "resident-id-card", "valid_left": left}
    if days is None:
        with pytest.raises(ValidationError, match="valid_left"):
            Use.model_validate(given)
    else:
        assert Use.model_validate(given).valid_left == dt.timedelta(days=days)


@pytest.mark.parametrize("within", ["P36526D", 20, "P0D"])
def test_a_deferral_is_as_bounded(within: Any) -> None:
    with pytest.raises(ValidationError, match="within"):
        Deferral.model_validate({"kind": "later", "within": within, "basis": {"zh": "文", "en": "text"}})
