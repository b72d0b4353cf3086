"""hub/checkpoint.py: all of the store, as of one moment, into the landing zone and out of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError
from connectors.landing import Landing
from hub import checkpoint, database, home, partitions, pipeline, schema, state
from hub.exchange import ledger, ledger_verify
from tests import ledgers, licences, zones

SH = "sh-amr-enterprises"


STATEMENTS = """
INSERT INTO source (name, entity, region, authority, extent, promise_seconds, cursor, merges)
  VALUES ('sh-x', 'business-licence', '310000', 100, 'partial', 60, '{"page": "一"}', 2), ('sh-y', 'marriage', '310000', 90, 'changes', 60, NULL, 0);
INSERT INTO batch (id, source, state, extent, contract, merges_seen, recorded_at)
  VALUES ('b', 'sh-x', 'merged', 'partial', 'c', 1, '2026-01-02Z'), ('halted', 'sh-x', 'halted', 'partial', 'c', 2, NULL);
INSERT INTO landed_file (source, digest, name, size) VALUES ('sh-x', '00', '一 二.csv', 1);
INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
  SELECT sha256(n::text::bytea), n, 'sh-x', md5('k' || n)::uuid, 1, n,
    json_build_object('name', E'有限"公司", \\\\ ' || n, 'holders', '[]'::json)
  FROM generate_series(1, 30) AS n;
INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, "row", holding,
    mapped, authority, said_digest, said_at)
  SELECT 'sh-x', md5('k' || n)::uuid, md5('d' || n)::uuid, md5('c')::uuid, 'accepted', mod(n, 2) = 0, '2026-01-01Z', '2026-01-01Z', 'b',
    1, n, sha256(n::text::bytea), n, 100, md5('d' || n)::uuid, '2026-01-01 00:00:00.000001Z'
  FROM generate_series(1, 30) AS n;
INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, "row")
  SELECT 'sh-x', md5('q' || n)::uuid, md5('d' || n)::uuid, md5('c')::uuid, 'quarantined', false, '2026-01-01Z', '2026-01-01Z', 'b', 1, n
  FROM generate_series(31, 33) AS n;
INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting, status, valid_to, batch)
  SELECT holding, mapped, 'business-licence', source, row_key, digest, updated_at, 100, 1, false, 'in_force', '2031-02-03', 'b'
  FROM row_ledger WHERE holding IS NOT NULL;
INSERT INTO holding_holder SELECT sha256(key), key, 'holder' FROM holding;
INSERT INTO holding_past (holding, recorded_from, recorded_to, material, digest, source, row_key, batch, file, "row", identifiers, document)
  SELECT key, '2025-01-01Z', '2026-01-02Z', material, digest, source, row_key, 'b', 1, 2, ARRAY[key, key], '{"a": null}' FROM holding LIMIT 5;
INSERT INTO feed SELECT row_number() OVER (), key, material, 'added', digest, 'b', '2026-01-02Z' FROM holding;
UPDATE feed_head SET position = 30;
INSERT INTO identity_change VALUES (1, '2025-01-01Z'), (2, '2026-01-02Z');
INSERT INTO identity_member SELECT key, 'passport', NULL, NULL, key, key, 'joined', 2 FROM holding LIMIT 3;
INSERT INTO identity_past SELECT identifier, cluster, 'contradictory', '2025-01-01Z', '2026-01-02Z' FROM identity_member;
INSERT INTO quarantine (source, batch, row_key, original_key, digest, verdict, state, reasons, raw, file, "row")
  SELECT source, batch, row_key, row_key, digest, verdict, 'open', ARRAY['a', 'b,"c"'], '\\x00ff0a', 1, "row" FROM row_ledger WHERE holding IS NULL;
INSERT INTO decision (kind, source, actor, note, landed, row_key)
  SELECT 'approve', 'sh-x', 'a', note, '00', gen_random_uuid() FROM unnest(ARRAY['', E'two\nlines, "quoted"', '\\N', '\\.', '空格 ', NULL]) AS note;
