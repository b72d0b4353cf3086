"""The generator knows the truth; the pipeline, fed by the departments' real servers, must come to the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from demo import marriage_database, synthesis
from hub import database, embedded, pipeline
from hub.home import Home
from tests.conftest import ROOT

PROVINCES = {"sh": "上海", "js": "江苏", "zj": "浙江", "ah": "安徽"}
FED_BY = {
    "sh-ga-residents": ("ga/residents.jsonl", "resident-id-card"),
    "sh-ga-households": ("ga/households.jsonl", "household-register"),
    "sh-mca-marriages": ("mca/marriages.csv", "marriage-certificate"),
}
AMR = [f"{code}-amr-enterprises" for code in PROVINCES]


@pytest.fixture(scope="module")
def world(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Generated departments, served; every source run twice into a store of its own."""
    folder = tmp_path_factory.mktemp("truth")
    data = synthesis.synthesise(
        synthesis.Parameters(people=1500, companies=1200, seed=11, dirt=0.02), folder / "data"
    ).folder
    admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE truth"))
    reader = marriage_database.prepare(
        embedded.url(server_home, "postgres"),
        data / "mca" / "marriages.csv",
        "truth_mca",
        "truth_reader",
        password="r-pw",
    )
    police = subprocess.Popen(
        [sys.executable, "-m", "demo.police_server", "--data", str(data), "--port", "0"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, env=os.environ | {"YICI_DEMO_CLIENT_ID": "yici", "YICI_DEMO_CLIENT_SECRET": "hush"},
    )  # fmt: skip
    assert police.stdout
    address = police.stdout.readline().strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YICI_HOME", str(folder / "home"))
        patch.setenv("YICI_DATABASE_URL", embedded.url(server_home, "truth"))
        patch.setenv("YICI_CONN_SH_GA", json.dumps({"url": address, "username": "yici", "password": "hush"}))
        patch.setenv("YICI_CONN_SH_MCA", reader)
        for code in PROVINCES:
            patch.setenv(f"YICI_CONN_{code.upper()}_AMR", str(data / "amr" / code))
        database.upgrade()
        first = {source: pipeline.run(source) for source in [*FED_BY, *AMR]}
        again = {source: pipeline.run(source) for source in [*FED_BY, *AMR]}
        yield {"data": data, "first": first, "again": again}
        database.engine().dispose()
    police.terminate()
    police.wait(30)
    with admin.connect() as connection:
        for name in ("truth", "truth_mca"):
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def dirt(world: dict[str, Any]) -> list[dict[str, Any]]:
    return pq.read_table(world["data"] / "truth" / "dirt.parquet").to_pylist()


def test_the_truth_has_dirt_of_every_verdict(world: dict[str, Any]) -> None:
    assert {row["verdict"] for row in dirt(world)} == {"accepted", "flagged", "quarantined", "rejected", "repeated"}


@pytest.mark.parametrize("source", [*FED_BY, *AMR])
def test_rows_end_where_the_truth_says(world: dict[str, Any], source: str) -> None:
    prefix = FED_BY[source][0] if source in FED_BY else f"amr/{source[:2]}/"
    expected = Counter(row["verdict"] for row in dirt(world) if row["file"].startswith(prefix))
    summary = world["first"][source]
    assert summary["quarantined"] == expected["quarantined"]
    assert summary["rejected"] == expected["rejected"]
    assert summary["reasons"].get("repeated", 0) == expected["repeated"]
    assert summary["fetched"] == sum(summary[name] for name in ("unchanged", "accepted", "quarantined", "rejected"))
    assert summary["accepted"] > 50


def test_the_second_run_accepts_nothing_new(world: dict[str, Any]) -> None:
    for summary in world["again"].values():
        assert (summary["accepted"], summary["quarantined"], summary["rejected"]) == (0, 0, 0)


def test_dirty_lines_are_named_by_file_and_row(world: dict[str, Any]) -> None:
    query = """SELECT f.name, q."row", q.verdict FROM quarantine AS q JOIN landed_file AS f ON f.id = q.file
        WHERE q.source LIKE '%amr%'"""
    with database.engine().connect() as connection:
        found = {(row.name, row.row, row.verdict) for row in connection.execute(sa.text(query))}
    expected = {
        (Path(row["file"]).name, row["row"], row["verdict"])
        for row in dirt(world)
        if row["file"].startswith("amr/") and row["verdict"] in ("quarantined", "rejected")
    }
    assert found == expected


def test_exactly_what_the_truth_holds_is_held(world: dict[str, Any]) -> None:
    query = """SELECT h.material, (SELECT array_agg((p ->> 'scheme') || ':' || (p ->> 'value'))
          FROM jsonb_array_elements(h.document -> 'holders') AS p) AS holders, h.status, h.valid_to
        FROM holding AS h"""
    with database.engine().connect() as connection:
        rows = connection.execute(sa.text(query)).all()
        clear = Counter((row.material, frozenset(row.holders)) for row in rows)
        still_valid = {
            frozenset(row.holders) for row in rows if row.material == "resident-id-card" and row.status == "in_force"
        }
    truth = pq.read_table(world["data"] / "truth" / "certificates.parquet").to_pylist()
    held = Counter({(row["material"], frozenset(row["holders"])) for row in truth if row["held"]})
    assert Counter(set(clear)) == held
    assert still_valid <= {frozenset(row["holders"]) for row in truth if row["status"] == "in_force"}


def test_no_identifier_in_the_logs_of_the_landing_zone_names(world: dict[str, Any]) -> None:
    """Names of landed files and manifests hold no identifier: they are digests and pages."""
    home = Path(os.environ["YICI_HOME"])
    identifiers = {holder.split(":", 1)[1] for row in pq.read_table(
        world["data"] / "truth" / "certificates.parquet").to_pylist() for holder in row["holders"]}  # fmt: skip
    names = " ".join(str(path) for path in home.rglob("*"))
    manifests = " ".join(path.read_text() for path in (home / "landing" / "manifests").rglob("*.json"))
    assert manifests and not [value for value in identifiers if value in names or value in manifests]
