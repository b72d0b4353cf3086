"""The civil affairs bureau of the demo, in a real PostgreSQL."""

from __future__ import annotations

import csv
import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from connectors.errors import FatalError
from demo import marriage_database
from demo.synthesis import Parameters, synthesise


@dataclass
class Bureau:
    admin_url: str
    csv_path: Path
    database: str
    reader: str

    def prepare(self, password: str = "p/w:d '1'") -> str:
        return marriage_database.prepare(self.admin_url, self.csv_path, self.database, self.reader, password=password)


@pytest.fixture
def bureau(postgres_url: str, tmp_path: Path) -> Iterator[Bureau]:
    name = uuid.uuid4().hex
    folder = synthesise(Parameters(800, 0, 9), tmp_path / "data").folder
    made = Bureau(postgres_url, folder / "mca/marriages.csv", f"mca_{name}", f"reader_{name}")
    yield made
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(made.database)))
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(made.reader)))


def written(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_reader_finds_the_rows_of_the_file(bureau: Bureau) -> None:
    url = bureau.prepare()
    rows = written(bureau.csv_path)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT * FROM hydj ORDER BY id").fetchall()
        names = [column.name for column in connection.execute("SELECT * FROM hydj LIMIT 0").description or ()]
    assert names == ["id", *rows[0]] and len(found) == len(rows) > 100
    for number, (got, row) in enumerate(zip(found, rows, strict=True), start=1):
        assert got[0] == number and list(got[1:-1]) == list(row.values())[:-1]
        assert got[-1] == dt.datetime.fromisoformat(row["gxsj"])


def test_url_serves_sqlalchemy_too(bureau: Bureau) -> None:
    engine = sa.create_engine(bureau.prepare().replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT current_user")) == bureau.reader
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM hydj",
        "UPDATE hydj SET zt = 'x'",
        "INSERT INTO hydj (gxsj) VALUES (now())",
        "TRUNCATE hydj",
        "CREATE TABLE mine (x int)",
        "CREATE TEMP TABLE mine (x int)",
    ],
)
def test_reader_can_only_read(bureau: Bureau, statement: str) -> None:
    with psycopg.connect(bureau.prepare(), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute(statement)
        # Nor when it lifts its own default.
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_again_changes_nothing_and_new_content_is_loaded(bureau: Bureau) -> None:
    url = bureau.prepare()

    def stored() -> tuple[int, list[tuple]]:
        with psycopg.connect(url) as connection:
            file = connection.execute("SELECT pg_relation_filenode('hydj')").fetchone()
            return file[0], connection.execute("SELECT *, xmin::text FROM hydj ORDER BY id").fetchall()

    before = stored()
    assert bureau.prepare() == url
    assert stored() == before
    rows = bureau.csv_path.read_text(encoding="utf-8").splitlines(keepends=True)
    bureau.csv_path.write_text("".join(rows[:-5]), encoding="utf-8")
    bureau.prepare()
    assert len(stored()[1]) == len(before[1]) - 5


def test_a_file_that_cannot_be_loaded_leaves_the_table_as_it_was(bureau: Bureau) -> None:
    url = bureau.prepare()
    with bureau.csv_path.open("a", encoding="utf-8") as file:
        file.write("secret-name,too,few\n")
    with pytest.raises(FatalError) as error:
        bureau.prepare()
    assert error.value.code == "demo-data-unreadable" and "secret-name" not in str(error.value)
    with psycopg.connect(url) as connection:
        count = connection.execute("SELECT count(*) FROM hydj").fetchone()
    assert count == (len(written(bureau.csv_path)) - 1,)
    bureau.csv_path.unlink()
    with pytest.raises(FatalError) as error:
        bureau.prepare()
    assert error.value.code == "demo-data-missing" and "yici synth" in str(error.value)


def test_the_password_is_the_latest(bureau: Bureau) -> None:
    old, new = bureau.prepare("first"), bureau.prepare("second")
    with psycopg.connect(new) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(old)


def test_the_roster_of_another_month(bureau: Bureau, tmp_path: Path) -> None:
    """It lies beside the marriages, takes the place of the one before, and stays until another population is made."""
    first = bureau.csv_path.with_name("dibao.csv")
    lines = ["dbzh,xm,sfzh,bzrs,xzqh,spjg,pzrq,yxqz,tjsj"]
    lines += [
        f"DB{number:06d},某人,310115199503078015,3,310115,N/A,2024-02-08,2027-02-07,2025-06-01 00:00:00+08:00"
        for number in range(9)
    ]
    first.write_text("\n".join(lines) + "\n", encoding="utf-8")
    later = tmp_path / "later.csv"
    later.write_text("\n".join(lines[:4]).replace("2025-06", "2025-07") + "\n", encoding="utf-8")
    url = bureau.prepare()

    def stored() -> tuple[int, dt.datetime]:
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT count(*), max(tjsj) FROM dibao").fetchone()
        assert found is not None
        return found

    assert stored() == (9, dt.datetime(2025, 5, 31, 16, tzinfo=dt.UTC))
    marriage_database.load_roster(bureau.admin_url, later, bureau.database, bureau.reader)
    assert stored() == (3, dt.datetime(2025, 6, 30, 16, tzinfo=dt.UTC))
    bureau.prepare()
    assert stored()[0] == 3, "the month goes on"
    first.write_text("\n".join(lines[:6]) + "\n", encoding="utf-8")
    bureau.prepare()
    assert stored()[0] == 5
    with pytest.raises(FatalError) as error:
        marriage_database.load_roster(bureau.admin_url, tmp_path / "none.csv", bureau.database, bureau.reader)
    assert error.value.code == "demo-data-missing"
