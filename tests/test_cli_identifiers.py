"""``yici id`` as a user calls it."""

from __future__ import annotations

import csv
import json
import tracemalloc
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from connectors import messages
from connectors.errors import UsageError
from hub.cli import identifiers
from mappings import schemes

KEYS = ["value", "scheme", "normalised", "verdict", "reason"]


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    identifiers.register(made)
    return made


def run(app: typer.Typer, *arguments: str, stdin: str | None = None) -> str:
    result = CliRunner().invoke(app, ["id", *arguments], input=stdin, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_values_in_order_as_one_array(app: typer.Typer) -> None:
    found = json.loads(run(app, "--json", "610104620927690", "cn.uscc:91310117ma1j3aj43g", "12345"))
    assert [list(row) for row in found] == [KEYS] * 3
    assert [row["normalised"] for row in found] == ["610104196209276908", "91310117MA1J3AJ43G", "12345"]
    assert [row["scheme"] for row in found] == ["cn.ric", "cn.uscc", None]
    assert [row["verdict"] for row in found] == ["flagged", "valid", "invalid"]
    assert found[1]["value"] == "91310117ma1j3aj43g"
    assert found[1]["reason"] is None


def test_lines_of_a_file_follow_the_values(app: typer.Typer, tmp_path: Path) -> None:
    listed = tmp_path / "numbers.txt"
    listed.write_text("\ufeff81000019940823002１\r\n\r\n企合苏镇分字第2005\n", encoding="utf-8")
    found = [json.loads(line) for line in run(app, "--file", str(listed), "E12345678").splitlines()]
    assert [row["scheme"] for row in found] == ["passport", "cn.permit", "cn.regno"]
    assert found[1]["normalised"] == "810000199408230021"


def test_standard_input(app: typer.Typer) -> None:
    assert json.loads(run(app, "--file", "-", "--json", stdin="12345\n"))[0]["verdict"] == "invalid"


def test_an_empty_file_is_an_empty_array(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert json.loads(run(app, "--json", "--file", str(tmp_path / "empty"))) == []


def test_more_than_one_block(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identifiers, "BLOCK", 1000)
    listed = tmp_path / "many"
    listed.write_text("".join(f"{number}\n" for number in range(10_500)))
    found = json.loads(run(app, "--json", "--file", str(listed)))
    assert [row["value"] for row in found] == [str(number) for number in range(10_500)]


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identifiers, "BLOCK", 1000)
    listed = tmp_path / "many"
    listed.write_text("440524188001010014\n" * 100_000)
    peaks = []
    for count in (10_000, 100_000):
        tracemalloc.start()
        with identifiers._lines(listed) as lines:
            rows = sum(
                table.num_rows
                for table in identifiers._judged(line for line, _ in zip(lines, range(count), strict=False))
            )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rows == count
    assert peaks[1] < 2 * peaks[0] + 1_000_000


@pytest.mark.parametrize("content", [b"\xff\xfe\x31", None])
def test_an_unreadable_file_is_the_callers_error(app: typer.Typer, tmp_path: Path, content: bytes | None) -> None:
    listed = tmp_path / "numbers"
    if content is not None:
        listed.write_bytes(content)
    with pytest.raises(UsageError) as raised:
        CliRunner().invoke(app, ["id", "--file", str(listed)], catch_exceptions=False)
    assert raised.value.exit_code == 2
    assert "numbers" in raised.value.message("en")


def test_nothing_given_is_the_callers_error(app: typer.Typer) -> None:
    with pytest.raises(UsageError):
        CliRunner().invoke(app, ["id"], catch_exceptions=False)
    assert CliRunner().invoke(app, ["id", "--nonsense"]).exit_code == 2


def test_every_reason_has_its_sentences() -> None:
    for reason in schemes.REASONS:
        assert messages.text(f"identifier-{reason}", "en") != messages.text(f"identifier-{reason}", "zh")


def test_readable_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_LANG", "en")
    row = dict(zip(KEYS, ("1", None, "1", "invalid", "length;alphabet"), strict=True))
    line = identifiers._readable(row)
    assert "invalid" in line and "too long" in line.lower() and "character" in line


def test_published_verdicts(app: typer.Typer, shared_data: Path) -> None:
    with open(shared_data / "ids" / "identifiers.csv", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = json.loads(run(app, "--json", *(row["value"] for row in rows)))
    assert len(found) == len(rows) > 50
    for row, judged in zip(rows, found, strict=True):
        assert judged["value"] == row["value"]
        if row["expected"] == "valid":
            assert judged["verdict"] in ("valid", "flagged")
