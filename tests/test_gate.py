"""The gate: one verdict a row, reasons of every fault, and no value anywhere else."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from connectors import source as sources
from connectors.errors import FatalError
from mappings import arrow, engine, model
from quality import gate, suite

TODAY = dt.date(2026, 1, 1)
SECRET = "示例人名91310117MA1XKY001Q"
LICENCE = model.load("business-licence")


def table(*rows: dict[str, Any]) -> pa.Table:
    """Mapped licences, good but for what is given."""
    good: dict[str, Any] = {
        "natural_key": "91310117MA1XKY001Q",
        "name": "营业执照",
        "region": "310117",
        "issued_on": dt.date(2019, 1, 2),
        "valid_from": dt.date(2019, 1, 2),
        "status": "in_force",
        "holder.holder.scheme": "cn.uscc",
        "holder.holder.value": "91310117MA1XKY001Q",
        "holder.holder.name": "示例公司",
        "_flags": [],
        "_errors": [],
        "_rejects": [],
    }
    schema = arrow.schema(LICENCE).append(pa.field("natural_key", pa.string()))
    return pa.Table.from_pylist([{**good, "_ordinal": place, **row} for place, row in enumerate(rows)], schema)


def judged(*rows: dict[str, Any], more: Path | None = None) -> list[tuple[str, list[str], list[str]]]:
    found = gate.check(table(*rows), suite.of(LICENCE, more), today=TODAY)
    assert found["_ordinal"].to_pylist() == list(range(len(rows)))
    return [(row["_verdict"], row["_reasons"], row["_flags"]) for row in found.to_pylist()]


def test_good_rows_pass_and_others_carry_all_their_reasons() -> None:
    money = {"amount": -1, "currency": "CNY"}
    assert judged(
        {},
        {"issued_on": None},
        {"issued_on": dt.date(2026, 1, 2), "attributes.registered_capital": money},
        {"holder.holder.name": None, "region": "31011"},
        {"valid_to": dt.date(2018, 1, 1)},
        {"valid_to": dt.date(2019, 1, 2)},
        {"status": "lost"},
        {"status": None},
        {"holder.holder.name": "12345"},
        {"holder.holder.name": "<!DOCTYPE html>"},
        {"holder.holder.scheme": "cn.regno", "holder.holder.value": "企合苏镇分字第2005"},
    ) == [
        ("accepted", [], []),
        ("accepted", [], ["issued-on-missing"]),
        ("quarantined", ["issued-on-out-of-range", "registered-capital-negative"], []),
        ("quarantined", ["holder-name-missing", "region-form"], []),
        ("quarantined", ["validity-reversed"], []),
        ("accepted", [], []),
        ("quarantined", ["status-unknown"], []),
        ("quarantined", ["status-missing"], []),
        ("quarantined", ["holder-name-without-letters"], []),
        ("quarantined", ["holder-name-garbled"], []),
        ("accepted", [], []),
    ]


def test_the_day_of_the_run_is_still_in_range() -> None:
    assert judged({"issued_on": TODAY}) == [("accepted", [], [])]


def test_mapping_faults_decide_and_hide_no_others() -> None:
    lost = {"holder.holder.value": None, "holder.holder.scheme": None, "natural_key": None}
    assert judged(
        {**lost, "_errors": ["holder.holder:missing"], "holder.holder.name": None},
        {**lost, "_rejects": ["holder.holder:unrecoverable"], "region": "x", "_flags": ["region-retired"]},
        lost,
        {"status": None, "_errors": ["status:unlisted"]},
    ) == [
        ("quarantined", ["holder.holder:missing", "holder-name-missing"], []),
        ("rejected", ["holder.holder:unrecoverable", "region-form"], ["region-retired"]),
        ("quarantined", ["holder-missing"], []),
        ("quarantined", ["status:unlisted"], []),
    ]


def test_a_value_the_mapping_could_not_read_is_not_called_missing_too() -> None:
    row = {"issued_on": None, "_flags": ["issued-on-unreadable"]}
    assert judged(row) == [("accepted", [], ["issued-on-unreadable"])]


def test_no_rows() -> None:
    found = gate.check(table(), suite.of(LICENCE))
    assert found.num_rows == 0
    assert found.schema.field("_reasons").type == pa.list_(pa.string())


def test_a_slice_and_several_chunks_are_judged_like_a_whole() -> None:
    parts = pa.concat_tables([table({}, {"region": "1"}), table({"region": "2"}, {})]).slice(1, 3)
    found = gate.check(parts, suite.of(LICENCE), today=TODAY)
    assert found["_verdict"].to_pylist() == ["quarantined", "quarantined", "accepted"]


def test_a_check_may_look_at_a_date_as_text(tmp_path: Path) -> None:
    """Then dates are not given as numbers, and all the other checks of dates say the same."""
    path = tmp_path / "checks.yml"
    spring = {"expect": "expect_column_values_to_match_regex", "column": "issued_on", "regex": "-0[345]-"}
    path.write_text(yaml.safe_dump({"checks": [spring | {"severity": "warn", "reason": "not-spring"}]}), "utf-8")
    rows = [{"issued_on": dt.date(2020, 4, 1)}, {"issued_on": dt.date(2026, 3, 1)}, {"valid_to": dt.date(2018, 1, 1)}]
    assert judged(*rows, more=path) == [
        ("accepted", [], []),
        ("quarantined", ["issued-on-out-of-range"], []),
        ("quarantined", ["validity-reversed"], ["not-spring"]),
    ]


@pytest.mark.parametrize("pattern", [r"[0-9\u0000-\u001f\ufffd<>]", r"^\\u0041$", r"\u005d|[\u005d\u4e00-\u9fff]"])
def test_patterns_spelled_for_re2_match_the_same(pattern: str) -> None:
    spelled = gate.spelled(pattern)
    texts = ["张三", "a", "5", "<", "\x1f", "\ufffd", "]", "[", "\\u0041", "A", "", "一", "\\"]
    wanted = [bool(re.search(pattern, text)) for text in texts]
    assert [bool(re.search(spelled, text)) for text in texts] == wanted
    assert pc.match_substring_regex(pa.array(texts), spelled).to_pylist() == wanted


def test_no_fingerprint_of_the_frame_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from great_expectations.execution_engine import pandas_execution_engine

    def refuse(frame: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(pandas_execution_engine, "hash_pandas_dataframe", refuse)
    assert judged({}) == [("accepted", [], [])]


def test_a_check_that_cannot_run_is_an_error_not_a_pass(tmp_path: Path) -> None:
    broken = {"expect": "expect_column_values_to_be_between", "column": "name", "min_value": 3}
    path = tmp_path / "checks.yml"
    path.write_text(
        yaml.safe_dump({"checks": [broken | {"severity": "fail", "reason": "broken-one"}]}), encoding="utf-8"
    )
    with pytest.raises(FatalError, match="broken-one") as caught:
        judged({"name": SECRET}, more=path)
    assert caught.value.code == "gate-check-broken"
    assert SECRET not in repr(caught.value) + str(caught.value.__cause__) + str(caught.value.__context__)


def test_no_value_reaches_a_log_or_a_terminal(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        judged(*[{"region": SECRET, "holder.holder.name": SECRET + "<a", "issued_on": None}] * 30)
    out, err = capfd.readouterr()
    assert SECRET not in caplog.text + out + err
    assert "Calculating" not in out + err


def test_great_expectations_opens_no_connection_and_writes_no_docs() -> None:
    """In a process of its own: what it sends, it sends when it is imported and when a context is made."""
    program = """
