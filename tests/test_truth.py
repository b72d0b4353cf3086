"""The generator knows the truth; the pipeline, fed by the departments' real servers and files, must come to the same."""

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
from hub import database, embedded, home, pipeline
from hub.home import Home
from tests.conftest import ROOT

PROVINCES = {"sh": "上海", "js": "江苏", "zj": "浙江", "ah": "安徽"}
# Asked over the network, each from a department's server.
SERVED = {
    "sh-ga-residents": "ga/residents.jsonl",
    "sh-ga-households": "ga/households.jsonl",
    "sh-mca-marriages": "mca/marriages.csv",
    "sh-mca-allowances": "mca/dibao.csv",
    "sh-moe-degrees": "moe/degrees.jsonl",
}
# Read as files: their servers are tested on their own.
DELIVERED = {
    "sh-hrss-insurance": "hrss/sh",
    "zj-hrss-insurance": "hrss/zj",
    "sh-mnr-titles": "mnr",
    "sh-nhc-births": "nhc/certificates",
    "zj-ga-households": "ga-zj",
    "cn-nia-documents": "nia",
    "cn-samr-conversions": "samr",
}
LINKS = ("cn-nia-documents", "cn-samr-conversions")
AMR = {f"{code}-amr-enterprises": f"amr/{code}" for code in PROVINCES}
FED_BY = SERVED | DELIVERED | AMR
# Rows keep their number where a file is read as it is.
NUMBERED = DELIVERED | AMR


