"""hub/batch_findings.py: what is found of a batch as a whole, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors import source as sources
from connectors.errors import BatchHalted
from connectors.landing import Landing
from hub import home, pipeline, review
from hub.cli import pipeline as run_command
from tests import licences
from tests.test_pipeline import SH, count, deliver, names, state, variant

__all__ = ["deliver", "variant"]


@pytest.fixture(autouse=True)
def _store(store: sa.Engine) -> None:
    """Every test has an empty store of its own."""


def test_a_renamed_column_halts_and_leaves_the_store(deliver, tmp_path: Path) -> None:
    deliver(licences.rows(3))
    before = state()
    path = tmp_path / "renamed.csv"
    path.write_text(licences.text(licences.rows(5)).replace("注册日期", "成立日期"), encoding="utf-8")
    with pytest.raises(BatchHalted, match="成立日期"):
        pipeline.run(SH, input=path)
    assert state() == before


def test_ten_times_the_usual_size_halts_until_approved(deliver) -> None:
    deliver(licences.rows(150))
    with pytest.raises(BatchHalted) as halted:
        deliver(licences.rows(1600))
    batch = str(halted.value.values["batch"])
    assert count("holding") == 150 and pipeline.summary(batch)["state"] == "halted"
    approved = review.approve(batch, actor="tester", note="yearly delivery")
    assert approved["state"] == "merged" and approved["accepted"] == 1450 and count("holding") == 1600
    assert count("decision", "kind = 'approve' AND actor = 'tester'") == 1


def test_other_key_columns_halt_a_source_that_has_rows(deliver, variant) -> None:
    name = variant("xx-key")
    deliver(licences.rows(4), source=name)
    path = sources.load(name).folder / "source.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace("row_key: [统一社会信用代码]", "row_key: [统一社会信用代码, 企业名称]"), encoding="utf-8"
    )
    with pytest.raises(BatchHalted) as halted:
        deliver(licences.rows(5), source=name)
    assert halted.value.code == "batch-keys-changed" and halted.value.values["known"] == 4
    assert halted.value.values["now"] == "统一社会信用代码, 企业名称" and count("row_ledger") == 4
    batch = str(halted.value.values["batch"])
    manifest = Landing(home.current().landing_url).read_manifest(name, batch)
    assert manifest.request["run"]["row_key"] == ["统一社会信用代码", "企业名称"]
    assert review.approve(batch, actor="tester")["state"] == "merged" and count("row_ledger") == 9
    assert deliver(licences.rows(5), source=name)["unchanged"] == 5, "the key is now the one that was approved"


def test_other_key_columns_of_a_source_without_rows_are_fine(deliver, variant) -> None:
    name = variant("xx-key")
    deliver([], source=name)
    path = sources.load(name).folder / "source.yml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("row_key: [统一社会信用代码]", "row_key: [企业名称]"), encoding="utf-8")
    assert deliver(licences.rows(2), source=name)["accepted"] == 2


def test_a_whole_delivery_under_another_key_withdraws_the_rows_of_the_old(deliver, variant) -> None:
    name = variant("xx-key")
    deliver(licences.rows(4), source=name, as_of="2020-01-01")
    path = sources.load(name).folder / "source.yml"
    text = path.read_text(encoding="utf-8").replace("extent: partial", "extent: snapshot")
    path.write_text(
        text.replace("row_key: [统一社会信用代码]", "row_key: [统一社会信用代码, 企业名称]"), encoding="utf-8"
    )
    with pytest.raises(BatchHalted) as halted:
        deliver(licences.rows(3), source=name, as_of="2020-01-02")
    summary = review.approve(str(halted.value.values["batch"]), actor="tester")
    assert summary["withdrawn"] == 4 and len(names()) == 3


@pytest.mark.parametrize("extent", ["snapshot", "partial"])
def test_a_delivery_that_is_older_altogether_says_so(deliver, variant, extent: str) -> None:
    name = variant("xx-older", extent=extent)
    assert deliver(licences.rows(4), source=name, as_of="2020-05-01")["findings"] == []
    older = [licences.row(number, name="旧名", date="2018-01-01") for number in range(4)]
    summary = deliver(older, source=name, as_of="2020-04-01")
    assert summary["state"] == "merged" and summary["reasons"]["older"] == 4
    finding = summary["findings"][0]
    assert (finding["code"], finding["severity"]) == ("delivery-older", "warn")
    assert finding["values"] == {"rows": 4, "as_of": "2020-04-01T00:00:00+08:00", "known": "2020-05-01T00:00:00+08:00"}
    assert deliver([*older[1:], licences.row(9)], source=name, as_of="2020-05-02")["findings"] == []


def test_an_older_snapshot_that_lacks_rows_says_that_it_is_older(deliver, variant) -> None:
    name = variant("xx-older", extent="snapshot")
    deliver(licences.rows(4), source=name, as_of="2020-05-01")
    summary = deliver(licences.rows(3), source=name, as_of="2020-04-01")
    assert summary["withdrawn"] == 0 and [one["code"] for one in summary["findings"]] == ["delivery-older"]
    warning = run_command.warnings(summary)[0]
    assert "as of 2020-04-01" in warning["message"] and name in warning["advice"]


def test_rows_that_do_not_count_beside_another_version_of_their_time_are_told_of(deliver, variant) -> None:
    name = variant("xx-tied")
    deliver(licences.rows(6), source=name, as_of="2020-05-01")
    renamed = [licences.row(number, name=f"更名{number}") for number in range(6)]
    summary = deliver(renamed, source=name, as_of="2020-05-01")
    tied = summary["flags"].get("tied", 0)
    assert 0 < tied < 6, "by digest: some stand, some do not"
    (finding,) = summary["findings"]
    assert (finding["code"], finding["severity"], finding["values"]) == ("versions-tied", "warn", {"rows": tied})
    assert "--as-of" in run_command.warnings(summary)[0]["advice"]
    assert deliver(renamed, source=name, as_of="2020-05-02")["findings"] == []
