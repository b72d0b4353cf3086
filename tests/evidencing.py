"""Two hubs that exchange evidence: Zhejiang holds, Shanghai asks; each with its database and its listener over mutual TLS."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from connectors.envelope import Message
from connectors.errors import YiciError
from hub import home, index_keys
from hub.exchange import agreement_acts, agreements, caller, epochs
from hub.exchange.agreements import Agreement
from hub.exchange.epochs import Epoch
from hub.home import Home
from tests import licences, partner, stored, terms
from tests.emptying import empty
from tests.exchanging import Hub, two_hubs

LICENCE, REGISTER = "business-licence", "zj-amr-enterprises"
FIRM, OTHER, THIRD = (licences.credit_code(number, region="330106", subject="MA2B") for number in (1, 2, 3))
PURPOSE, CASE, ITEM = "handle-application", "31-2026-0001", "demo-food-permit"
COLUMNS = ["certificate_number", "name", "status", "valid_to", "holder.holder", "attributes.registered_on"]
TABLES = """exchange_agreement, exchange_message, exchange_record, exchange_pending, evidence, source, batch, landed_file,
  mapped_row, row_ledger, holding, holding_holder, holding_past, identity_link, identity_claim, identity_member,
  identity_decision, answer, index_entry, index_key, index_scope, agreement, subject_view"""


class Exchange:
    """``sh`` asks ``zj``."""

    def __init__(self, sh: Hub, zj: Hub) -> None:
        self.sh, self.zj = sh, zj

    def forget(self) -> None:
        """Empty stores, but the two are peers."""
        for hub in (self.sh, self.zj):
            with hub.acting() as engine, engine.begin() as connection:
                empty(connection, TABLES)
                connection.execute(
                    sa.text("UPDATE exchange_peer SET failures = 0, rests_until = NULL, removed_at = NULL")
                )

    def agree(self, **changes: Any) -> Agreement:
        """An agreement in force, as Shanghai keeps it."""
        said = terms.said(**{"materials": {LICENCE: COLUMNS}, **changes})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "agreement.yml"
            path.write_bytes(orjson.dumps(said))  # JSON is YAML
            with self.zj.acting():
                done = agreement_acts.propose("sh", path, "tester")
        assert done.problem is None, done
        found = agreements.parsed(done.agreement)
        assert found is not None
        with self.sh.acting() as engine:
            done = agreement_acts.accept(found[0], "tester")
            assert (done.state, done.problem) == ("in_force", None), done
            with engine.connect() as connection:
                return agreements.opened(agreements.versions(connection, found[0])[0])

    def hold(self, *holders: tuple[str, str, str], material: str = LICENCE, **more: Any) -> str:
        """A certificate that Zhejiang holds; its key."""
        with self.zj.acting() as engine:
            stored.source(engine, REGISTER, LICENCE, region="330000")
            return stored.holding(engine, REGISTER, material, *holders, **{"region": "330106", **more})

    def firm(self, **more: Any) -> str:
        """The licence of :data:`FIRM`."""
        whole = {
            "number": "330106000000001",
            "name": "营业执照",
            "valid_to": "2999-01-01",
            "attributes": {"registered_on": "2019-08-01", "enterprise_type": "有限责任公司"},
        }
        return self.hold(("holder", "cn.uscc", FIRM), **{**whole, **more})

    def epoch(self, agreement: Agreement) -> tuple[Epoch, bytes]:
        """The epoch that Zhejiang is in, and the key under the agreement that all its epochs are made from."""
        with self.zj.acting() as engine, engine.begin() as connection:
            own = agreements.opened(agreements.versions(connection, agreement.id)[0])
            current = epochs.current(connection, own, dt.datetime.now(dt.UTC))
            sealed = connection.scalar(
                sa.text("SELECT sealed_key FROM exchange_agreement WHERE id = :id"), {"id": own.id}
            )
            return current, index_keys.unseal(home.current(), sealed, f"agreement:{own.id}")

    def handle(self, agreement: Agreement, key: str) -> dict[str, str]:
        """What Zhejiang calls its certificate now, as a question says it."""
        epoch = self.epoch(agreement)[0]
        return {"handle": index_keys.handle(epoch.key, key).hex(), "epoch": epoch.name}

    def ask(self, agreement: Agreement, *, purpose: str | None = PURPOSE, case: str | None = CASE, seconds: float = 20.0,
            **members: Any) -> Message:  # fmt: skip
        """What Zhejiang replies to Shanghai."""
        body = {"material": LICENCE, "holders": [{"scheme": "cn.uscc", "value": FIRM}], "item": ITEM, **members}
        with self.sh.acting():
            return caller.ask(
                "zj", "evidence.request", body, agreement=agreement, purpose=purpose, case=case, seconds=seconds
            )

    def refused(self, agreement: Agreement, **members: Any) -> dict[str, Any]:
        """The problem that Zhejiang replies with; it gave nothing, and its ledger says so."""
        with pytest.raises(YiciError) as caught:
            self.ask(agreement, **members)
        assert caught.value.code in ("partner-refused", "partner-failed"), caught.value
        [record] = self.zj.rows(
            "SELECT outcome FROM exchange_record WHERE kind = 'evidence.request' ORDER BY id DESC LIMIT 1"
        )
        assert record.outcome == caught.value.values["code"] and self.given() == []
        return dict(caught.value.values)

    def given(self) -> list[Any]:
        """The disclosures that Zhejiang recorded."""
        return self.zj.rows("SELECT * FROM evidence ORDER BY given_at")

    def announce(
        self, patch: pytest.MonkeyPatch, agreement: Agreement, key: str, *holders: tuple[str, str, str], **more: str
    ) -> partner.Row:
        """Shanghai has read in the index that Zhejiang holds it."""
        epoch, agreed = self.epoch(agreement)
        patch.setattr(partner, "KEY", agreed)
        row = partner.announcement(int(key, 16), *holders, epoch=epoch.name, position="1", **more)
        with self.sh.acting() as engine:
            partner.merged(engine, [row])
            with engine.begin() as connection:
                connection.execute(
                    sa.text("UPDATE source SET last_success_at = now(), promise_seconds = 172800 WHERE name = :name"),
                    {"name": partner.SOURCE},
                )
        return row


@contextmanager
def exchange(server_home: Home, template: str, folder: Path, module: str) -> Iterator[Exchange]:
    """The two, listening; Zhejiang's listener is ``module``."""
    with two_hubs(server_home, template, folder) as (sh, zj), sh.serving():
        zj.start(module=module)
        yield Exchange(sh, zj)


def document(exchange: Exchange, key: str, said: Mapping[str, Any]) -> None:
    """What the document of a holding of Zhejiang says, changed."""
    with exchange.zj.acting() as engine, engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE mapped_row SET document = cast(cast(document AS jsonb) || cast(:said AS jsonb) AS text)"
                    " WHERE holding = decode(:key, 'hex')"),
            {"key": key, "said": json.dumps(said)},
        )  # fmt: skip