import socket, sys, pathlib, tempfile
def refuse(*_):
    raise SystemExit("opened a connection")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
from mappings import model
from quality import gate, suite
from tests.test_gate import table
print(gate.check(table({}, {"region": "x"}), suite.of(model.load("business-licence")))["_verdict"].to_pylist())
import os
print(os.environ["GX_ANALYTICS_ENABLED"], len(list(pathlib.Path(tempfile.gettempdir()).iterdir())))
"""
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "TMPDIR": folder},
        )
    assert found.stdout.splitlines() == ["['accepted', 'quarantined']", "false 0"], found.stderr


def test_every_supported_expectation_exists_and_takes_its_arguments() -> None:
    from great_expectations import expectations

    for name, arguments in suite.EXPECTATIONS.items():
        kind = getattr(expectations, "".join(word.capitalize() for word in name.split("_")))
        assert arguments <= set(kind.model_fields if hasattr(kind, "model_fields") else kind.__fields__), name


def test_a_large_chunk_with_many_faults_is_judged_row_by_row() -> None:
    source = sources.load("sh-amr-enterprises")
    good = table({})
    chunk = pa.concat_tables([good] * 5000).combine_chunks()
    every_third = np.arange(5000) % 3 == 0
    regions = pc.if_else(pa.array(every_third), "bad", "310117")
    chunk = chunk.set_column(chunk.column_names.index("region"), "region", regions)
    found = gate.check(chunk, suite.load(source), today=TODAY)
    assert np.array_equal(pc.equal(found["_verdict"], "quarantined").to_numpy(), every_third)


def test_engine_and_gate_fit_together() -> None:
    source = sources.load("sh-amr-enterprises")
    raw = pa.table({name: pa.array([None], pa.string()) for name in source.options.columns})
    mapped = engine.map_table(source, engine.mapping_of(source), engine.material_of(source), raw)
    found = gate.check(mapped, suite.load(source)).to_pylist()[0]
    assert (found["_verdict"], found["_reasons"]) == ("quarantined", ["holder.holder:missing", "holder-name-missing"])
