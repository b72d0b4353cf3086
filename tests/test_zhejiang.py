"""demo/zhejiang.py: households that are, or were, registered in the neighbouring province."""

from __future__ import annotations

import csv

from demo import zhejiang
from tests import synthetic


def test_households_are_registered_there_here_or_by_mistake_in_both() -> None:
    here, there = {}, {}
    for row in synthetic.certificates(zhejiang.MATERIAL):
        (there if row["file"] == zhejiang.FILE else here)[row["subjects"][0]] = row
    people = {f"person:{row['person']}": row for row in synthetic.truth("people")}
    assert set(here) | set(there) == set(people)
    twice = {row["subject"] for row in synthetic.truth("contradictions") if row["kind"] == "two-households"}
    assert len(there) > 0.04 * len(people)
    for subject, row in there.items():
        assert row["identifier"].startswith("33")
        if row["status"] == "cancelled" or subject in twice:
            assert subject in here, "moved away to nowhere"
            assert people[subject]["household"] == here[subject]["identifier"]
        else:
            assert subject not in here
            assert people[subject]["household"] == row["identifier"]
    assert {row["status"] for row in there.values()} == {"in_force", "cancelled"}


def test_the_file_is_in_the_encoding_of_the_place() -> None:
    raw = (synthetic.folder() / zhejiang.FILE).read_bytes()
    rows = list(csv.reader(raw.decode("gb18030").splitlines()))
    assert tuple(rows[0]) == zhejiang.COLUMNS and raw.count(b"\r\n") == len(rows) > 300
    elsewhere = [row for row in rows[1:] if len(row) == len(rows[0]) and not row[6].startswith("33")]
    notes = [note for note in synthetic.truth("dirt") if note["file"] == zhejiang.FILE]
    assert len(elsewhere) <= sum(note["column"] == "xzqh" for note in notes)
    assert {"too-many-columns", "too-few-columns"} <= {note["kind"] for note in notes}
