"""Reconciliation and corrections over the real transport: listeners of their own, mutual TLS, signed messages."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from hub.exchange import agreement_acts, corrections
from hub.exchange.correction_messages import Said
from hub.home import Home
from tests import exchanging, terms
from tests.reconciling import Reading


@pytest.fixture(scope="module")
def reading(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reading]:
    folder = tmp_path_factory.mktemp("hubs")
    with (
        exchanging.two_hubs(server_home, template, folder) as (sh, zj),
        sh.serving(),
        zj.serving(),
    ):
        found = Reading(zj, sh)
        found.clear()
        found.register()
        (folder / "agreement.yml").write_bytes(orjson.dumps(terms.said()))
        with zj.acting():
            done = agreement_acts.propose("sh", Path(folder / "agreement.yml"), "tester")
        found.named = uuid.UUID(done.agreement.partition("/")[0])
        with sh.acting():
            assert agreement_acts.accept(found.named, "tester").state == "in_force"
        found.hold(30)
        found.read()
        yield found


def test_found_from_either_side_and_healed(reading: Reading) -> None:
    assert reading.reconcile().equal and reading.reconcile(reading.zj).equal
    reading.sql(
        reading.sh, "DELETE FROM row_ledger WHERE row_key IN (SELECT row_key FROM row_ledger ORDER BY row_key LIMIT 3)"
    )
    found = reading.reconcile(reading.zj)
    assert (len(found.found.missing_there), found.left, found.sent > 0, found.received > 0) == (3, 3, True, True)
    healed = reading.reconcile(heal=True)
    assert healed.equal and healed.healed and healed.healed.counts["accepted"] == 3
    assert reading.reconcile(reading.zj).equal


def test_filed_answered_and_seen(reading: Reading) -> None:
    with reading.sh.acting():
        one = corrections.file("zj", reading.handles()[0], "status", Said("revoked", "seen in court"), actor="wang")
    assert one.told, one.problem
    with reading.zj.acting():
        done = corrections.answer(one.id, "confirmed", "looked up", actor="li")
        assert done.told, reading.sh.log()
    with reading.sh.acting():
        assert corrections.show(one.id)[0].state == "confirmed"
