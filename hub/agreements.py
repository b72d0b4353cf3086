"""Agreements: which client may ask about which items for which purposes, until when, and what it may do with the answer.

What is not written is not allowed.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from connectors.errors import UsageError
from hub import catalogue, client_secrets, database, schema
from mappings import model
from mappings.model import Material

SHORTEST_SECRET = 24
EVIDENCE_MINUTES = 30  # by default
LONGEST_MINUTES = 24 * 60
RATE = 2000  # requests a second, by default
EVERY = "*"
# Purposes that open one thing of their own, and nobody's holdings: the ledger, one's own view.
APART = frozenset({"burden", "own-file"})
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LONGEST_NAME = 80


@dataclass(frozen=True)
class Agreement:
    """What one client may ask. ``valid_to`` None: until it is removed.

    ``fields``: by material the columns that evidence may show, or :data:`EVERY`; of other materials there is none. An answer
    opens it for ``evidence_minutes``. ``deposits``: materials that may be handed in through it. ``own_view``: may show people what is held
    about them. ``rate``: requests a second. ``since``: from when on it is this client that has the name; agreements before this one were
    of the same, back to there.
    """

    client: str
    name: str
    items: tuple[str, ...]
    purposes: tuple[str, ...]
    valid_from: dt.datetime
    valid_to: dt.datetime | None
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    evidence_minutes: int = EVIDENCE_MINUTES
    deposits: tuple[str, ...] = ()
    own_view: bool = False
    rate: int = RATE
    since: dt.datetime | None = field(default=None, compare=False)

    def in_force(self, now: dt.datetime) -> bool:
        return self.valid_from <= now and (self.valid_to is None or now < self.valid_to)

    def admit(self, items: Sequence[str], purpose: str | None, now: dt.datetime) -> str:
        """The purpose under which ``items`` may be asked about; those :data:`APART` admit to no item.

        UsageError ``agreement-ended``, ``item-not-agreed``, ``purpose-not-agreed``, or ``purpose-missing`` when the
        agreement has several and none was named.
        """
        if not self.in_force(now):
            raise UsageError("agreement-ended")
        if missing := [item for item in items if item not in self.items]:
            raise UsageError("item-not-agreed", item=catalogue.shown(missing[0]))
        purposes = [one for one in self.purposes if not items or one not in APART]
        if purpose is None:
            if len(purposes) > 1:
                raise UsageError("purpose-missing", known=", ".join(purposes))
            purpose = next(iter(purposes), None)
        if purpose is None or purpose not in purposes:
            raise UsageError("purpose-not-agreed", known=", ".join(purposes) or "-")
        return purpose

    def given(self, client: str, at: dt.datetime) -> bool:
        """Whether what ``client`` was given ``at`` a time was given to this one, and not to another that had its name before."""
        return client == self.client and at >= (self.since or self.valid_from)

    def shows(self, material: Material) -> tuple[str, ...]:
        """The columns of ``material`` that evidence may show, in the order of the model; none where nothing is agreed."""
        named = self.fields.get(material.code, ())
        return tuple(column for column in columns(material) if EVERY in named or column in named)


def columns(material: Material) -> tuple[str, ...]:
    """What an agreement can name of a certificate: columns of its envelope, ``holder.<role>``, ``attributes.<name>``."""
    envelope = [name for name in model.ENVELOPE if name != "updated_at"]
    holders = [f"holder.{role}" for role in material.holders]
    return (*envelope, *holders, *(f"attributes.{name}" for name in material.attributes))


def add(
    client: str,
    secret: str | None,
    name: str,
    items: Sequence[str],
    purposes: Sequence[str],
    valid_to: dt.datetime | None = None,
    *,
    fields: Mapping[str, Sequence[str]] | None = None,
    evidence_minutes: int = EVIDENCE_MINUTES,
    deposits: Sequence[str] = (),
    own_view: bool = False,
    rate: int = RATE,
    replace: bool = False,
) -> str:
    """Write an agreement and return the client's secret, which is kept only as a hash.

    ``secret`` None makes one. One that replaces another goes on for the same client: what that was given stays its own as far as the
    new agreement names it. UsageError ``client-invalid-name``, ``client-known`` (unless ``replace``), ``client-empty``,
    ``secret-short``, ``agreement-number``, ``material-unknown``, ``field-unknown``, or of an unknown item.
    """
    if not NAME.fullmatch(client) or len(client) > LONGEST_NAME:
        raise UsageError("client-invalid-name")
    if not items or not purposes:
        raise UsageError("client-empty", client=client)
    if secret is not None and len(secret) < SHORTEST_SECRET:
        raise UsageError("secret-short", length=SHORTEST_SECRET)
    _require_between("evidence_minutes", evidence_minutes, LONGEST_MINUTES)
    _require_between("rate", rate, 1_000_000)
    known = {material.code: material for material in model.all_materials()}
    for material in (*(fields or {}), *deposits):
        if material not in known:
            raise UsageError("material-unknown", material=catalogue.shown(material), known=", ".join(known))
    for material, named in (fields or {}).items():
        there = columns(known[material])
        if unknown := [name for name in named if name != EVERY and name not in there]:
            raise UsageError("field-unknown", field=unknown[0][:80], material=material, known=", ".join(there))
    made = secret or client_secrets.made()
    now = dt.datetime.now(dt.UTC)
    row: dict[str, Any] = {
        "client": client,
        "secret_hash": client_secrets.hashed(made),
        "name": name,
        "items": list(catalogue.expand(items)),
        "purposes": list(dict.fromkeys(purposes)),
        "valid_from": now,
        "created_at": now,
        "valid_to": valid_to,
        "fields": {material: list(dict.fromkeys(named)) for material, named in (fields or {}).items()},
        "evidence_minutes": evidence_minutes,
        "deposits": list(dict.fromkeys(deposits)),
        "own_view": own_view,
        "rate": rate,
    }
    with database.engine().begin() as connection:
        for item in row["items"]:
            if item not in catalogue.published() and catalogue.listed(connection, item) is None:
                raise UsageError("item-unknown", item=catalogue.shown(item))
        if replace:
            former = sa.delete(schema.agreement).where(schema.agreement.c.client == client)
            row["created_at"] = connection.scalar(former.returning(schema.agreement.c.created_at)) or now
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


def of(connection: sa.Connection, client: str, *, held: bool = False) -> Agreement | None:
    """The agreement of ``client``, in force or not. ``held``: nobody ends it before the transaction does."""
    query = sa.select(*_COLUMNS).where(schema.agreement.c.client == client)
    row = connection.execute(query.with_for_update(read=True) if held else query).first()
    return _agreement(row) if row else None


def authenticate(engine: sa.Engine, client: str, secret: str) -> bool:
    """Whether ``secret`` is the client's. An unknown client takes as long as a wrong secret."""
    with engine.connect() as connection:  # given back before the slow part
        kept = connection.scalar(
            sa.select(schema.agreement.c.secret_hash).where(schema.agreement.c.client == client.replace("\0", ""))
        )
    return client_secrets.matches(secret, kept)


_COLUMNS = [column for column in schema.agreement.c if column.name != "secret_hash"]


def _agreement(row: sa.Row) -> Agreement:
    return Agreement(
        row.client, row.name, tuple(row._mapping["items"]), tuple(row.purposes), row.valid_from, row.valid_to,
        row.fields, row.evidence_minutes, tuple(row.deposits), row.own_view, row.rate, row.created_at,
    )  # fmt: skip


def _require_between(name: str, number: int, most: int) -> None:
    if not 1 <= number <= most:
        raise UsageError("agreement-number", name=name, most=most)
