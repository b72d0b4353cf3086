"""From a holding to file and row and back, over a real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import lineage, pipeline

SAMPLE = Path(__file__).parent.parent / "connectors/sources/sh-amr-enterprises/sample/input.csv"


@pytest.fixture
def run(store: sa.Engine, tmp_path: Path) -> dict[str, object]:
    """The sample's rows, then a later file in which the first company has another name."""
    pipeline.run("sh-amr-enterprises", input=SAMPLE)
    with store.connect() as connection:
        first = connection.execute(
            sa.text(
                """SELECT o."row", encode(o.holding, 'hex') AS key FROM observation AS o ORDER BY o."row" LIMIT 1"""
            )
        ).one()
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    name, rest = lines[first.row - 1].split(",", 1)
    later = tmp_path / "later.csv"
    later.write_text("\n".join([lines[0], f"{name}更名,{rest}"]) + "\n", encoding="utf-8")
    pipeline.run("sh-amr-enterprises", input=later, as_of="2026-10-01")
    return {"key": first.key, "row": first.row}


def test_a_holding_leads_to_files_and_rows(run: dict[str, object]) -> None:
    found = lineage.of_holding(str(run["key"]))
    (observed,) = found["observations"]
    assert found["held"] and (observed["file"], observed["row"], observed["in_force"]) == ("later.csv", 2, True)
    first, second = found["versions"]
    assert (first["file"], first["row"]) == (SAMPLE.name, run["row"])
    assert first["recorded_to"] == second["recorded_from"] and second["recorded_to"] is None


def test_a_file_leads_to_its_holdings(run: dict[str, object], store: sa.Engine) -> None:
    (entry,) = lineage.of_file(SAMPLE.name, limit=1000)
    with store.connect() as connection:
        total = connection.scalar(sa.text("SELECT count(*) FROM holding"))
        fetched = connection.scalar(sa.text("SELECT fetched FROM batch ORDER BY started_at LIMIT 1"))
    assert entry["holdings"] == {"business-licence": total - 1}, "one is held by the later file"
    listed = {row["holding"] for row in entry["listed"]}
    assert len(listed) == total - 1 and run["key"] not in listed
    assert 0 < sum(entry["rows"].values()) <= fetched
    assert [line["row"] for line in entry["listed"]] == sorted(line["row"] for line in entry["listed"])
    (later,) = lineage.of_file("later.csv")
    assert [row["holding"] for row in later["listed"]] == [run["key"]]
    by_digest = lineage.of_file(entry["sha256"][:12])
    assert [file["name"] for file in by_digest] == [SAMPLE.name]
    (short,) = lineage.of_file(SAMPLE.name, limit=2)
    assert len(short["listed"]) == 2 and short["holdings"] == entry["holdings"]


@pytest.mark.parametrize("key", ["00" * 16, "91310117MA1J3AJ43G", ""])
def test_an_unknown_holding_is_said_without_repeating_it(store: sa.Engine, key: str) -> None:
    with pytest.raises(UsageError) as refused:
        lineage.of_holding(key)
    assert refused.value.code == "holding-unknown" and (not key or key not in str(refused.value))


def test_an_unknown_file(store: sa.Engine) -> None:
    for reference in ("no.csv", "0123456789abcdef", "%"):
        with pytest.raises(UsageError, match=r"."):
            lineage.of_file(reference)


def test_the_command(run: dict[str, object]) -> None:
    command = [sys.executable, "-m", "hub", "lineage"]
    environment = {**os.environ, "YICI_LANG": "en"}
    done = subprocess.run(
        [*command, "holding", str(run["key"]), "--json"], capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(done.stdout)["held"] is True
    shown = subprocess.run(
        [*command, "file", "later.csv"], capture_output=True, text=True, env=environment, check=True
    ).stdout
    assert str(run["key"]) in shown and "business-licence" in shown
    refused = subprocess.run([*command, "file", "no.csv"], capture_output=True, text=True, env=environment, check=False)
    assert refused.returncode == 2 and "yici batch show" in refused.stderr
