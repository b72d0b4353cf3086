"""Every column of every table that answers depend on, altered in the database: ``yici verify`` tells, or it is said why not."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.landing import Landing
from hub import database, decisions, home, identity_decisions, pipeline, quarantine, review, verify
from tests import licences, linked, partner, residents, stored
from tests.linked import Said

TABLES = (
    "source", "batch", "landed_file", "row_ledger", "mapped_row", "holding", "holding_holder", "holding_past", "index_entry",
    "index_key", "index_scope", "identity_link", "identity_claim", "identity_member", "identity_change", "identity_past",
    "identity_decision", "quarantine", "feed", "feed_head", "decision", "setting",
)  # fmt: skip
A, B, C, D, E = (f"passport:{letter}1234567" for letter in "KLMNP")
LINKS = [Said(A, B, "1970-01-31", "男"), Said(B, C, "1980-05-23", "男"), Said(D, E, "1960-02-01", "女")]
# What another value of the type is.
OTHER = {
    "text": "coalesce({c}, '') || 'x'", "character varying": "CASE {c} WHEN '310000' THEN '320000' ELSE '310000' END",
    "bigint": "coalesce({c}, 0) + 1", "integer": "coalesce({c}, 0) + 1", "smallint": "coalesce({c}, 0) + 1",
    "boolean": "NOT coalesce({c}, false)", "uuid": "md5(coalesce({c}::text, ''))::uuid",
    "bytea": "sha256(coalesce({c}, '')) ", "date": "coalesce({c}, date '2001-01-01') + 1",
    "timestamp with time zone": "coalesce({c}, now()) - interval '40 days'", "jsonb": "coalesce({c}, '{{}}') || '{{\"x\": 1}}'",
    "ARRAY": "{c} || sha256({c}[1])", "mapped_row.document": "replace({c}, 'name', 'nam')",
    "index_scope.regions": "array_append({c}, '3301')",
    "quarantine.reasons": "{c} || 'x'::text", "quarantine.raw": "convert_to(replace(convert_from({c}, 'UTF8'), '0', '1'), 'UTF8')",
}  # fmt: skip


@pytest.fixture
def loaded(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sa.Engine:
    """Licences, one in a second version; cards, one that denies its number; links, some decided; an index; rows kept back,
    of which one was released, one rejected, one has come right."""
    announced = [
        partner.announcement(n, ("holder", "cn.uscc", stored.LICENCE_CODE), valid_to="2030-01-31") for n in range(2)
    ]
    partner.folder(tmp_path / "sources", monkeypatch)
    partner.run(tmp_path / "announced.csv", announced)
    amr = "sh-amr-enterprises"
    rows = [*licences.rows(4), licences.row(7, code=licences.credit_code(7)[:-1] + "?")]
    bad = [licences.row(number, name="") for number in (4, 5, 6)]
    pipeline.run(amr, input=licences.write(tmp_path / "all.csv", rows + bad))
    review.release([waiting(4)], actor="tester", note="confirmed")
    review.reject([waiting(5)], actor="tester")
    later = [licences.row(1, name="更名后有限公司", date="2019-09-01"), licences.row(6, date="2019-09-02")]
    pipeline.run(amr, input=licences.write(tmp_path / "new.csv", later))
    cards = [residents.row(0, csrq="1956-09-21"), residents.row(1)]
    pipeline.run("sh-ga-residents", input=residents.write(tmp_path / "cards.json", cards))
    pipeline.run(linked.DOCUMENTS, input=linked.write(tmp_path / "links.csv", LINKS))
    with store.begin() as connection:
        identity_decisions.merge(connection, [A, B], actor="tester")
        identity_decisions.split(connection, [A, B], actor="tester")
        identity_decisions.split(connection, [D, E], actor="tester")
    assert verify.verify(store).differences == ()
    return store


def waiting(number: int) -> int:
    with database.engine().connect() as connection:
        rows = [row.id for row in quarantine.listed(connection)]
        (found,) = (row for row in rows if licences.credit_code(number) in quarantine.show(connection, row)["raw"])
    return int(found)


def columns(connection: sa.Connection) -> list[tuple[str, str, str]]:
    query = sa.text(
        """SELECT table_name, column_name, data_type FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name = ANY(:tables) AND is_identity = 'NO' AND is_generated = 'NEVER'
        ORDER BY 1, ordinal_position"""
    )
    return [tuple(row) for row in connection.execute(query, {"tables": list(TABLES)})]


def found(connection: sa.Connection, table: str, column: str, kind: str) -> set[str] | None:
    """What is found once every row says something else in the column; None when the database itself refuses."""
    other = OTHER.get(f"{table}.{column}", OTHER[kind]).format(c=f'"{column}"')
    trial = connection.begin_nested()
    try:
        done = connection.execute(sa.text(f'UPDATE {table} SET "{column}" = {other}'))
        assert done.rowcount, f"{table} is empty: nothing is tried"
        altered = decisions.altered(connection, Landing(home.current().landing_url))
        return {one.code for one in verify.of_store(connection)} | {"decision-altered" for _ in altered}
    except sa.exc.DBAPIError:
        return None
    finally:
        trial.rollback()


# Why nothing in the store could tell -> columns. A rebuild into a fresh database makes all of them anew from what has landed.
UNNOTICED = {
    "said by the source's folder, written again with its next run": [
        "source.authority", "source.extent", "source.promise_seconds", "source.hub",
    ],
    "where the next run goes on, and since when: no other witness": [
        "source.contract", "source.cursor", "source.as_of", "source.last_success_at", "source.listed_as_of", "source.merges",
    ],
    "told of a batch, asked by no answer": [
        "batch.extent", "batch.contract", "batch.merges_seen", "batch.as_of", "batch.cursor", "batch.withdrawn", "batch.flags",
        "batch.seconds", "batch.findings", "batch.approved_by", "batch.started_at", "batch.finished_at",
    ],
    "of the file: its manifest says it, under the name that the digest is": [
        "landed_file.source", "landed_file.digest", "landed_file.name", "landed_file.size", "landed_file.landed_at",
    ],
    "where the row stands: told as the origin of an answer, decided by nothing": [
        "mapped_row.file", "mapped_row.row", "index_entry.batch", "index_entry.file", "index_entry.row",
    ],
    "how the next version of a row will be weighed": [
        "row_ledger.contract", "row_ledger.timed", "row_ledger.updated_at", "row_ledger.as_of", "row_ledger.lacked",
        "row_ledger.said_as_of",
    ],
    "since when an entry was known, and what the partner said it would tell of": [
        "index_entry.recorded_from", "index_key.sealed", "index_scope.source", "index_scope.epoch", "index_scope.material",
        "index_scope.recorded_from", "index_scope.regions",
    ],
    "who was one with whom before: nobody else remembers": [
        "identity_past.identifier", "identity_past.cluster", "identity_past.state",
    ],
    "when an entry was made: about when its batch became known": ["quarantine.created_at"],
    "the key of the only row": ["feed_head.one"],
    "of the database itself: every process compares the fingerprint of the key with the home's, every run its row key": [
        "setting.name", "setting.value",
    ],
}  # fmt: skip


@pytest.mark.slow
def test_every_column_that_answers_depend_on_is_watched(loaded: sa.Engine) -> None:
    with loaded.connect() as connection:
        tried = {
            f"{table}.{column}": found(connection, table, column, kind) for table, column, kind in columns(connection)
        }
    silent = {name for name, codes in tried.items() if codes == set()}
    known = set(itertools.chain.from_iterable(UNNOTICED.values()))
    assert silent == known, f"unnoticed: {sorted(silent - known)}, noticed: {sorted(known - silent)}"
