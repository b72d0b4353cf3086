"""hub/kept_rows.py: the digest of a row kept in the quarantine, made once more from what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

from hub import digests, kept_rows, pipeline
from tests import licences, residents

ROWS: list[dict[str, str | None]] = [
    {"b": "x", "a": None},
    {"b": "", "a": '引"号\\ \n\t'},
    {"b": "x\u0000y", "a": "\u2028"},
    {"b": "甲", "a": "e\u0301"},
    {"b": None, "a": None},
]


def kept(rows: list[dict[str, str | None]]) -> tuple[list[bytes], list[bytes]]:
    """As JSON in any order of members, and the digests."""
    names = sorted(rows[0])
    columns = [pa.chunked_array([pa.array([row[name] for row in rows], pa.string())]) for name in names]
    return [json.dumps(row).encode() for row in rows], digests.of_columns(columns, names).to_pylist()


def differing(raw: list[bytes], digest: list[bytes]) -> list[bool]:
    return list(
        kept_rows.differing(
            pa.chunked_array([pa.array(raw, pa.binary())]), pa.chunked_array([pa.array(digest, digests.DIGEST)])
        )
    )


def test_what_came_is_known_again() -> None:
    line = b"torn \xff line"
    raw, digest = kept(ROWS)
    more, others = kept([{"c": "1"}, {"c": "2"}])
    torn = digests.of_bytes(pa.chunked_array([pa.array([line])]), kept_rows.MALFORMED).to_pylist()
    assert differing([*raw, line, *more], [*digest, *torn, *others]) == [False] * 8
    assert differing([*raw[1:], raw[0]], digest) == [True] * 5


@pytest.mark.parametrize("written", [
    b'{"b": "y", "a": null}', b'{"b": "x"}', b'{"b": "x", "a": "null"}', b'{"b": "x", "a": null, "c": null}', b'{"b": "x", "a": 1}',
    b'{"b": "x", "a": null, "b": "x"}', b'{"b": "z", "b": "x", "a": null}', b'["b", "a"]', b'{"b": "x", "a": null} {}', b"", b"\xff", b"x",
    b'{"b": "x", "a": {}}', b"{}",
])  # fmt: skip
def test_what_somebody_wrote_is_told(written: bytes) -> None:
    raw, digest = kept(ROWS)
    assert differing([written, *raw[1:]], digest) == [True, False, False, False, False]
    assert differing([written], digest[:1]) == [True]


def test_a_line_break_between_members_says_the_same() -> None:
    raw, digest = kept(ROWS[:2])
    assert differing([b'{"b":\n"x",\n"a": null}', raw[1]], digest) == [False, False]


def test_what_a_run_keeps_is_what_came(store: sa.Engine, tmp_path: Path) -> None:
    """Also records that lack a column, pages together, and lines that are no rows."""
    cards = [residents.row(number, csrq="2999-01-01") for number in range(3)]
    del cards[0]["xm"]
    assert pipeline.run("sh-ga-residents", input=residents.write(tmp_path / "cards.json", cards))["quarantined"] == 3
    folder = tmp_path / "delivery"
    folder.mkdir()
    for name, number in (("a.csv", 1), ("b.csv", 2)):
        licences.write(folder / name, [licences.row(number, name="")])
    with (folder / "b.csv").open("ab") as file:
        file.write(b"torn,\xe4\xb8\n")
    done = pipeline.run("sh-amr-enterprises", input=folder)
    assert (done["quarantined"], done["rejected"]) == (2, 1)
    with store.begin() as connection:
        assert list(kept_rows.altered(connection)) == []
        connection.execute(sa.text("UPDATE quarantine SET raw = raw || 'x'::bytea"))
        assert len(list(kept_rows.altered(connection))) == 6
