"""Migrations of a store that is filled: what it holds, says and said stays."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from hub import database, holdings, home, pipeline, state, verify
from hub.home import KeyedHash
from tests import linked, residents
from tests.linked import Said

LICENCE = "business-licence"
JANUARY, FEBRUARY, MARCH = (dt.datetime(2026, month, 1, 4, tzinfo=dt.UTC) for month in (1, 2, 3))
A_WHILE = dt.timedelta(minutes=3)  # from the beginning of a merge, which versions were dated by, to what the feed said
CONTRACT = "ab" * 32
SOURCES = [("a", 100, "partial"), ("b", 50, "partial"), ("c", 70, "snapshot")]
BATCHES = [("a1", "a", JANUARY), ("b1", "b", FEBRUARY), ("c1", "c", FEBRUARY + A_WHILE), ("a2", "a", MARCH),
           ("c2", "c", MARCH + A_WHILE)]  # fmt: skip
MERGED = {batch: at for batch, _, at in BATCHES}


def uid(text: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, text)


def said(text: str) -> uuid.UUID:
    """The digest of a row of the one column ``said``."""
    return uuid.UUID(bytes=hashlib.md5(f"said\x1f{len(text)}:{text}".encode()).digest())


class Before:
    """The store at revision 0002, and what was in it."""

    def __init__(self, connection: sa.Connection, hashing: KeyedHash) -> None:
        self.connection, self.hashing, self.position = connection, hashing, 0

    def run(self, statement: str, **bind: Any) -> None:
        self.connection.execute(sa.text(statement), bind)

    def key(self, number: str) -> bytes:
        return self.hashing.of(f"{LICENCE}\x1f{number}")

    def holder(self, number: str) -> bytes:
        return self.hashing.of(f"cn.uscc:{number}")

    def document(self, number: str, name: str) -> str:
        said = {"certificate_number": number, "name": name, "status": "in_force", "region": None, "valid_from": None,
                "valid_to": None, "issued_on": None, "attributes": {}, "updated_at": "2026-01-01T00:00:00+00:00",
                "holders": [{"role": "holder", "scheme": "cn.uscc", "value": number, "name": name}]}  # fmt: skip
        return json.dumps(said, ensure_ascii=False)

    def ledger(self, row: str, batch: str, digest: str, verdict: str = "accepted", in_force: bool = True) -> None:
        self.run(
            """INSERT INTO row_ledger (source, row_key, digest, contract, verdict, in_force, timed, updated_at, as_of, batch, file, row)
            VALUES (:source, :row_key, :digest, :contract, :verdict, :in_force, true, :at, :at, :batch, :file, :row)""",
            source=batch[0], row_key=uid(row), digest=said(digest) if verdict == "quarantined" else uid(digest), contract=CONTRACT, verdict=verdict, in_force=in_force,
            at=MERGED[batch], batch=batch, file=ord(batch[0]), row=len(row) if verdict == "quarantined" else 1,
        )  # fmt: skip

    def observation(self, row: str, batch: str, digest: str, number: str, name: str) -> None:
        self.run(
            """INSERT INTO observation (source, row_key, holding, digest, updated_at, authority, batch, file, row, document)
            SELECT name, :row_key, :holding, :digest, :at, authority, :batch, :file, :row, cast(:document AS jsonb)
            FROM source WHERE name = :source""",
            source=batch[0], row_key=uid(row), holding=self.key(number), digest=uid(digest), at=MERGED[batch], batch=batch,
            file=ord(batch[0]), row=1, document=self.document(number, name),
        )  # fmt: skip

    def holding(self, row: str, source: str, number: str, conflicting: bool = False) -> None:
        self.run(
            """INSERT INTO holding (key, material, source, row_key, digest, updated_at, authority, observations, conflicting, status,
              document, recorded_at)
            SELECT holding, :material, source, row_key, digest, updated_at, authority, (
              SELECT count(*) FROM observation WHERE holding = :key), :conflicting, 'in_force', document, updated_at
            FROM observation WHERE source = :source AND row_key = :row_key AND holding = :key""",
            material=LICENCE, source=source, row_key=uid(row), key=self.key(number), conflicting=conflicting,
        )  # fmt: skip
        self.run("INSERT INTO holding_holder VALUES (:identifier, :key, 'holder')",
                 identifier=self.holder(number), key=self.key(number))  # fmt: skip

    def version(self, number: str, name: str | None, digest: str, batch: str, until: str | None = None) -> None:
        """``name``: None where it was withdrawn."""
        known = [
            *self.connection.scalars(sa.text("SELECT 1 FROM feed WHERE holding = :key"), {"key": self.key(number)})
        ]
        change = "withdrawn" if name is None else "changed" if known else "added"
        self.position += 1
        bind = {
            "key": self.key(number), "material": LICENCE, "from": MERGED[batch], "to": MERGED[until] if until else None,
            "digest": uid(digest) if name else None, "source": batch[0] if name else None, "batch": batch,
            "document": self.document(number, name) if name else None, "position": self.position, "change": change,
            "file": ord(batch[0]), "announced": MERGED[batch] + A_WHILE / 2,
        }  # fmt: skip
        self.run(
            """INSERT INTO holding_version (holding, recorded_from, recorded_to, material, digest, source, batch, file, row, document)
            VALUES (:key, :from, :to, :material, :digest, :source, :batch, :file, 1, cast(:document AS jsonb))""",
            **bind,
        )
        self.run("INSERT INTO feed VALUES (:position, :key, :material, :change, :digest, :batch, :announced)", **bind)


def fill(before: Before) -> None:
    for name, authority, extent in SOURCES:
        before.run(
            """INSERT INTO source (name, entity, region, authority, extent, promise_seconds, merges)
            VALUES (:name, 'business-licence', '310000', :authority, :extent, 1, (:name IN ('a', 'c'))::int + 1)""",
            name=name, authority=authority, extent=extent,
        )  # fmt: skip
        before.run("INSERT INTO landed_file (id, source, digest, name, size) OVERRIDING SYSTEM VALUE VALUES (:id, :name, 'd', 'n', 1)",
                   id=ord(name), name=name)  # fmt: skip
    for batch, source, at in BATCHES:
        before.run(
            """INSERT INTO batch (id, source, state, extent, contract, merges_seen, as_of, fetched, accepted, quarantined, withdrawn,
              reasons, started_at, finished_at)
            SELECT :id, name, 'merged', extent, :contract, :seen, :at, 9, CASE :id WHEN 'a2' THEN 7 ELSE 9 END, CASE :id WHEN 'a2' THEN 2 ELSE 0 END, (:id = 'c2')::int,
              CASE :id WHEN 'a2' THEN cast('{"some": 2}' AS jsonb) ELSE '{}' END, :at, :at FROM source
            WHERE name = :source""",
            id=batch, source=source, contract=CONTRACT, seen=int(batch[1]) - 1, at=at,
        )  # fmt: skip
    before.version("ONE", "before", "one-before", "a1", until="a2")  # corrected
    before.version("BEHIND", "behind", "behind", "a1")
    before.version("TWO", "as b says", "two-b", "b1", until="a2")  # then known to a stronger source, which disagrees
    before.version("GONE", "gone", "gone", "c1", until="c2")
    before.version("HERE", "here", "here", "c1")
    before.version("ONE", "after", "one", "a2")
    before.version("TWO", "as a says", "two-a", "a2")
    before.version("GONE", None, "gone", "c2")
    for row, batch, digest, number, name in (
        ("one", "a2", "one", "ONE", "after"), ("two-b", "b1", "two-b", "TWO", "as b says"),
        ("two-a", "a2", "two-a", "TWO", "as a says"), ("here", "c1", "here", "HERE", "here"),
        ("behind", "a1", "behind", "BEHIND", "behind"),
    ):  # fmt: skip
        before.observation(row, batch, digest, number, name)
        if row != "behind":
            before.ledger(row, batch, digest)
    before.ledger("behind", "a2", "bad", "quarantined")  # what was accepted before stands behind it
    before.ledger("never", "a2", "never", "quarantined")
    before.ledger("gone", "c2", "gone", "withdrawn")
    for row, source, number in (
        ("one", "a", "ONE"),
        ("two-a", "a", "TWO"),
        ("here", "c", "HERE"),
        ("behind", "a", "BEHIND"),
    ):
        before.holding(row, source, number, conflicting=number == "TWO")
    for row, digest in (("behind", "bad"), ("never", "never")):
        before.run(
            """INSERT INTO quarantine (source, batch, row_key, original_key, digest, verdict, state, reasons, raw, file, row)
            VALUES ('a', 'a2', :row_key, :row_key, :digest, 'quarantined', 'open', '{some}', :raw, 97, :row)""",
            row_key=uid(row), digest=said(digest), raw=f'{{"said":"{digest}"}}'.encode(), row=len(row),
        )  # fmt: skip
    before.run("UPDATE feed_head SET position = :position", position=before.position)


# What is asked before and after: the same columns of what was a table and is another, or a view, now.
ASKED = {
    "ledger": """SELECT source, row_key, digest, left(contract::text, 8), verdict, in_force, timed, updated_at, as_of, batch, file, row
      FROM row_ledger""",
    "observations": """SELECT source, row_key, holding, digest, updated_at, authority, file, row, document::text FROM observation""",
    "holders": "SELECT identifier, holding, role FROM holding_holder",
    "feed": "SELECT position, holding, material, change, digest, batch, recorded_at FROM feed",
    "head": "SELECT position FROM feed_head",
    "quarantine": "SELECT * FROM quarantine",
    "batches": "SELECT id, source, state, fetched, accepted, as_of, merges_seen, finished_at FROM batch",
    "versions": "SELECT holding, material, digest, source, batch, file, row, document::text FROM holding_version WHERE document IS NOT NULL",
    "holdings": """SELECT key, material, source, row_key, digest, updated_at, authority, observations, conflicting, status, region,
      document::text FROM {held}""",
}


def everything(connection: sa.Connection, held: str) -> dict[str, list[str]]:
    found = {name: connection.execute(sa.text(query.format(held=held))) for name, query in ASKED.items()}
    return {name: sorted(str(tuple(row)) for row in rows) for name, rows in found.items()}


@pytest.fixture
def upgraded(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[sa.Connection, dict[str, list[str]]]]:
    """A store filled at revision 0002 and upgraded, and what was in it before."""
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YICI_DATABASE_URL", postgres_url)
    monkeypatch.delenv("YICI_LANDING_URL", raising=False)
    home.current().secret("pseudonym.key", make=True)
    engine = sa.create_engine(postgres_url)
    config = Config()
    config.set_main_option("script_location", "hub:migrations")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.commit()
        fill(Before(connection, home.keyed_hash()))
        connection.commit()
        before = everything(connection, "holding")
    database.upgrade()
    with engine.connect() as connection:
        yield connection, before
    engine.dispose()


def test_nothing_is_lost_and_all_fits_together(upgraded: tuple[sa.Connection, dict[str, list[str]]]) -> None:
    connection, before = upgraded
    assert {name: len(rows) for name, rows in before.items()} == {
        "ledger": 7, "observations": 5, "holders": 4, "feed": 8, "head": 1, "quarantine": 2, "batches": 5, "versions": 7,
        "holdings": 4,
    }  # fmt: skip
    after = everything(connection, "held")
    assert after == {**before, "ledger": after["ledger"]}
    assert [line.replace("-abab-", "") for line in after["ledger"]] == before["ledger"]
    assert verify.of_store(connection) == []
    listed = connection.execute(sa.text("SELECT name, listed_as_of FROM source ORDER BY name")).all()
    assert [tuple(row) for row in listed] == [("a", None), ("b", None), ("c", MERGED["c2"])]
    behind = "SELECT said_digest, said_as_of FROM row_ledger WHERE digest <> said_digest"
    assert [tuple(row) for row in connection.execute(sa.text(behind))] == [(uid("behind"), JANUARY)]


def names(connection: sa.Connection, number: str, at: dt.datetime) -> list[str]:
    """Sources whose version of what ``number`` holds was in force then."""
    hashing = home.keyed_hash()
    known = holdings.recorded(connection, {hashing.of(f"cn.uscc:{number}"): ("cn.uscc", number)}, [LICENCE], at)
    return [one.source for one in known.holdings]


def test_what_was_known_then_is_still_known(upgraded: tuple[sa.Connection, dict[str, list[str]]]) -> None:
    connection, _ = upgraded
    day = dt.timedelta(days=1)
    told = {
        number: [names(connection, number, at + day) for at in (JANUARY - 2 * day, JANUARY, FEBRUARY, MARCH)]
        for number in ("ONE", "TWO", "GONE", "HERE", "BEHIND")
    }
    assert told == {
        "ONE": [[], ["a"], ["a"], ["a"]],
        "TWO": [[], [], ["b"], ["a"]],
        "GONE": [[], [], ["c"], []],
        "HERE": [[], [], ["c"], ["c"]],
        "BEHIND": [[], ["a"], ["a"], ["a"]],
    }


def test_one_version_ends_when_the_next_becomes_known(upgraded: tuple[sa.Connection, dict[str, list[str]]]) -> None:
    """Versions were dated by the beginning of a merge, what is in force by its end: in between something is in force too."""
    connection, _ = upgraded
    moment = MARCH + A_WHILE / 4
    assert [names(connection, number, moment) for number in ("ONE", "TWO")] == [["a"], ["b"]]


MEMBERS = """
INSERT INTO identity_member (identifier, component, cluster, state) VALUES ('\\x01', '\\x01', '\\x01', 'joined'), ('\\x02', '\\x01', '\\x01', 'joined');
UPDATE feed_head SET recorded_at = '2026-02-01Z';
INSERT INTO decision (kind, source, actor, landed, decided_at) VALUES
  ('merge', 'identity', 'a', '00', '{decided}'), ('release', 'a', 'a', '01', '2026-09-01Z');
