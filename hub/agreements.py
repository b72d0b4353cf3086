"""Agreements: which client may ask about which items for which purposes, until when. What is not written is not allowed."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import catalogue, client_secrets, database, schema

SHORTEST_SECRET = 24
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST_NAME = 80


@dataclass(frozen=True)
class Agreement:
    """What one client may ask. ``valid_to`` None: until it is removed."""

    client: str
    name: str
    items: tuple[str, ...]
    purposes: tuple[str, ...]
    valid_from: dt.datetime
    valid_to: dt.datetime | None

    def in_force(self, now: dt.datetime) -> bool:
        return self.valid_from <= now and (self.valid_to is None or now < self.valid_to)

    def admit(self, items: Iterable[str], purpose: str | None, now: dt.datetime) -> str:
        """The purpose under which ``items`` may be asked about.

        UsageError ``agreement-ended``, ``item-not-agreed``, ``purpose-not-agreed``, or ``purpose-missing`` when the
        agreement has several and none was named.
        """
        if not self.in_force(now):
            raise UsageError("agreement-ended")
        if missing := [item for item in items if item not in self.items]:
            raise UsageError("item-not-agreed", item=catalogue.shown(missing[0]))
        if purpose is None:
            if len(self.purposes) != 1:
                raise UsageError("purpose-missing", known=", ".join(self.purposes))
            return self.purposes[0]
        if purpose not in self.purposes:
            raise UsageError("purpose-not-agreed", known=", ".join(self.purposes))
        return purpose


def add(
    client: str,
    secret: str | None,
    name: str,
    items: Sequence[str],
    purposes: Sequence[str],
    valid_to: dt.datetime | None = None,
    *,
    replace: bool = False,
) -> str:
    """Write an agreement and return the client's secret, which is kept only as a hash.

    ``secret`` None makes one. UsageError ``client-invalid-name``, ``client-known`` (unless ``replace``), ``client-empty``,
    ``secret-short``, or of an unknown item.
    """
    if not NAME.fullmatch(client) or len(client) > LONGEST_NAME:
        raise UsageError("client-invalid-name")
    if not items or not purposes:
        raise UsageError("client-empty", client=client)
    if secret is not None and len(secret) < SHORTEST_SECRET:
        raise UsageError("secret-short", length=SHORTEST_SECRET)
    made = secret or client_secrets.made()
    row: dict[str, Any] = {
        "client": client,
        "secret_hash": client_secrets.hashed(made),
        "name": name,
        "items": list(catalogue.expand(items)),
        "purposes": list(dict.fromkeys(purposes)),
        "valid_from": dt.datetime.now(dt.UTC),
        "valid_to": valid_to,
    }
    with database.engine().begin() as connection:
        for item in row["items"]:
            if item not in catalogue.published() and catalogue.listed(connection, item) is None:
                raise UsageError("item-unknown", item=catalogue.shown(item))
        if replace:
            connection.execute(sa.delete(schema.agreement).where(schema.agreement.c.client == client))
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(schema.agreement), [row])
        except sa.exc.IntegrityError:
            raise UsageError("client-known", client=client) from None
    return made


def remove(client: str) -> None:
    """End an agreement at once. UsageError ``client-unknown``."""
    with database.engine().begin() as connection:
        gone = connection.execute(sa.delete(schema.agreement).where(schema.agreement.c.client == client))
        if not gone.rowcount:
            raise UsageError("client-unknown", client=catalogue.shown(client))


def every() -> list[Agreement]:
    """All agreements, by client."""
    with database.engine().connect() as connection:
        return [_agreement(row) for row in connection.execute(sa.select(*_COLUMNS).order_by("client"))]


def of(connection: sa.Connection, client: str) -> Agreement | None:
    """The agreement of ``client``, in force or not."""
    row = connection.execute(sa.select(*_COLUMNS).where(schema.agreement.c.client == client)).first()
    return _agreement(row) if row else None


def authenticate(engine: sa.Engine, client: str, secret: str) -> bool:
    """Whether ``secret`` is the client's. An unknown client takes as long as a wrong secret."""
    with engine.connect() as connection:  # given back before the slow part
        kept = connection.scalar(
            sa.select(schema.agreement.c.secret_hash).where(schema.agreement.c.client == client.replace("\0", ""))
        )
    return client_secrets.matches(secret, kept)


_COLUMNS = [column for column in schema.agreement.c if column.name not in ("secret_hash", "created_at")]


def _agreement(row: sa.Row) -> Agreement:
    return Agreement(
        row.client, row.name, tuple(row._mapping["items"]), tuple(row.purposes), row.valid_from, row.valid_to
    )
