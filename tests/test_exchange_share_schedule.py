"""hub/exchange/share_schedule.py: who is published by the schedule, and what goes."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from connectors.errors import UsageError
from hub.exchange import share_schedule, share_tables
from tests.sharing import LICENCE, agree, as_zj, change, licence, set_state


@pytest.fixture(autouse=True)
def zj() -> Iterator[None]:
    with as_zj():
        yield


def kept(engine: sa.Engine) -> list[tuple[uuid.UUID, int]]:
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT agreement, version FROM share_version ORDER BY agreement, version"))
        return [(row.agreement, row.version) for row in rows]


def test_what_is_behind_is_due_until_it_is_published(store: sa.Engine) -> None:
    assert share_schedule.due() == []
    named, index = agree(store), agree(store, modes=["index"])
    firm = licence(store, 1)
    assert share_schedule.due() == [str(named)], "never published"
    assert share_schedule.publish(str(named)) == {LICENCE: 1}
    assert share_schedule.due() == []
    change(store, firm, name="another")
    assert share_schedule.due() == [str(named)]
    assert share_schedule.publish(str(named)) == {LICENCE: 1} and share_schedule.due() == []
    change(store, firm, issuer_code="not agreed")
    assert share_schedule.due() == [str(named)]
    share_schedule.publish(str(named))
    assert share_schedule.due() == [] and kept(store) == [(named, 0), (named, 1)], "looked at, and nothing differs"
    agree(store, named, 2, materials={LICENCE: ["name"]})
    assert share_schedule.due() == [str(named)], "other columns"
    with pytest.raises(UsageError):
        share_schedule.publish(str(index))


def test_only_agreements_in_force_are_due(store: sa.Engine) -> None:
    named = agree(store)
    licence(store, 1)
    set_state(store, named, state="suspended", suspended_by=["zj"])
    assert share_schedule.due() == []
    set_state(store, named, state="in_force", suspended_by=[])
    assert share_schedule.due() == [str(named)]


def test_old_versions_make_it_due_though_nothing_changed(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    named = agree(store)
    firm = licence(store, 1)
    share_schedule.publish(str(named))
    change(store, firm, name="another")
    share_schedule.publish(str(named))
    assert share_schedule.due() == []
    monkeypatch.setattr(share_tables, "KEPT", dt.timedelta(0))
    assert share_schedule.due() == [str(named)]
    share_schedule.publish(str(named))
    assert kept(store) == [(named, 1)] and share_schedule.due() == []


def test_what_is_over_goes(store: sa.Engine) -> None:
    named = agree(store)
    licence(store, 1)
    share_schedule.publish(str(named))
    set_state(store, named, state="ended")
    assert share_schedule.due() == [] and kept(store) == []
