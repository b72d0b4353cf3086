"""The gate: a suite of Great Expectations over one mapped chunk, and from it one verdict a row.

Two passes: the first asks every check only whether it holds, the second asks those that do not hold which rows fail.
Great Expectations costs seconds to import, so only :func:`check` does it. No value leaves this module: not in a result,
a log or an error.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from connectors.errors import FatalError
from mappings.engine import listed
from mappings.transforms import Note, label
from quality.suite import EXPECTATIONS, NOT_NULL, TODAY, Check, Suite

if TYPE_CHECKING:
    import pandas as pd

EPOCH = dt.date(1970, 1, 1)
COMPARING = frozenset(name for name in EXPECTATIONS if not re.search("regex|length|_set$", name))
ACCEPTED, QUARANTINED, REJECTED = VERDICTS = ("accepted", "quarantined", "rejected")
BRIEF: dict[str, Any] = {"result_format": "BOOLEAN_ONLY"}
ROWS: dict[str, Any] = {
    "result_format": "COMPLETE",
    "partial_unexpected_count": 0,
    "return_unexpected_index_query": False,
}


def check(table: pa.Table, suite: Suite, *, today: dt.date | None = None) -> pa.Table:
    """``table`` (as :func:`mappings.engine.map_table` returns it) with its verdicts, rows in the same order.

    Adds ``_verdict`` (string: accepted, quarantined, rejected) and ``_reasons`` (list<string>: rejects and errors of
    the mapping, then reasons of failed ``fail`` checks); ``_flags`` also gets the reasons of failed ``warn`` checks. A
    check does not count on a row where the mapping already found an error in a column it looks at, nor a missing value
    where the mapping said why it is missing: one fault, one reason. ``today`` stands in for the day of the run. FatalError ``gate-check-broken`` when a check cannot run.
    """
    notes = _notes(table, suite, today or dt.date.today())
    errors, rejects = _filled(table.column("_errors")), _filled(table.column("_rejects"))
    failed = [note for note in notes if note.severity == "error"]
    warned = [note for note in notes if note.severity == "flag"]
    bad = np.logical_or.reduce([errors, *(note.mask for note in failed)])
    verdict = pc.if_else(pa.array(rejects), REJECTED, pc.if_else(pa.array(bad), QUARANTINED, ACCEPTED))
    rows = table.num_rows
    reasons = _joined(table.column("_rejects"), table.column("_errors"), listed(failed, rows))
    flags = _joined(table.column("_flags"), listed(warned, rows))
    table = table.set_column(table.column_names.index("_flags"), "_flags", flags)
    return table.append_column("_verdict", verdict.cast(pa.string())).append_column("_reasons", reasons)


def _notes(table: pa.Table, suite: Suite, today: dt.date) -> list[Note]:
    """What the checks found, in their order."""
    if not table.num_rows or not suite.checks:
        return []
    counted = _counted(table, suite)
    failing = _failing(_frame(table, suite.columns(), counted), suite.checks, today, counted)
    faults, flagged = _faults(table), _rows_by_code(table.column("_flags"))
    notes = []
    for place in sorted(failing):
        one = suite.checks[place]
        mask = np.zeros(table.num_rows, dtype=bool)
        mask[failing[place]] = True
        looked_at = suite.sources(one)
        for field, faulty in faults.items():
            # an error on a holder is one on its identifier, not on its name
            if not {field, f"{field}.scheme", f"{field}.value"}.isdisjoint(looked_at):
                mask &= ~faulty
        if one.name == NOT_NULL and one.column:
            for code, explained in flagged.items():
                if code.startswith(f"{label(one.column)}-"):
                    mask[explained] = False
        if mask.any():
            notes.append(Note("error" if one.severity == "fail" else "flag", one.reason, mask))
    return notes


def _counted(table: pa.Table, suite: Suite) -> bool:
    """Whether dates go in as numbers of days: Great Expectations compares numbers all at once, and anything but
    nanoseconds value by value. Not where a check looks at a date as text."""
    dated = {name for name in table.column_names if pa.types.is_date(table.schema.field(name).type)}
    return all(check.name in COMPARING for check in suite.checks if not dated.isdisjoint(check.columns()))


def _frame(table: pa.Table, columns: tuple[str, ...], counted: bool) -> pd.DataFrame:
    """Only the columns the checks need; money as its parts, decimals as floats, which is enough to compare."""
    arrays: dict[str, pa.ChunkedArray] = {}
    for name in columns:
        base, _, part = name.rpartition(".")
        if name in table.column_names:
            arrays[name] = table.column(name)
        else:
            arrays[name] = pc.struct_field(table.column(base), part)
        if counted and pa.types.is_date(arrays[name].type):
            arrays[name] = arrays[name].cast(pa.int32()).cast(pa.float64())  # null is not-a-number
        if pa.types.is_decimal(arrays[name].type):
            arrays[name] = arrays[name].cast(pa.float64())
    return pa.table(arrays).to_pandas(date_as_object=False, ignore_metadata=True)


def _failing(
    frame: pd.DataFrame, checks: tuple[Check, ...], today: dt.date, counted: bool
) -> dict[int, NDArray[np.int64]]:
    """Place of each failing check with the row numbers that fail."""
    # Read once, when the package is imported: without it every run would report home.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with _silence():
        import great_expectations as gx
        from great_expectations import expectations
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )
        from great_expectations.execution_engine import pandas_execution_engine

        pandas_execution_engine.HASH_THRESHOLD = 0  # of the frame it would make a fingerprint, which nobody reads

        settings = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),  # no Data Docs
            progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
            analytics_enabled=False,
        )
        context = gx.get_context(mode="ephemeral", project_config=settings)
        asset = context.data_sources.add_pandas("chunk").add_dataframe_asset("chunk")
        batch = asset.add_batch_definition_whole_dataframe("chunk").get_batch({"dataframe": frame})

        def run(places: list[int], result_format: dict[str, Any]) -> Iterator[tuple[int, Any]]:
            # meta tells the results apart: two checks may be equal but for severity and reason
            built = [_expectation(expectations, checks[place], place, today, counted) for place in places]
            suite = gx.ExpectationSuite(name="chunk", expectations=built)
            for result in batch.validate(suite, result_format=result_format).results:
                assert result.expectation_config is not None
                place = result.expectation_config.meta["place"]
                if _raised(result.exception_info):
                    raise FatalError("gate-check-broken", reason=checks[place].reason, expect=checks[place].name)
                yield place, result

        broken = [place for place, result in run(list(range(len(checks))), BRIEF) if not result.success]
        if not broken:
            return {}
        return {
            place: np.asarray(result.result["unexpected_index_list"], dtype=np.int64)
            for place, result in run(broken, ROWS)
        }


def _expectation(classes: Any, one: Check, place: int, today: dt.date, counted: bool) -> Any:
    # GX wants the class; its name is the snake-case name in camel case
    kind = getattr(classes, "".join(word.capitalize() for word in one.name.split("_")))
    arguments = {name: _argument(name, value, today, counted) for name, value in one.arguments.items()}
    if one.column is not None:
        return kind(column=one.column, meta={"place": place}, **arguments)
    return kind(column_A=one.column_a, column_B=one.column_b, meta={"place": place}, **arguments)


def _argument(name: str, value: Any, today: dt.date, counted: bool) -> Any:
    """Dates become days or date-times, as the frame has them; patterns are spelled for RE2."""
    if name == "regex":
        return spelled(value)
    if name == "regex_list":
        return [spelled(pattern) for pattern in value]
    day = today if value == TODAY else value
    if isinstance(day, dt.date) and not isinstance(day, dt.datetime):
        return (day - EPOCH).days if counted else dt.datetime.combine(day, dt.time())
    return day


def spelled(pattern: str) -> str:
    """A regular expression without ``\\u``: RE2 does not know it, and then pandas would try row by row."""

    def character(found: re.Match[str]) -> str:
        code = int(found["code"] or "0", 16)
        return found[0] if found["code"] is None else f"\\x{code:02x}" if code < 0x100 else chr(code)

    return re.sub(r"\\(?:u(?P<code>[0-9a-fA-F]{4})|.)", character, pattern, flags=re.DOTALL)


def _raised(info: dict[str, Any]) -> bool:
    """GX reports one exception, or one for each metric."""
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(part.get("raised_exception") for part in info.values() if isinstance(part, dict))


@contextmanager
def _silence() -> Iterator[None]:
    """GX writes raw values into warnings and error logs."""
    logger = logging.getLogger("great_expectations")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _filled(lists: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Rows whose list is not empty."""
    return pc.greater(pc.fill_null(pc.list_value_length(lists), 0), 0).to_numpy()