@pytest.fixture(scope="module")
def world(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Generated departments, served; every source run twice into a store of its own."""
    folder = tmp_path_factory.mktemp("truth")
    parameters = synthesis.Parameters(people=1500, companies=700, seed=11, dirt=0.05)
    data = synthesis.synthesise(parameters, folder / "data").folder
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
    servers = [_serve(module, data) for module in ("police_server", "degree_server")]
    police, education = (server.stdout.readline().strip() for server in servers if server.stdout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YICI_HOME", str(folder / "home"))
        patch.setenv("YICI_DATABASE_URL", embedded.url(server_home, "truth"))
        for name, address in (("GA", police), ("MOE", education)):
            login = {"url": address, "username": "yici", "password": "hush"}
            patch.setenv(f"YICI_CONN_SH_{name}", json.dumps(login))
        patch.setenv("YICI_CONN_SH_MCA", reader)
        for code in PROVINCES:
            patch.setenv(f"YICI_CONN_{code.upper()}_AMR", str(data / "amr" / code))
        database.upgrade()

        def run() -> dict[str, Any]:
            inputs = {name: data / DELIVERED[name] if name in DELIVERED else None for name in FED_BY}
            return {name: pipeline.run(name, input=path) for name, path in inputs.items()}

        yield {"data": data, "first": run(), "again": run()}
        database.engine().dispose()
    for server in servers:
        server.terminate()
        server.wait(30)
    with admin.connect() as connection:
        for name in ("truth", "truth_mca"):
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def _serve(module: str, data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"demo.{module}", "--data", str(data), "--port", "0"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, env=os.environ | {"YICI_DEMO_CLIENT_ID": "yici", "YICI_DEMO_CLIENT_SECRET": "hush"},
    )  # fmt: skip


def truth(world: dict[str, Any], name: str, source: str | None = None) -> list[dict[str, Any]]:
    """Rows of a table of the truth; with a source, those about the files it reads."""
    rows = pq.read_table(world["data"] / "truth" / f"{name}.parquet").to_pylist()
    here = "" if source is None else FED_BY[source] if source in SERVED else f"{FED_BY[source]}/"
    return [row for row in rows if source is None or row["file"].startswith(here)]


def test_the_truth_has_dirt_of_every_verdict(world: dict[str, Any]) -> None:
    verdicts = {"accepted", "flagged", "quarantined", "rejected", "repeated"}
    assert {row["verdict"] for row in truth(world, "dirt")} == verdicts
    for source in FED_BY:
        assert {row["verdict"] for row in truth(world, "dirt", source)} & {"quarantined", "rejected", "repeated"} or (
            source == "sh-mca-allowances"  # a roster of a few
        )


@pytest.mark.parametrize("source", FED_BY)
def test_rows_end_where_the_truth_says(world: dict[str, Any], source: str) -> None:
    expected = Counter(row["verdict"] for row in truth(world, "dirt", source))
    summary = world["first"][source]
    assert summary["quarantined"] == expected["quarantined"]
    assert summary["rejected"] == expected["rejected"]
    assert summary["reasons"].get("repeated", 0) == expected["repeated"]
    assert summary["fetched"] == sum(summary[name] for name in ("unchanged", "accepted", "quarantined", "rejected"))
    clean = [row for row in truth(world, "certificates", source) if row["held"]]
    assert summary["accepted"] == len(clean) > 3


def test_the_second_run_accepts_nothing_new(world: dict[str, Any]) -> None:
    for summary in world["again"].values():
        assert (summary["accepted"], summary["quarantined"], summary["rejected"]) == (0, 0, 0)


@pytest.mark.parametrize("source", NUMBERED)
def test_dirty_rows_are_named_by_file_and_row(world: dict[str, Any], source: str) -> None:
    query = """SELECT f.name, q."row", q.verdict FROM quarantine AS q JOIN landed_file AS f ON f.id = q.file
        WHERE q.source = :source"""
    with database.engine().connect() as connection:
        rows = connection.execute(sa.text(query), {"source": source})
        found = {(row.name, row.row, row.verdict) for row in rows}
    expected = {
        (Path(row["file"]).name, row["row"], row["verdict"])
        for row in truth(world, "dirt", source)
        if row["verdict"] in ("quarantined", "rejected")
    }
    assert found == expected


@pytest.mark.parametrize("source", [name for name in FED_BY if name not in LINKS])
def test_exactly_what_the_truth_holds_is_held(world: dict[str, Any], source: str) -> None:
    query = """SELECT h.material, (SELECT array_agg((p ->> 'scheme') || ':' || (p ->> 'value'))
          FROM jsonb_array_elements(o.document -> 'holders') AS p) AS holders, h.status, h.valid_to
        FROM holding AS h JOIN observation AS o USING (source, row_key) WHERE h.source = :source"""
    with database.engine().connect() as connection:
        rows = connection.execute(sa.text(query), {"source": source}).all()
    # A card whose time is up is still in force in the register; the truth and the store say until when.
    found = Counter((row.material, frozenset(row.holders), row.status) for row in rows)
    expected = [row for row in truth(world, "certificates", source) if row["held"]]
    assert found == Counter((row["material"], frozenset(row["holders"]), row["status"]) for row in expected)
    if source in ("sh-ga-residents", "sh-mca-allowances"):
        ends = Counter((frozenset(row.holders), row.valid_to) for row in rows)
        assert ends == Counter((frozenset(row["holders"]), row["valid_to"]) for row in expected)


def test_who_is_one_in_truth_is_one_in_the_store(world: dict[str, Any]) -> None:
    """Pairs of identifiers that good rows link are joined; those that the truth calls contradictory are not, and say so."""
    hashing = home.keyed_hash()
    rows = [row for source in LINKS for row in truth(world, "certificates", source) if row["held"]]
    wrong = {(row["file"], row["row"]) for row in truth(world, "contradictions") if row["kind"].startswith("link-")}
    owner = {f"{link['scheme']}:{link['value']}": link["subject"] for link in truth(world, "links")}
    with database.engine().connect() as connection:
        found = connection.execute(sa.text("SELECT identifier, cluster, state FROM identity_member")).all()
    state = {row.identifier: row.state for row in found}
    cluster = {row.identifier: row.cluster for row in found}
    contradicted = 0
    for row in rows:
        one, other = map(hashing.of, row["holders"])
        if "contradictory" in (state[one], state[other]):
            assert cluster[one] != cluster[other]
            contradicted += 1
        else:
            assert cluster[one] == cluster[other] and (row["file"], row["row"]) not in wrong
    assert 0 < contradicted <= 3 * len(wrong) and len(rows) > 100
    subjects: dict[bytes, set[str]] = {}
    for text, subject in owner.items():
        if (key := hashing.of(text)) in cluster:
            subjects.setdefault(cluster[key], set()).add(subject)
    assert {len(who) for who in subjects.values()} == {1}


def test_no_identifier_in_the_logs_of_the_landing_zone_names(world: dict[str, Any]) -> None:
    """Names of landed files and manifests hold no identifier: they are digests and pages."""
    folder = Path(os.environ["YICI_HOME"])
    identifiers = {holder.split(":", 1)[1] for row in truth(world, "certificates") for holder in row["holders"]}
    names = " ".join(str(path) for path in folder.rglob("*"))
    manifests = " ".join(path.read_text() for path in (folder / "landing" / "manifests").rglob("*.json"))
    assert manifests and not [value for value in identifiers if value in names or value in manifests]
