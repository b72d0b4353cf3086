"""Bulk shares for tests: Zhejiang gives whole tables to Shanghai, whose people read with the stock Delta Sharing client."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import delta_sharing
import pandas as pd
import requests
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from delta_sharing.reader import DeltaSharingReader
from delta_sharing.rest_client import DataSharingRestClient
from joserfc.jwk import OKPKey

from connectors import signature
from hub.exchange import agreement_terms, peers, shares
from hub.schema_exchange import exchange_agreement, exchange_peer
from tests import stored
from tests.peering import announce
from tests.terms import terms

LICENCE = "business-licence"
SOURCE = "zj-amr-enterprises"
HUB = {"YICI_HUB": "zj", "YICI_REGION": "330000"}
FIELDS = ["certificate_number", "name", "region", "status", "valid_from", "holder.holder",
          "attributes.registered_capital", "attributes.registered_on"]  # fmt: skip
EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_public = signature.base64url(_private.public_key().public_bytes_raw())
_peer_key = OKPKey.import_key(
    {"kty": "OKP", "crv": "Ed25519", "x": _public, "d": signature.base64url(_private.private_bytes_raw())}
)


@contextlib.contextmanager
def as_zj() -> Iterator[None]:
    with mock.patch.dict(os.environ, HUB):
        yield


def agree(engine: sa.Engine, named: uuid.UUID | None = None, version: int = 1, **said: Any) -> uuid.UUID:
    """An agreement in force, signed by both; a version before it is superseded. ``said``: of its terms."""
    named = named or uuid.uuid4()
    said = {"modes": ["share"], "materials": {LICENCE: FIELDS}, **said}
    agreed = terms(named, version, **said)
    document = agreement_terms.canonical(agreed)
    kind = agreement_terms.TYPE
    key = {"kid": "k", "public_key": _public, "from": EPOCH.isoformat(), "to": None}
    row = {
        "id": named, "version": version, "peer": "sh", "provider": True, "document": document, "state": "in_force",
        "own_signature": signature.detached(document, peers.own_key(), kind),
        "peer_signature": signature.detached(document, _peer_key, kind),
        "valid_from": agreed.valid_from, "valid_to": agreed.valid_to,
    }  # fmt: skip
    with engine.begin() as connection:
        if connection.scalar(sa.select(exchange_peer.c.name).where(exchange_peer.c.name == "sh")) is None:
            known = {"name": "sh", "title": "上海", "region": "310000", "addresses": [], "keys": [key], "certificates": [],
                     "card_at": EPOCH}  # fmt: skip
            connection.execute(sa.insert(exchange_peer), [known])
        older = sa.update(exchange_agreement).where(exchange_agreement.c.id == named)
        connection.execute(older.values(state="superseded"))
        connection.execute(sa.insert(exchange_agreement), [row])
    return named


def set_state(engine: sa.Engine, named: uuid.UUID, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(exchange_agreement).where(exchange_agreement.c.id == named).values(**values))


def licence(engine: sa.Engine, serial: int, /, *, region: str = "330106", **more: Any) -> str:
    """One licence, announced in the feed; its key in hex."""
    said: dict[str, Any] = {
        "number": f"33-{serial:04d}", "name": f"企业{serial}", "valid_from": "2020-01-02", "region": region,
        "attributes": {
            "registered_capital": {"amount": f"{serial}.5000", "currency": "CNY"},
            "registered_on": f"2020-02-{serial % 28 + 1:02d}", "enterprise_type": f"type-{serial}",
        },
    }  # fmt: skip
    said |= more
    stored.source(engine, SOURCE, LICENCE, region="330000")
    key = stored.holding(engine, SOURCE, LICENCE, ("holder", "cn.uscc", f"9133{serial:014d}"), **said)
    announce(engine, key)
    return key


def change(engine: sa.Engine, holding: str, **members: Any) -> int:
    """Other members of the document, as a merge leaves them; returns the new position."""
    with engine.begin() as connection:
        stored.end(connection, holding)
        bind = {"key": holding, "more": json.dumps(members), "digest": uuid.uuid4()}
        for statement in (
            "UPDATE batch SET recorded_at = now() WHERE id = 'b-' || :key",
            "UPDATE holding SET digest = :digest WHERE key = decode(:key, 'hex')",
            """UPDATE mapped_row SET document = (document::jsonb || cast(:more AS jsonb))::text
            WHERE holding = decode(:key, 'hex')""",
        ):
            connection.execute(sa.text(statement), bind)
    return announce(engine, holding, "changed")


class Reader:
    """The stock client with the profile of one agreement."""

    def __init__(self, engine: sa.Engine, named: uuid.UUID, base: str, folder: Path) -> None:
        with engine.begin() as connection:
            now = dt.datetime.now(dt.UTC)
            self.profile = shares.profile(connection, named, f"{base}/delta", now=now)
        self.path = folder / f"{uuid.uuid4().hex}.share"
        self.path.write_text(json.dumps(self.profile))
        self.named, self.base = named, f"{base}/delta"
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {self.profile['bearerToken']}"

    @property
    def client(self) -> delta_sharing.SharingClient:
        return delta_sharing.SharingClient(str(self.path))

    def url(self, table: str = LICENCE) -> str:
        return f"{self.path}#{self.named}.materials.{table}"

    def read(self, **options: Any) -> pd.DataFrame:
        return delta_sharing.load_as_pandas(self.url(), **options)

    def changes(self, **options: Any) -> pd.DataFrame:
        return delta_sharing.load_table_changes_as_pandas(self.url(), **options)

    def version(self, *arguments: Any) -> int:
        return int(delta_sharing.get_table_version(self.url(), *arguments))

    def hinted(self, *hints: str, **options: Any) -> pd.DataFrame:
        """With SQL hints, which ``load_as_pandas`` does not take."""
        profile = delta_sharing.protocol.DeltaSharingProfile.read_from_file(str(self.path))
        table = delta_sharing.protocol.Table(LICENCE, str(self.named), "materials")
        return DeltaSharingReader(
            table, DataSharingRestClient(profile), predicateHints=list(hints), **options
        ).to_pandas()

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.session.get(self.base + path, timeout=30, **more)

    def at(self, action: str, table: str = LICENCE) -> str:
        return f"/shares/{self.named}/schemas/materials/tables/{table}/{action}"

    def query(self, **body: Any) -> requests.Response:
        return self.session.post(self.base + self.at("query"), json=body, timeout=60)

    def refused(self, answer: requests.Response, status: int, code: str) -> None:
        """In Delta Sharing's form, naming nobody."""
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/json"), answer.text
        assert answer.json().keys() == {"errorCode", "message"} and answer.json()["errorCode"] == code, answer.text
        assert answer.json()["message"] and "9133" not in answer.text and "Traceback" not in answer.text