"""


@pytest.fixture
def filled(store: sa.Engine) -> sa.Engine:
    """Something in every table that merges write, and words that text could stumble over."""
    with store.begin() as connection:
        partitions.ensure(connection, dt.date(2026, 1, 5))
        connection.exec_driver_sql(STATEMENTS)
    return store


@contextlib.contextmanager
def another(store: sa.Engine) -> Iterator[sa.Engine]:
    """A fresh, migrated store beside this one, of the same home."""
    name = f"test_{uuid.uuid4().hex}"
    admin = sa.create_engine(store.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine = sa.create_engine(store.url.set(database=name))
    try:
        database.upgrade(engine)
        yield engine
    finally:
        engine.dispose()
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def written(store: sa.Engine, landing: Landing, **how: bool) -> str:
    with state.snapshot(store) as connection:
        return checkpoint.write(connection, landing, **how)


def rows_of(engine: sa.Engine, table: str) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.scalars(sa.text(f"SELECT t::text FROM {table} AS t")))


def test_a_checkpoint_holds_every_table(filled: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "ROWS", 7)  # a table of several files
    monkeypatch.setattr(checkpoint, "HELD", 1000)
    with zones.of("s3", tmp_path, monkeypatch) as url, another(filled) as other:
        landing = Landing(url)
        ledgers.plain(filled, 3)
        ledger.chain(filled)
        name = written(filled, landing)
        assert checkpoint.names(landing) == [name]
        read = checkpoint.read(landing, name)
        assert sum(part.table == "row_ledger" for part in read.parts) > 3
        assert read.merges["sh-x"] == 2
        assert read.pending == (("sh-x", "halted"),)
        with other.begin() as connection:
            assert checkpoint.load(connection, landing, name) == read
        for table in (*schema.metadata.tables, "observation", "holding_version"):
            if table != "setting":
                assert rows_of(other, table) == rows_of(filled, table), table
        assert ledger_verify.verify(other, ask=()).records == 3
        counted = ("holding_past", "decision", "feed", "identity_member", "identity_past")
        assert [len(rows_of(other, table)) for table in counted] == [5, 6, 30, 3, 3]
        assert {"feed_202601", "holding_past_202601", "identity_past_202601"} <= set(
            sa.inspect(other).get_table_names()
        )
        with other.begin() as connection:  # numbers go on where they stopped
            highest = connection.scalar(sa.text("SELECT max(id) FROM decision"))
            new = sa.insert(schema.decision).values(kind="approve", source="sh-x", actor="a", landed="00")
            assert connection.scalar(new.returning(schema.decision.c.id)) == highest + 1


@pytest.mark.slow
def test_work_goes_on_from_a_checkpoint(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next delivery ends in the same state in either store; all of it over a bucket."""
    bad = licences.row(31, code=licences.credit_code(31)[:-1] + "?")
    delivery = licences.write(tmp_path / "two.csv", [licences.row(4, name="又换名有限公司"), *licences.rows(40)[30:]])
    with zones.of("s3", tmp_path, monkeypatch) as url, another(store) as other:
        monkeypatch.setenv("YICI_LANDING_URL", url)
        pipeline.run(SH, input=licences.write(tmp_path / "one.csv", [*licences.rows(30), bad]))
        landing = Landing(home.current().landing_url)
        name = written(store, landing)
        with other.begin() as connection:
            checkpoint.load(connection, landing, name)
        ends = []
        for engine in (store, other):
            monkeypatch.setenv("YICI_DATABASE_URL", engine.url.render_as_string(hide_password=False))
            pipeline.run(SH, input=delivery)
            with state.snapshot(engine) as connection:
                ends.append(state.digest(connection))
        assert ends[0] == ends[1]
        assert len(list(landing.batches())) == 3


def test_it_is_of_one_moment_and_history_may_be_left_out(filled: sa.Engine, tmp_path: Path) -> None:
    landing = Landing(tmp_path / "zone")
    with state.snapshot(filled) as connection:
        before = state.digest(connection)
        with filled.begin() as meanwhile:
            meanwhile.exec_driver_sql("DELETE FROM holding_holder")
            meanwhile.exec_driver_sql("UPDATE holding SET status = 'revoked'")
        name = checkpoint.write(connection, landing, history=False)
    with another(filled) as other:
        with other.begin() as connection:
            assert checkpoint.load(connection, landing, name).digest == before
        assert [len(rows_of(other, table)) for table in ("holding_past", "identity_past", "holding")] == [0, 0, 30]
        assert len(rows_of(other, "identity_membership")) == 3, "since when they are as they are is no history"


def test_without_its_manifest_there_is_none(filled: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landing = Landing(tmp_path / "zone")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(state, "digest", lambda connection: (_ for _ in ()).throw(KeyboardInterrupt))
        written(filled, landing)
    (cut_off,) = landing.zone.names("checkpoints")
    assert checkpoint.names(landing) == []
    with pytest.raises(FatalError) as refused:
        checkpoint.read(landing, cut_off)
    assert refused.value.code == "checkpoint-unknown"
    (tmp_path / "zone/checkpoints" / cut_off).rename(tmp_path / "zone/checkpoints/20200101T000000000000Z")
    name = written(filled, landing)
    assert landing.zone.names("checkpoints") == [name]
    checkpoint.drop(landing, name)
    assert landing.zone.names("checkpoints") == []
    with pytest.raises(FatalError):
        checkpoint.drop(landing, name)


def damaged(landing: Landing, name: str) -> None:
    part = next(part for part in checkpoint.read(landing, name).parts if part.table == "row_ledger")
    data = landing.zone.read(part.file.path)
    landing.zone.write(part.file.path, data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])


def changed(landing: Landing, name: str, **values: object) -> None:
    import orjson

    path = f"checkpoints/{name}/manifest.json"
    landing.zone.write(path, orjson.dumps({**orjson.loads(landing.zone.read(path)), **values}))


def test_what_is_not_whole_is_refused(filled: sa.Engine, tmp_path: Path) -> None:
    landing = Landing(tmp_path / "zone")
    faults = {
        "landed-file-altered": damaged,
        "checkpoint-other-release": lambda landing, name: changed(landing, name, revision="0001"),
        "checkpoint-other-key": lambda landing, name: changed(landing, name, key="00"),
        "checkpoint-differs": lambda landing, name: changed(landing, name, digest={"holdings": "00", "all": "00"}),
        "checkpoint-damaged": lambda landing, name: landing.zone.write(f"checkpoints/{name}/manifest.json", b"{"),
    }
    with another(filled) as other:
        for code, fault in faults.items():
            name = written(filled, landing)
            fault(landing, name)
            with pytest.raises(FatalError) as refused, other.begin() as connection:
                checkpoint.load(connection, landing, name)
            assert refused.value.code == code
            assert rows_of(other, "row_ledger") == []
        with pytest.raises(FatalError) as refused, other.begin() as connection:
            checkpoint.load(connection, landing, "../x")
        assert refused.value.code == "checkpoint-unknown"
    name = written(filled, landing)
    with pytest.raises(FatalError) as refused, filled.begin() as connection:
        checkpoint.load(connection, landing, name)
    assert refused.value.code == "checkpoint-not-empty"
