"""The state digest: the same for the same assertions, another as soon as one differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from hub import pipeline, state
from tests import licences

SH = "sh-amr-enterprises"
RECORDS = [*licences.rows(6), licences.row(7, code=licences.credit_code(7)[:-1] + "?"), licences.row(8, capital="#元")]
TABLES = "row_ledger, mapped_row, observation, holding, holding_holder, holding_version, feed, quarantine, landed_file, batch, source"


@pytest.fixture
def loaded(store: sa.Engine, tmp_path: Path) -> sa.Engine:
    """Eight rows: six held, the others kept back."""
    pipeline.run(SH, input=licences.write(tmp_path / "all.csv", RECORDS))
    return store


def digest(store: sa.Engine) -> dict[str, str]:
    with state.snapshot(store) as connection:
        return state.digest(connection)


def changed(store: sa.Engine, before: dict[str, str]) -> set[str]:
    after = digest(store)
    return {part for part in before if before[part] != after[part]}


def empty(store: sa.Engine) -> None:
    with store.begin() as connection:
        views = set(sa.inspect(connection).get_view_names())
        names = [name.strip() for name in TABLES.split(",")]
        connection.execute(sa.text(f"TRUNCATE {', '.join(name for name in names if name not in views)} CASCADE"))
        if "holding_past" in sa.inspect(connection).get_table_names():
            connection.execute(sa.text("TRUNCATE holding_past"))
        connection.execute(sa.text("UPDATE feed_head SET position = 0"))


def test_neither_order_nor_splitting_nor_repetition_matters(loaded: sa.Engine, tmp_path: Path) -> None:
    once = digest(loaded)
    assert set(once) >= {"ledger", "observations", "holdings", "holders", "quarantine", "entries", state.ALL}
    assert len(set(once.values())) >= 6, "every part that holds something has a digest of its own"
    empty(loaded)
    assert digest(loaded)["holdings"] != once["holdings"]
    for number, part in enumerate((RECORDS[5:], RECORDS[2:6], RECORDS[:3], RECORDS[::-1])):
        pipeline.run(SH, input=licences.write(tmp_path / f"part-{number}.csv", part))
    assert digest(loaded) == once


def test_provenance_and_sessions_do_not_matter(loaded: sa.Engine) -> None:
    before = digest(loaded)
    with loaded.begin() as connection:
        connection.execute(sa.text("""UPDATE row_ledger SET batch = 'other', file = file + 9, "row" = "row" + 9"""))
        connection.execute(sa.text("UPDATE feed SET position = position + 100, batch = 'other'"))
        connection.execute(sa.text("UPDATE quarantine SET id = id + 100, created_at = now()"))
        connection.execute(sa.text("UPDATE feed_head SET position = position + 100"))
    assert not changed(loaded, before)
    with state.snapshot(loaded) as connection:
        connection.execute(sa.text("SET LOCAL TimeZone = 'Asia/Shanghai'"))
        connection.execute(sa.text("SET LOCAL DateStyle = 'German'"))
        connection.execute(sa.text("SET LOCAL bytea_output = 'escape'"))
        assert state.digest(connection) == before


ASSERTED = {
    """UPDATE row_ledger SET digest = md5('x')::uuid WHERE verdict = 'quarantined'""": "ledger",
    """UPDATE row_ledger SET said_at = now() WHERE holding = (SELECT min(key) FROM holding)""": "observations",
    """UPDATE holding SET digest = md5('x')::uuid WHERE key = (SELECT min(key) FROM holding)""": "holdings",
    """UPDATE holding SET valid_to = date '2030-01-01' WHERE key = (SELECT min(key) FROM holding)""": "holdings",
    """UPDATE holding SET conflicting = true""": "holdings",
    """DELETE FROM holding_holder WHERE holding = (SELECT min(key) FROM holding)""": "holders",
    """UPDATE quarantine SET state = 'rejected' WHERE state = 'open'""": "quarantine",
    """INSERT INTO index_scope VALUES ('s', 'e', 'm', '33', now(), '{33}')""": "scope",
    """INSERT INTO identity_link VALUES ('\\x01', '\\x02', '\\x03', 'standing')""": "links",
    """INSERT INTO identity_member VALUES ('\\x02', NULL, NULL, NULL, '\\x02', '\\x02', 'joined', 1),
      ('\\x03', NULL, NULL, NULL, '\\x02', '\\x02', 'joined', 1)""": "members",
}
ALONE = "INSERT INTO identity_member VALUES ('\\x02', 'passport', NULL, NULL, '\\x02', '\\x02', 'joined', 1)"


def test_what_is_asserted_matters(loaded: sa.Engine) -> None:
    before = digest(loaded)
    with loaded.connect() as connection:
        for statement, part in {**ASSERTED, ALONE: None}.items():
            with connection.begin() as transaction:
                assert connection.execute(sa.text(statement)).rowcount, statement
                after = state.digest(connection)
                transaction.rollback()
            differing = {name for name in before if before[name] != after[name]}
            assert differing == ({part, state.ALL} if part else set()), statement


def test_a_snapshot_is_of_one_moment_and_writes_nothing(loaded: sa.Engine) -> None:
    with state.snapshot(loaded) as connection:
        before = state.digest(connection)
        with loaded.begin() as other:
            other.execute(sa.text("DELETE FROM holding_holder"))
        assert state.digest(connection) == before
        with pytest.raises(sa.exc.InternalError):
            connection.execute(sa.text("DELETE FROM holding"))
    assert changed(loaded, before) == {"holders", state.ALL}
