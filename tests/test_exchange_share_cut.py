"""hub/exchange/share_cut.py: exactly the rows that SQL selects, exactly the columns, exactly so many."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.zone import Zone
from hub.exchange import share_cut
from hub.exchange.share_cut import cut
from hub.exchange.share_folder import Folder
from hub.exchange.share_predicates import Columns, read
from mappings import arrow

COLUMNS: Columns = {
    "name": "string", "valid_from": "date", "attributes.count": "integer", "attributes.area": "decimal",
    "attributes.married": "boolean", "attributes.capital": "money",
}  # fmt: skip
NAMES = ["", "a", "A", "b", "甲", "it's", "\U0001f600"]
DAYS = ["1900-01-01", "2026-03-01", "2026-03-02", "9999-12-31"]
NUMBERS = ["-5", "0", "3", str(2**63 - 1)]
AREAS = ["-0.5", "0", "10.25", "9999999999999999.9999"]
VALUES = {"name": NAMES, "valid_from": DAYS, "attributes.count": NUMBERS, "attributes.area": AREAS}


def table(rows: int) -> pa.Table:
    """Every value meets every other one, and null."""

    def each(values: list[Any], step: int) -> list[Any]:
        known = [*values, None]
        return [known[row // step % len(known)] for row in range(rows)]

    money = [{"amount": Decimal("1.5"), "currency": "CNY"}, {"amount": None, "currency": None}]
    columns = {
        "name": each(NAMES, 1),
        "valid_from": each([dt.date.fromisoformat(day) for day in DAYS], 8),
        "attributes.count": each([int(number) for number in NUMBERS], 3),
        "attributes.area": each([Decimal(area) for area in AREAS], 7),
        "attributes.married": each([True, False], 2),
        "attributes.capital": each(money, 5),
    }
    return pa.table(columns, schema=pa.schema([(name, arrow.TYPES[kind]) for name, kind in COLUMNS.items()]))


WHOLE = table(400)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Four files of 100 rows each."""
    landing = tmp_path_factory.mktemp("landing")
    folder = Folder(Zone(landing), "shares/a", "t")
    files = [folder.write(WHOLE.slice(start, 100), "rows", f"{start}-").path for start in range(0, 400, 100)]
    return {
        "landing": str(landing), "place": "shares/a", "into": ["answers", "20260301T000000Z"], "files": files,
        "columns": list(COLUMNS), "predicate": None, "limit": None,
    }  # fmt: skip


def result(job: dict[str, Any], **more: Any) -> pa.Table:
    """What lies in the files that were written, read whole."""
    asked = {**job, **more}
    written = cut(asked)
    parts = []
    for one in written:
        path = Path(job["landing"]) / "shares/a" / one.path
        assert path.stat().st_size == one.size and path.stat().st_mode & 0o077 == 0
        parts.append(pq.read_table(path))
        assert parts[-1].num_rows == one.rows > 0
    names = asked["columns"]
    return pa.concat_tables(parts) if parts else WHOLE.schema.empty_table().select(names)


comparisons = st.builds(
    lambda name, sign, place: (name, sign, VALUES[name][place % len(VALUES[name])]),
    st.sampled_from(sorted(VALUES)), st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), st.integers(0, 10),
)  # fmt: skip


def text(one: tuple[str, str, str]) -> str:
    name, sign, value = one
    quoted = value if name in ("attributes.count", "attributes.area") else "'" + value.replace("'", "''") + "'"
    return f"`{name}` {sign} {quoted}"


leaves = st.one_of(
    comparisons.map(text),
    st.sampled_from([f"`{name}` IS {turn}NULL" for name in COLUMNS for turn in ("", "NOT ")]),
    st.sampled_from(["`attributes.married` = TRUE", "`attributes.married` <> TRUE", "`attributes.married` = FALSE"]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(
        lambda names: "`name` IN (" + ", ".join("'" + name.replace("'", "''") + "'" for name in names) + ")"
    ),
    st.just("`attributes.count` NOT BETWEEN -5 AND 0"),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda one: f"NOT ({one})"),
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
            lambda three: f"({three[0]} {three[1]} {three[2]})"
        ),
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conditions)
def test_rows_are_those_that_another_engine_selects(condition: str) -> None:
    """DuckDB reads the same SQL with its own parser and its own three values of truth."""
    node = read([condition], None, COLUMNS)
    assert node is not None
    found = WHOLE.filter(share_cut.expression(node, WHOLE.schema))
    known = WHOLE  # noqa: F841 - DuckDB finds it by name
    wanted = (
        duckdb.sql(f"SELECT * FROM known WHERE {condition.replace('`', chr(34))}").to_arrow_table().cast(WHOLE.schema)
    )
    assert found.equals(wanted), condition


def test_all_of_it(job: dict[str, Any]) -> None:
    assert result(job).equals(WHOLE)


def test_rows_and_columns(job: dict[str, Any]) -> None:
    """What a condition looks at is not given out with it."""
    node = read(["attributes.count > 0 AND name IN ('a', '甲')"], None, COLUMNS)
    found = result(job, predicate=node, columns=["valid_from"])
    wanted = WHOLE.filter(share_cut.expression(node, WHOLE.schema))
    assert found.column_names == ["valid_from"] and found.equals(wanted.select(["valid_from"])) and 0 < len(found) < 400


@pytest.mark.parametrize("limit", [0, 1, 99, 100, 101, 250, 399, 400, 4000])
def test_limits(job: dict[str, Any], limit: int) -> None:
    assert result(job, limit=limit).equals(WHOLE.slice(0, limit))
    node = read(["name = 'b'"], None, COLUMNS)
    wanted = WHOLE.filter(share_cut.expression(node, WHOLE.schema))
    assert result(job, predicate=node, limit=limit).equals(wanted.slice(0, limit))


def test_nothing_matches(job: dict[str, Any]) -> None:
    assert cut({**job, "predicate": read(["name = 'nobody'"], None, COLUMNS)}) == []


def test_files_are_not_larger_than_they_should_be(job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share_cut, "FILE_ROWS", 150)
    assert [one.rows for one in cut(job)] == [200, 200]
    assert result(job).equals(WHOLE)
