"""Links, documents and decisions in the store as a merge leaves them, without the pipeline; and what clusters must follow."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from hub import database, embedded, identity, identity_past, verify_identity, verify_sql
from hub.home import Home, keyed_hash
from tests import stored

Link = tuple[str, str]


@dataclass(frozen=True)
class Said:
    """A row that links ``one`` and ``other`` (scheme:value) and may say when they were born and of which sex."""

    one: str
    other: str
    born_on: str | None = None
    sex: str | None = None
    source: str = "links"
    status: str = "in_force"

    @property
    def key(self) -> bytes:
        return keyed_hash().of(f"identity-link\x1f{self.one}\x1f{self.other}")

    @property
    def row_key(self) -> uuid.UUID:
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.source} {self.one} {self.other}")

    def document(self) -> str:
        pairs = [pair.split(":", 1) for pair in (self.one, self.other)]
        holders = [
            {"role": role, "scheme": scheme, "value": value, "name": None}
            for role, (scheme, value) in zip(("one", "other"), pairs, strict=True)
        ]
        attributes = {name: value for name, value in (("born_on", self.born_on), ("sex", self.sex)) if value}
        return json.dumps({"status": self.status, "holders": holders, "attributes": attributes})


def store(server_home: Home, folder: Path) -> Iterator[sa.Engine]:
    """A migrated store for all tests of a module, who leave it as it is."""
    name = f"identity_{uuid.uuid4().hex}"
    admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YICI_HOME", str(folder / "home"))
        patch.setenv("YICI_DATABASE_URL", embedded.url(server_home, name))
        database.upgrade()
        yield database.engine()
        database.engine().dispose()
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


DOCUMENTS = "cn-nia-documents"
_COLUMNS = ("bgh", "xm", "xb", "csrq", "gj", "yzjlx", "yzjhm", "xzjlx", "xzjhm", "bgrq", "gxsj")
_TYPES = {"cn.ric": "01", "passport": "02", "cn.permit": "03", "cn.fpr": "04"}


def write(path: Path, said: Iterable[Said], *, day: str = "2024-03-04") -> Path:
    """The file of :data:`DOCUMENTS` in which rows say so; the row of a pair keeps its number."""
    lines = [",".join(_COLUMNS)]
    for one in said:
        (kind, value), (new_kind, new_value) = (pair.split(":", 1) for pair in (one.one, one.other))
        number = f"B{one.key.hex()}"
        sex = {"男": "1", "女": "2", None: ""}[one.sex]
        lines.append(",".join([number, "EXAMPLE ANNA", sex, one.born_on or "", "USA", _TYPES[kind], value,
                               _TYPES[new_kind], new_value, day, f"{day} 10:00:00"]))  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def digest(identifier: str) -> bytes:
    return keyed_hash().of(identifier)


def deliver(connection: sa.Connection, said: Iterable[Said] = (), withdrawn: Iterable[Said] = ()) -> int:
    """What a merge does for the clusters: ledger rows, the table ``touched``, :func:`identity.update`, and last of all the
    time at which it becomes known."""
    new, gone = list(said), list(withdrawn)
    if new:
        rows = [_row(one) for one in new]
        for statement in (_MAPPED, _LEDGER):
            connection.execute(sa.text(statement), rows)
    if gone:
        connection.execute(
            sa.text("UPDATE row_ledger SET verdict = 'withdrawn', holding = NULL, mapped = NULL"
                    " WHERE source = :source AND row_key = :row_key"),
            [_row(one) for one in gone],
        )  # fmt: skip
    keys = [{"key": key} for key in {one.key for one in (*new, *gone)}]
    if not keys:
        return 0
    connection.execute(sa.text("CREATE TEMP TABLE touched (holding bytea) ON COMMIT DROP"))
    connection.execute(sa.text("INSERT INTO touched VALUES (:key)"), keys)
    hashing = keyed_hash()
    bind = {"inner": hashing.inner, "outer": hashing.outer}

    def run(statement: str, **more: object) -> int:
        return connection.execute(sa.text(statement), {**bind, **more}).rowcount

    changed = identity.update(connection, run, None)  # type: ignore[arg-type]
    run("DROP TABLE touched")
    identity_past.close(connection, identity_past.announce(connection))
    return changed


def _row(one: Said) -> dict[str, object]:
    return {"source": one.source, "row_key": one.row_key, "holding": one.key, "document": one.document(),
            "digest": uuid.uuid5(one.row_key, one.document()), "id": secrets.randbits(62)}  # fmt: skip


_MAPPED = """
INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document, document_digest)
VALUES (:holding, :id, :source, :row_key, 1, 2, :document, md5(:document)::uuid)
"""
_LEDGER = """
INSERT INTO row_ledger (source, row_key, digest, contract, verdict, timed, updated_at, as_of, batch, file, "row", holding,
  mapped, authority, said_digest, said_at)
VALUES (:source, :row_key, :digest, :digest, 'accepted', true, '2026-01-01', '2026-01-01', 'b', 1, 2, :holding, :id, 100,
  :digest, '2026-01-01')
ON CONFLICT (source, row_key) DO UPDATE SET digest = excluded.digest, holding = excluded.holding, mapped = excluded.mapped,
  said_digest = excluded.digest, verdict = 'accepted'
