"""JSON text of whole columns: what a JSON reader finds in it is what went in."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mappings import jsoncolumns
from mappings.amounts import MONEY

VALUES = st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=40)


def read(columns: dict[str, pa.Array], *, nulls: bool = True) -> list[Any]:
    rows = len(next(iter(columns.values())))
    texts = jsoncolumns.joined(["{", *jsoncolumns.members(columns, nulls=nulls), "}"], rows)
    return [json.loads(text) for text in texts.to_pylist()]


@given(VALUES)
def test_any_text_comes_back_as_it_was(values: list[str | None]) -> None:
    array = pa.array(values, pa.string())
    assert read({'a "key"\\': array, "b": array}) == [{'a "key"\\': value, "b": value} for value in values]
    present = [{} if value is None else {"a": value, "b": value} for value in values]
    assert read({"a": array, "none": pa.nulls(len(values), pa.string()), "b": array}, nulls=False) == present


def test_a_slice_is_read_from_its_own_beginning() -> None:
    array = pa.array(["x", 'a"', None, "b\n"]).slice(1)
    assert read({"a": array}) == [{"a": 'a"'}, {"a": None}, {"a": "b\n"}]


def test_every_type_of_an_attribute() -> None:
    found = read(
        {
            "on": pa.array([dt.date(2020, 2, 29), None]),
            "at": pa.array([dt.datetime(2020, 1, 2, 3, 4, 5, 600, dt.UTC), None], pa.timestamp("us", "UTC")),
            "number": pa.array([12, None]),
            "decimal": pa.array([Decimal("0.0500"), Decimal("-7")], pa.decimal128(20, 4)),
            "yes": pa.array([True, None]),
            "money": pa.array([{"amount": Decimal("1.5"), "currency": None}, None], MONEY),
        }
    )
    assert found == [
        {
            "on": "2020-02-29", "at": "2020-01-02T03:04:05.000600Z", "number": 12, "decimal": "0.0500", "yes": True,
            "money": {"amount": "1.5000"},
        },
        {"on": None, "at": None, "number": None, "decimal": "-7.0000", "yes": None, "money": None},
    ]  # fmt: skip


def test_moments_before_the_year_1000_keep_their_four_digits() -> None:
    early = pa.array([dt.datetime(999, 12, 31, 16, 0, tzinfo=dt.UTC)], pa.timestamp("us", "UTC"))
    assert jsoncolumns.instants(early).to_pylist() == ["0999-12-31T16:00:00.000000Z"]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_commas_stand_between_the_items_a_row_has(rows: list[tuple[bool, ...]]) -> None:
    masks = [None, *(np.array(column) for column in zip(*rows, strict=True))]
    for order in (masks, masks[1:], [*masks[1:], None]):
        items = [([str(place)], mask) for place, mask in enumerate(order)]
        found = jsoncolumns.joined(["[", *jsoncolumns.listed(items), "]"], len(rows))
        wanted = [[p for p, mask in enumerate(order) if mask is None or mask[row]] for row in range(len(rows))]
        assert [json.loads(text) for text in found.to_pylist()] == wanted