def _faults(table: pa.Table) -> dict[str, NDArray[np.bool_]]:
    """For every field the mapping named in an error or reject (``field:problem``), the rows it did so for."""
    faults: dict[str, NDArray[np.bool_]] = {}
    for column in ("_errors", "_rejects"):
        for code, rows in _rows_by_code(table.column(column)).items():
            mask = faults.setdefault(code.partition(":")[0], np.zeros(table.num_rows, dtype=bool))
            mask[rows] = True
    return faults


def _rows_by_code(column: pa.ChunkedArray) -> dict[str, NDArray[np.int64]]:
    """The row numbers of each code in a column of lists."""
    lists = pa.concat_arrays(column.chunks)
    codes, rows = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
    # a handful of distinct codes, not rows
    return {code: rows[pc.equal(codes, code).to_numpy(zero_copy_only=False)] for code in pc.unique(codes).to_pylist()}


def _joined(*columns: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Lists put end to end, row by row."""
    arrays = [pa.concat_arrays(c.chunks) if isinstance(c, pa.ChunkedArray) else c for c in columns if len(c)]
    if not arrays:
        return pa.array([], pa.list_(pa.string()))
    rows = np.concatenate([pc.list_parent_indices(array).to_numpy() for array in arrays])
    values = pa.concat_arrays([pc.list_flatten(array) for array in arrays])
    order = np.argsort(rows, kind="stable")  # stable: earlier columns first
    offsets = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=len(arrays[0]))))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.take(pa.array(order)))