"""


@dataclass(frozen=True)
class Card:
    """A card of ``holder`` (scheme:value) that says when they were born and of which sex; ``number`` tells several apart."""

    holder: str
    born_on: str | None = None
    sex: str | None = None
    number: int = 0

    @property
    def key(self) -> bytes:
        return keyed_hash().of(f"resident-id-card\x1f{self.holder}\x1f{self.number}")

    def row(self) -> dict[str, object]:
        scheme, value = self.holder.split(":", 1)
        attributes = {name: value for name, value in (("born_on", self.born_on), ("sex", self.sex)) if value}
        holders = [{"role": "holder", "scheme": scheme, "value": value, "name": None}]
        document = json.dumps({"status": "in_force", "holders": holders, "attributes": attributes})
        return {"key": self.key, "id": secrets.randbits(62), "document": document, "row_key": uuid.uuid4(),
                "identifier": digest(self.holder)}  # fmt: skip


def hold(connection: sa.Connection, cards: Iterable[Card] = (), lost: Iterable[Card] = ()) -> None:
    """What a merge of cards does: holdings, holders, and the clusters. One that is held says something else from now on."""
    held, gone = list(cards), list(lost)
    for cards_of, statements in (([*held, *gone], _CARDS_GONE), (held, _CARDS)):
        rows = [card.row() for card in cards_of]
        for statement in statements if rows else ():
            connection.execute(sa.text(statement), rows)
    for keys, present in (([card.key for card in held], True), ([card.key for card in gone], False)):
        if keys:
            changed(connection, keys, present=present)


_CARDS_GONE = (
    "DELETE FROM holding_holder WHERE holding = :key",
    "DELETE FROM holding WHERE key = :key",
    "DELETE FROM mapped_row WHERE holding = :key",
)
_CARDS = (
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document, document_digest)
    VALUES (:key, :id, 'cards', :row_key, 1, 2, :document, md5(:document)::uuid)""",
    """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting, status,
      batch)
    VALUES (:key, :id, 'resident-id-card', 'cards', :row_key, :row_key, '2026-01-01', 100, 1, false, 'in_force', 'b')""",
    "INSERT INTO holding_holder (identifier, holding, role) VALUES (:identifier, :key, 'holder')",
)


def clusters(connection: sa.Connection, names: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """For each identifier those that are one subject with it; ``?`` in it when it is contradictory."""
    known = {digest(name): name for name in names}
    rows = connection.execute(
        sa.text("SELECT identifier, cluster, state FROM identity_member WHERE identifier = ANY(:known)"),
        {"known": list(known)},
    ).all()
    by: dict[bytes, set[str]] = {}
    for row in rows:
        by.setdefault(row.cluster, set()).add(known[row.identifier])
    found = {name: frozenset([name]) for name in known.values()}
    for row in rows:
        doubt = {"?"} if row.state == "contradictory" else set()
        found[known[row.identifier]] = frozenset(by[row.cluster] | doubt)
    return found


def dump(connection: sa.Connection) -> dict[str, set[tuple[object, ...]]]:
    """All that identity keeps, decisions that were taken back left out."""
    queries = {
        "link": "SELECT link, one, other, state FROM identity_link",
        "claim": "SELECT identifier, evidence, born_on, sex FROM identity_claim",
        "member": "SELECT identifier, scheme, born_on, sex, component, cluster, state FROM identity_member",
        "decision": "SELECT kind, member, side FROM identity_decision WHERE ended_by IS NULL",
    }
    return {name: {tuple(row) for row in connection.execute(sa.text(query))} for name, query in queries.items()}


def anew(connection: sa.Connection) -> set[str]:
    """In what the clusters differ from those that :mod:`hub.verify_identity` makes of everything at once."""
    connection.execute(sa.text(_SOURCES))
    verify_identity.anew(connection)
    found = connection.scalars(
        sa.text(f"SELECT code FROM ({verify_sql.CHECKS['identity']}) AS d WHERE code IS NOT NULL")
    )
    codes = set(found) - {"identity-decision-unknown"}  # landed nowhere
    verify_identity.forget(connection)
    return codes


_SOURCES = """
INSERT INTO source (name, entity, region, authority, extent, promise_seconds)
VALUES ('links', 'identity-link', '310000', 100, 'partial', 60), ('other', 'identity-link', '310000', 100, 'partial', 60)
ON CONFLICT DO NOTHING
"""


def document(
    engine: sa.Engine, source: str, material: str, holder: tuple[str, str, str], *, attributes: Mapping[str, str]
) -> bytes:
    """A certificate of ``holder`` (role, scheme, value) that says ``attributes``; its key."""
    key = bytes.fromhex(stored.holding(engine, source, material, holder))
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                """UPDATE mapped_row SET document = cast(cast(document AS jsonb) || cast(:said AS jsonb) AS text)
                WHERE holding = :key"""
            ),
            {"key": key, "said": json.dumps({"attributes": dict(attributes)})},
        )
        connection.execute(
            sa.text("UPDATE mapped_row SET document_digest = md5(document)::uuid WHERE holding = :key"), {"key": key}
        )
    return key


def changed(connection: sa.Connection, holdings: Iterable[bytes], *, present: bool = True) -> None:
    """What a merge does for the clusters when holdings changed."""
    connection.execute(
        sa.text(
            "CREATE TEMP TABLE changed (holding bytea, present boolean, known boolean, denies boolean) ON COMMIT DROP"
        )
    )
    rows = [{"key": key, "present": present} for key in holdings]
    if rows:
        connection.execute(sa.text("INSERT INTO changed VALUES (:key, :present, true)"), rows)
    identity.refresh(connection)
    connection.execute(sa.text("DROP TABLE changed"))
    identity_past.close(connection, identity_past.announce(connection))


def landed_file(connection: sa.Connection, source: str = "links") -> None:
    """The file that the rows of :func:`deliver` come from."""
    connection.execute(
        sa.text(
            "INSERT INTO landed_file (id, source, digest, name, size) OVERRIDING SYSTEM VALUE VALUES (1, :s, 'd', 'links.csv', 1)"
        ),
        {"s": source},
    )
