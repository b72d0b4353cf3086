"""What people decide about deposits, carried out: verified ones are held, rejected ones are not, nor any more.

A decision is landed and recorded before it takes effect; then the deposits it is about run through the pipeline as rows of
their own source (:mod:`hub.deposit_sources`). Cut off between the two, the same command finishes it.
"""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.errors import UsageError
from connectors.landing import Landing
from connectors.messages import Language
from hub import batches, database, decisions, deposit_sources, deposits, failures, home, pipeline
from hub.decisions import Landed
from hub.deposit_sources import ID, REJECTED, TIME, column
from mappings import model
from mappings.model import Material

VERIFY, REJECT = "verify-deposit", "reject-deposit"
KINDS = {VERIFY: "verified", REJECT: "rejected"}
FROM = {VERIFY: ("waiting", "verified"), REJECT: ("waiting", "verified", "rejected")}


@failures.named
def decide(
    kind: str, named: Iterable[str], *, actor: str, note: str = "", lang: Language = "en"
) -> list[dict[str, Any]]:
    """Carry out :data:`VERIFY` or :data:`REJECT` on deposits, by id; returns them as they are then, in order, told in ``lang``.

    UsageError ``deposits-none``, ``deposit-unknown``, or ``deposit-state`` when one was rejected already, with nothing done.
    """
    wanted = list(dict.fromkeys(named))
    if not wanted:
        raise UsageError("deposits-none")
    with database.engine().begin() as connection:
        rows = [deposits.get(connection, one) for one in wanted]
        connection.execute(
            sa.text("SELECT FROM deposit WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"),
            {"ids": [row.id for row in rows]},
        )
        rows = [deposits.get(connection, one) for one in wanted]  # as they are now that nobody else decides
        for row in rows:
            if row.state not in FROM[kind]:
                raise UsageError("deposit-state", deposit=str(row.id), state=row.state)
        if due := [str(row.id) for row in rows if row.state != KINDS[kind]]:
            landed = decisions.record_deposits(connection, kind, due, actor=actor, note=note)
            _mark(connection, landed)
    ids = [row.id for row in rows]
    _carry_out(ids)
    with database.engine().connect() as connection:
        return [deposits.shown(deposits.get(connection, str(one)), lang) for one in ids]


def replay(decision: Landed) -> None:
    """A decision of the landing zone, in a store made anew; the merges that followed it are in the journal."""
    content = decision.content
    with database.engine().begin() as connection:
        decisions.record_deposits(
            connection, content["kind"], content["deposits"], actor=content["actor"], note=content["note"]
        )
        _mark(connection, decision)


def restore(landing: Landing) -> None:
    """Before decisions are done again: the deposits they are about, and the folders their sources are described in."""
    deposit_sources.write_all()
    with database.engine().begin() as connection:
        deposits.restore(connection, landing)


def _mark(connection: sa.Connection, landed: Landed) -> None:
    content = landed.content
    connection.execute(
        sa.text(
            """UPDATE deposit SET state = :state, decided_at = :at, decided_by = :actor, note = :note
            WHERE id = ANY(cast(:ids AS uuid[]))"""
        ),
        {
            "state": KINDS[content["kind"]],
            "at": landed.decided_at,
            "actor": content["actor"],
            "note": content["note"] or None,
            "ids": content["deposits"],
        },
    )


def _carry_out(ids: list[uuid.UUID]) -> None:
    """Run what was decided and the ledger has not yet, each material as one small delivery."""
    with database.engine().connect() as connection:
        rows = connection.execute(sa.text(_DUE), {"ids": ids}).all()
    by_material: dict[str, list[Any]] = {}
    for row in rows:
        by_material.setdefault(row.material, []).append(row)
    for code, due in by_material.items():
        material = model.load(code)
        deposit_sources.write(material)
        lines = b"".join(
            orjson.dumps(_line(material, orjson.loads(row.document), row.state, row.decided_at)) + b"\n" for row in due
        )
        home.current().create()
        descriptor, path = tempfile.mkstemp(suffix=".jsonl", prefix="deposits-", dir=home.current().work)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(lines)
            pipeline.run(deposit_sources.name(code), input=Path(path))
        finally:
            Path(path).unlink()


def _line(material: Material, document: Mapping[str, Any], state: str, decided_at: dt.datetime) -> dict[str, Any]:
    """A deposit as a row of its source. Rejected after it was held, the row is taken back: what others say of the certificate
    stands."""
    said = dict(document["envelope"])
    said["status"] = "in_force" if state == "verified" else REJECTED
    if material.volatile:  # what was handed in is never heard of again: it counts for as long as a register may be late
        last = (decided_at.astimezone(batches.CHINA).date() + material.freshness).isoformat()
        said["valid_to"] = min(said.get("valid_to", last), last)
    for role, holder in document["holders"].items():
        said |= {f"holder.{role}.{part}": holder[part] for part in ("scheme", "value", "name")}
    for name, value in document["attributes"].items():
        money = isinstance(value, Mapping)
        said[f"attributes.{name}"] = f"{value['amount']}({value['currency']})" if money else value
    return {
        ID: document["deposit"],
        **{column(name): value for name, value in said.items()},
        TIME: decided_at.isoformat(),
    }


_DUE = f"""
SELECT d.* FROM deposit AS d {deposits.LEDGER}
WHERE d.id = ANY(:ids) AND (
  (d.state = 'verified' OR l.row_key IS NOT NULL) AND l.updated_at IS DISTINCT FROM d.decided_at
  OR d.state = 'rejected' AND l.holding IS NOT NULL)
ORDER BY d.id
"""
