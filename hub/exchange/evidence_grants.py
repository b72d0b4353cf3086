"""What an answer opens at partner hubs (docs/evidence.md): what it found there, and what it could not know.

The first goes by what the answer calls the certificate (``elsewhere``), the second by hub and material: where a material is in no
index, or the index was behind its promise. Either way for a party of the answer, whom the client has to name again: nobody here
keeps identifiers of whoever was asked about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from connectors.errors import UsageError
from hub import catalogue, evidence, home, index_keys, records
from hub.exchange.evidence import Consent
from hub.home import identifier_text
from hub.index_keys import SealedKey
from hub.knowledge import Shape
from mappings import scalars

UNSATISFIED = ("undetermined", "submit", "expired", "deferred")
UNSURE = ("untold", "late")  # a partner announced it, and whether it will do only its text says
UNKNOWN = ("missing", "expired", *UNSURE)


@dataclass(frozen=True)
class Wanted:
    """What a client asks for. ``ids``: whose it is, scheme:value, alone or by party of the answer. ``handle``: of what the answer
    found; without it ``hub`` and ``material``. ``fields``: columns to narrow it to."""

    ids: str | Mapping[str, str] = field(repr=False)
    handle: str | None = None
    hub: str | None = None
    material: str | None = None
    fields: Sequence[str] | None = None
    consent: Consent | None = None


@dataclass(frozen=True)
class Opening:
    """What may be asked, of which hub. ``key``: 16 bytes that stand for it in the table ``evidence``, once an answer; ``role``:
    what the party has to be in the certificate; ``told``: what the party is in it, as the index told it; ``region``: where it
    was announced."""

    hub: str
    material: str
    key: bytes
    scheme: str
    value: str = field(repr=False)
    subject: bytes
    handle: str | None = None
    epoch: str | None = None
    region: str | None = None
    role: str | None = None
    told: tuple[str, ...] = ()


def opening(connection: sa.Connection, answer: sa.Row[Any], wanted: Wanted) -> Opening:
    """What ``answer`` opens of what is ``wanted``.

    UsageError ``grant-not-for-holding``, ``grant-fact-missing``, ``grant-not-for-material``; ``holding-changed`` when the partner announces it otherwise
    by now; ``identifier-invalid``, ``evidence-not-party``.
    """
    inputs, rules = orjson.loads(answer.inputs), records.trace(connection, answer)["requirements"]
    if inputs["as_of"] is not None:  # about the past
        rules = []
    if wanted.handle is None:
        hub, material = wanted.hub or "", wanted.material or ""
        roles = {use["holder"] for rule in rules for use in _unsettled(rule, UNKNOWN) if use["material"] == material}
        if not roles or _tells(connection, answer, hub, material):
            raise UsageError("grant-not-for-material")
        holder, scheme, value, subject = _party(wanted.ids, inputs["parties"], roles)
        key = home.keyed_hash().of(f"asked\x1f{hub}\x1f{material}\x1f{subject.hex()}")
        role = _role(answer, material, holder)
        return Opening(hub, material, key, scheme, value, subject, role=role)
    roles = {use["holder"] for rule in rules for use in _found(rule) if wanted.handle in _entries(use)}
    known = (one for role in roles for one in inputs["known"].get(role, ()))
    shape = next((Shape(*shape) for key, shape, _ in known if key == wanted.handle), None)
    if shape is None or shape.hub is None or wanted.hub not in (None, shape.hub):
        raise evidence.refusal(rules, wanted.handle)
    _, scheme, value, subject = _party(wanted.ids, inputs["parties"], roles)
    _require_announced(connection, wanted.handle, shape)
    key = bytes.fromhex(wanted.handle)
    return Opening(
        shape.hub, shape.material, key, scheme, value, subject, wanted.handle, shape.epoch, region=shape.region,
        told=_told(connection, shape, key, subject, (scheme, value)),
    )  # fmt: skip


def _told(
    connection: sa.Connection, shape: Shape, handle: bytes, subject: bytes, identifier: tuple[str, str]
) -> tuple[str, ...]:
    """In which roles the index names the party."""
    bind = {"source": shape.source, "epoch": shape.epoch, "handle": handle}
    sealed = connection.scalar(_KEY, bind)
    if sealed is None:
        return ()
    key = SealedKey(shape.source, str(shape.epoch), bytes(sealed))
    known = index_keys.asked_as(home.current(), [key], {subject: identifier}, home.keyed_hash())
    return tuple(connection.scalars(_ROLES, {**bind, "known": list(known)}))


def _found(rule: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """What of a requirement is opened by handle: what counts for it, or might."""
    return [*evidence.counting(rule), *_unsettled(rule, UNSURE)]


def _unsettled(rule: Mapping[str, Any], states: Collection[str]) -> list[Mapping[str, Any]]:
    """What was found in one of ``states`` for a requirement that binds, and that nothing satisfies."""
    if rule["disposition"] not in UNSATISFIED or rule["reason"] == "fact-missing":
        return []
    return [use for option in rule["options"] for use in option if use["state"] in states]


def _entries(use: Mapping[str, Any]) -> list[str]:
    return [entry["entry"] for entry in use.get("entries", ())]


def _tells(connection: sa.Connection, answer: sa.Row[Any], hub: str, material: str) -> bool:
    """Whether the index of ``hub`` was about ``material``, of a whole province, when the answer was given, and in time: then its
    silence counts."""
    sources = records.sources(connection, answer) or ()
    return any(
        (one.hub, one.material) == (hub, material) and one.whole and not one.late(answer.asked_at) for one in sources
    )


def _party(
    ids: str | Mapping[str, str], parties: Mapping[str, Sequence[Any]], roles: Collection[str]
) -> tuple[str, str, str, bytes]:
    """The party in one of ``roles`` that ``ids`` names, and its identifier: scheme, value, keyed hash. All that are named have to
    be parties of the answer."""
    hashing = home.keyed_hash()
    found: dict[str, tuple[str, str, bytes]] = {}
    for role, text in ({"": ids} if isinstance(ids, str) else ids).items():
        parsed = scalars.parse(text)
        if parsed.verdict == "invalid" or parsed.scheme is None or not parsed.normalised:
            raise UsageError("identifier-invalid", who=catalogue.shown(role) or "id", reasons=parsed.reason or "-")
        digest = hashing.of(identifier_text(parsed.scheme, parsed.normalised))
        named = [party for party, (known, _) in parties.items() if known == digest.hex() and role in ("", party)]
        if not named:
            raise UsageError("evidence-not-party")
        found |= dict.fromkeys(named, (parsed.scheme, parsed.normalised, digest))
    party = next((party for party in found if party in roles), None)
    if party is None:
        raise UsageError("evidence-not-party")
    return party, *found[party]


def _role(answer: sa.Row[Any], material: str, holder: str) -> str | None:
    """What ``holder`` has to be in the certificate, where the item wants one role and no other."""
    item = next((one for one in catalogue.published().get(answer.item, ()) if one.version == answer.version), None)
    uses = (
        use for wanted in (item.requirements if item else ()) for option in wanted.options for use in option.materials
    )
    roles = {tuple(use.as_) for use in uses if (use.material, use.holder) == (material, holder)}
    only = roles.pop() if len(roles) == 1 else ()
    return only[0] if len(only) == 1 else None


def _require_announced(connection: sa.Connection, handle: str, shape: Shape) -> None:
    """That the partner announces the certificate as the answer found it. UsageError ``holding-changed``."""
    row = connection.execute(_ENTRY, {"source": shape.source, "handle": bytes.fromhex(handle)}).first()
    if row is None or tuple(row) != (shape.material, shape.status, shape.valid_from, shape.valid_to, shape.epoch):
        raise UsageError("holding-changed")


_KEY = sa.text("SELECT sealed FROM index_key WHERE source = :source AND epoch = :epoch")
_ROLES = sa.text("""
SELECT DISTINCT role FROM index_entry
WHERE source = :source AND handle = :handle AND recorded_to IS NULL AND identifier = ANY(CAST(:known AS bytea[])) ORDER BY role
""")
_ENTRY = sa.text("""
SELECT material, status, valid_from::text, valid_to::text, epoch FROM index_entry
WHERE source = :source AND handle = :handle AND recorded_to IS NULL LIMIT 1
""")
