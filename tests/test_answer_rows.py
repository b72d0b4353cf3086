"""Answers copied in binary are those that were given, value by value."""

from __future__ import annotations

import datetime as dt
import os

import pytest
import sqlalchemy as sa

from hub import answer_rows, records
from hub.records import Record

AT = dt.datetime(2026, 3, 1, 9, 30, 15, 123456, dt.UTC)


def made(number: int, **more: object) -> Record:
    plain = Record(
        records.numbered(AT, number), AT, "hall-1", "handle", None, "demo-food-permit", 1, "zh", os.urandom(16), "", os.urandom(32),
        '{"x":"上海"}', None, os.urandom(16), os.urandom(16), None,
    )  # fmt: skip
    return plain._replace(**more)  # type: ignore[arg-type]


ROWS = [
    made(0),
    made(1, case="31-1", must_submit="premises-proof", trace='{"identity":{}}', others=(b"o" * 16,)),
    made(2, must_submit="a b c", others=(b"o" * 16, b"p" * 16), asked_at=AT.replace(year=1999), version=2**31 - 1),
    made(3, inputs="x" * 100_000, language="en"),
]


def test_each_value_is_the_one_that_was_given(store: sa.Engine) -> None:
    with store.begin() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        names = ", ".join(f'"{name}"' for name in Record._fields)
        with raw.cursor().copy(f"COPY answer ({names}) FROM STDIN (FORMAT binary)") as copy:
            copy.write(bytes(answer_rows.copied(ROWS)))
        found = connection.execute(sa.text(f"SELECT {names} FROM answer ORDER BY id")).mappings().all()
    assert [dict(row) for row in found] == [row.row() for row in ROWS]


def test_keys_sort_as_the_answers_were_given_and_nobody_foretells_them() -> None:
    keys = [records.numbered(AT, number) for number in range(20)]
    assert keys == sorted(keys) and len({key[8:] for key in keys}) == 20
    assert {key[6] >> 4 for key in keys} == {7} and {key[8] >> 6 for key in keys} == {2}
    assert len({records.numbered(AT, 0) for _ in range(5000)}) == 5000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_draws_other_keys() -> None:
    records.numbered(AT, 0)  # some are drawn beforehand
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, b"".join(records.numbered(AT, 0) for _ in range(50)))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 50 * 16)
    ours = {records.numbered(AT, 0) for _ in range(50)}
    assert not ours & {theirs[start : start + 16] for start in range(0, len(theirs), 16)}