"""


@pytest.mark.parametrize(("decided", "known"), [("2026-01-01Z", "2026-02-01"), ("2026-03-01Z", "2026-03-01")])
def test_members_of_before_are_known_since_the_last_change(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decided: str, known: str
) -> None:
    """Since when they were one nobody kept: after the last merge and decision they were, and what comes next is later."""
    monkeypatch.setenv("YICI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("YICI_DATABASE_URL", postgres_url)
    home.current().secret("pseudonym.key", make=True)
    engine = sa.create_engine(postgres_url)
    config = Config()
    config.set_main_option("script_location", "hub:migrations")
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        connection.commit()
        connection.exec_driver_sql(MEMBERS.format(decided=decided))
        connection.commit()
    database.upgrade()
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT recorded_from, recorded_to FROM identity_membership")).all()
        assert {(row.recorded_from.astimezone(dt.UTC).isoformat()[:10], row.recorded_to) for row in rows} == {
            (known, None)
        }
        assert connection.scalar(sa.text("SELECT recorded_at FROM feed_head")) == rows[0].recorded_from
    engine.dispose()


def test_numbers_that_were_denied_before_the_upgrade_are_contradictory_after_it(
    store: sa.Engine, tmp_path: Path
) -> None:
    """As if everything were done again; of linked ones nothing changes, and documents have their digests."""
    cards = [
        residents.row(0, csrq="1956-09-21"),
        residents.row(1),
        residents.row(2, xb="2"),
        residents.row(4, csrq="1969-02-15"),
    ]
    linking = Said("passport:K1234567", f"cn.ric:{residents.number(residents.PEOPLE[2][1])}", "1975-07-08", "男")
    pipeline.run("sh-ga-residents", input=residents.write(tmp_path / "cards.json", cards))
    pipeline.run(linked.DOCUMENTS, input=linked.write(tmp_path / "links.csv", [linking]))
    right = residents.row(4, gxsj="2025-02-02T08:00:00+08:00")
    pipeline.run("sh-ga-residents", input=residents.write(tmp_path / "right.json", [right]))
    config = Config()
    config.set_main_option("script_location", "hub:migrations")
    with store.connect() as connection:
        after, members = state.digest(connection), linked.dump(connection)
        assert len(members["member"]) == 3 and len(members["claim"]) == 3
        config.attributes["connection"] = connection
        command.downgrade(config, "0011")
        connection.commit()
        assert len(linked.dump(connection)["member"]) == 2
    began = dt.datetime.now(dt.UTC)
    database.upgrade()
    with store.connect() as connection:
        assert (state.digest(connection), linked.dump(connection)) == (after, members)
        assert verify.of_store(connection) == []
        since = connection.scalars(
            sa.text("SELECT recorded_from FROM identity_membership WHERE recorded_to IS NULL ORDER BY 1 DESC")
        ).all()
        assert since[0] > began > since[1], "nobody had known it before"
        assert connection.scalar(sa.text("SELECT recorded_at FROM feed_head")) == since[0]
    assert (
        pipeline.run("sh-ga-residents", input=residents.write(tmp_path / "new.json", [residents.row(5)]))["accepted"]
        == 1
    )
    assert verify.verify(store).ok
