"""demo/records.py: what the truth notes about a block of records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from demo.records import Claims, Records, certify, contradict, few
from demo.truth import CERTIFICATES, CONTRADICTIONS
from demo.writers import Parquet, Written


def test_certificates_name_those_whom_a_record_is_about(tmp_path: Path) -> None:
    days = pa.array([0, 1, 2]).cast(pa.int32()).cast(pa.date32())
    records = Records(
        material="x", table=pa.table({"a": ["1", "2", "3"]}), identifier=pa.array(["i", "j", "k"]),
        holders=[pa.array(["s:1", "s:2", None]), pa.array(["s:4", None, "s:6"])],
        subjects=[pa.array(["p:1", "p:2", None]), pa.array(["p:4", None, "p:6"])],
        begins=days, ends=pa.nulls(3, pa.date32()), status=pa.array(["in_force"] * 3),
    )  # fmt: skip
    rows = Written("f", np.array([7, 9, 10]), pa.nulls(3, pa.string()), pa.nulls(3, pa.string()),
                   pa.array([True, False, True]), records.table)  # fmt: skip
    out = Parquet(tmp_path, "c.parquet", CERTIFICATES)
    certify(out, records, rows)
    certify(
        out,
        records.slice(1, 2),
        Written("g", rows.row[1:], rows.kind[1:], rows.verdict[1:], rows.held[1:], records.table),
    )
    out.close()
    found = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert [row["holders"] for row in found] == [["s:1", "s:4"], ["s:2"], ["s:6"], ["s:2"], ["s:6"]]
    assert [row["subjects"] for row in found] == [["p:1", "p:4"], ["p:2"], ["p:6"], ["p:2"], ["p:6"]]
    assert [(row["file"], row["row"], row["held"]) for row in found][2:4] == [("f", 10, True), ("g", 9, False)]


def test_claims_of_a_slice(tmp_path: Path) -> None:
    text = pa.array(["a", "b", "c"])
    claims = Claims("sex", np.array([2, 5, 9]), text, text, pa.nulls(3, pa.string()), text)
    here = claims.within(5, 9)
    assert here.rows.tolist() == [0] and here.says.to_pylist() == ["b"]
    assert claims.within(0, 2).rows.tolist() == [] and claims.within(0, 10).rows.tolist() == [2, 5, 9]
    out = Parquet(tmp_path, "c.parquet", CONTRADICTIONS)
    contradict(out, here, Written("f", np.array([50, 51, 52, 53]), text, text, text, pa.table({})))
    out.close()
    (row,) = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert (row["kind"], row["file"], row["row"], row["other"], row["says"]) == ("sex", "f", 50, None, "b")


def test_a_few_are_at_least_one_and_never_the_impossible() -> None:
    rng = np.random.default_rng(1)
    possible = np.arange(1000) % 3 == 0
    rows = few(1000, rng, 0.01, possible)
    assert len(rows) == len(set(rows.tolist())) == 10 and (rows % 3 == 0).all() and (np.diff(rows) > 0).all()
    assert len(few(1000, rng, 1e-9, possible)) == 1
    assert len(few(1000, rng, 0.01, np.zeros(1000, dtype=bool))) == 0
