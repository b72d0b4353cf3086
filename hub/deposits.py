"""Deposits: what applicants hand in because an answer asked for it. Landed first, then recorded; held once verified.

The bytes lie in the landing zone, addressed by what they are; beside them, as JSON, what was said of them. The table
``deposit`` is made of those documents and can be made of them again (:func:`restore`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from connectors import messages
from connectors.errors import UsageError
from connectors.messages import Language
from hub import agreements, catalogue, deposit_sources, handed_in, home, media, pdf_signatures, predicates, records
from hub.agreements import Agreement
from hub.handed_in import Handed
from hub.home import identifier_text
from hub.pdf_signatures import Checked
from hub.schema_evidence import deposit
from mappings import model

if TYPE_CHECKING:
    from connectors.landing import Landing

FOLDER = "deposits"  # of the landing zone
LARGEST = 10 * 1024 * 1024  # bytes of a file
CHUNK = 1 << 20
OF_ANOTHER = "certificate-of-another"  # a later or stronger word on the same certificate names others
OTHER_WORD = "other-word-counts"  # it names the same, and says less than the deposit


def receive(
    engine: sa.Engine,
    agreement: Agreement,
    key: str,
    handed: Handed,
    file: IO[bytes],
    media_type: str,
    lang: Language = "en",
) -> tuple[dict[str, Any], bool]:
    """The deposit as :func:`shown`, and whether it is new. ``file``: on disk, of a size that was bounded.

    ``key``: the same one brings the same deposit again, UsageError ``idempotency-conflict`` with anything else.
    UsageError ``deposit-not-agreed``, ``answer-unknown``, ``item-not-agreed``, ``purpose-not-agreed``, ``answer-outdated`` (it was given
    under an agreement of before: what is new needs an answer of this one), ``file-mislabelled``, and those of
    :func:`hub.handed_in.said`.
    """
    now = dt.datetime.now(dt.UTC)
    _require_agreed(agreement, handed.material)
    with engine.connect() as connection:
        answer = records.found(connection, handed.answer)
        if not agreement.given(answer.client, answer.asked_at) or answer.inputs is None:
            raise UsageError("answer-unknown")
        agreement.admit([answer.item], answer.purpose, now)
        rules = records.trace(connection, answer)["requirements"]
        said = handed_in.said(model.load(handed.material), handed, answer, rules)
        kind = media.sniffed(file)
        if kind is None or kind != media_type:
            raise UsageError("file-mislabelled", known=", ".join(media.KINDS))
        digest = _digest(file)
        content = hashlib.sha256(orjson.dumps([said, digest, str(answer.id)], option=orjson.OPT_SORT_KEYS)).digest()
        if known := _known(connection, agreement.client, key, content, lang):
            return known, False
    if answer.asked_at < agreement.valid_from:
        raise UsageError("answer-outdated")
    checked = _signatures(file) if kind == media.PDF else Checked("unchecked", [])
    with engine.begin() as connection:
        # One at a time for a key: what is landed for it is what is recorded.
        connection.execute(_LOCK, {"name": f"yici-deposit {agreement.client} {key}"})
        if known := _known(connection, agreement.client, key, content, lang):
            return known, False
        # A body may take minutes to come: an end of the agreement meanwhile counts.
        current = agreements.of(connection, agreement.client, held=True)
        if (
            current is None
            or current.valid_from != agreement.valid_from
            or not current.in_force(dt.datetime.now(dt.UTC))
        ):
            raise UsageError("agreement-ended")
        from connectors.landing import Landing

        landing = Landing(home.current().landing_url)
        landed = landing.put(file, digest, FOLDER)
        id_ = _id(agreement.client, key)
        document = {
            "deposit": str(id_),
            "received_at": now.isoformat(),
            "client": agreement.client,
            "key": key,
            "content": content.hex(),
            "answer": str(answer.id),
            "purpose": answer.purpose,
            "case": answer.case,
            "item": answer.item,
            **said,
            "file": {"path": landed.path, "digest": landed.digest, "size": landed.size, "media_type": kind},
            "signature": checked.verdict,
            "signatures": checked.signatures,
        }
        path = f"{FOLDER}/{now:%Y-%m}/{id_}.json"
        landing.zone.write(path, orjson.dumps(document, option=orjson.OPT_INDENT_2))
        connection.execute(sa.insert(deposit).values(_row(document, path)))
        return shown(_one(connection, id_), lang), True


def of_client(connection: sa.Connection, agreement: Agreement, named: str, lang: Language = "en") -> dict[str, Any]:
    """A deposit as :func:`shown` to the client it came through, as long as its ``agreement`` names what it is about.

    UsageError ``deposit-unknown``, ``item-not-agreed``, ``purpose-not-agreed``, ``deposit-not-agreed``.
    """
    row = get(connection, named)
    if not agreement.given(row.client, row.received_at):
        raise UsageError("deposit-unknown")
    agreement.admit([row.item], row.purpose, dt.datetime.now(dt.UTC))
    _require_agreed(agreement, row.material)
    return shown(row, lang)


def _require_agreed(agreement: Agreement, material: str) -> None:
    if material not in agreement.deposits:
        raise UsageError("deposit-not-agreed", material=catalogue.shown(material),
                         known=", ".join(agreement.deposits) or "-")  # fmt: skip


def get(connection: sa.Connection, named: str) -> sa.Row[Any]:
    """The row of a deposit with what became of it. UsageError ``deposit-unknown``."""
    try:
        row = _one(connection, uuid.UUID(named))
    except ValueError:
        row = None
    if row is None:
        raise UsageError("deposit-unknown")
    return row


def shown(row: Any, lang: Language = "en") -> dict[str, Any]:
    """A deposit without what it says. ``state``: ``waiting``; ``verified`` and not yet held, or kept back by the gate
    (``reasons``), or merged into a certificate of somebody else (:data:`OF_ANOTHER`); ``held``, with its ``holding``;
    ``overruled`` where another source's word on the same certificate counts and falls short of the deposit's: ``overruled`` says
    whose, as of when and in what, and in ``lang`` what to do; ``rejected``."""
    return {
        "deposit": str(row.id),
        "state": row.standing,
        "material": row.material,
        "answer": str(row.answer),
        "case": row.case,
        "received_at": row.received_at.astimezone(dt.UTC).isoformat(),
        "decided_at": row.decided_at.astimezone(dt.UTC).isoformat() if row.decided_at else None,
        "file": {"sha256": row.file_digest, "size": row.file_size, "media_type": row.media_type},
        "signature": row.signature,
        "holding": row.holding.hex() if row.standing == "held" else None,
        "reasons": list(row.reasons or ()),
        "overruled": _overruled(row, lang) if row.standing == "overruled" else None,
    }


def _overruled(row: Any, lang: Language) -> dict[str, Any]:
    """Values of the envelope alone: what attributes say goes by the agreement on evidence."""
    source, own = row.counts_source, deposit_sources.name(row.material)
    owner = deposit_sources.owners().get(source)
    at = row.counts_at.astimezone(dt.UTC).isoformat()
    fields = ("、" if lang == "zh" else ", ").join(one["field"] for one in row.short)
    return {
        "source": source,
        "owner": getattr(owner, lang) if owner else None,
        "as_of": at,
        "fields": row.short,
        "advice": messages.text(
            "deposit-overruled-deposit" if source == own else "deposit-overruled",
            lang, owner=getattr(owner, lang) if owner else source, source=source, at=at, fields=fields,
        ),
    }  # fmt: skip


def listed(connection: sa.Connection, state: str | None = None, limit: int = 50) -> list[sa.Row[Any]]:
    """Deposits, the oldest first; ``state`` as :func:`shown` tells it."""
    text = f"SELECT * FROM ({query()}) AS s WHERE CAST(:state AS text) IS NULL OR standing = :state ORDER BY received_at LIMIT :limit"
    return list(connection.execute(sa.text(text), {"state": state, "limit": limit}))


def told(row: Any) -> dict[str, Any]:
    """What a deposit says, who decided of it and what its signatures are worth: for those who verify it."""
    document = orjson.loads(row.document)
    return {
        **{name: document[name] for name in ("holders", "envelope", "attributes")},
        "client": row.client,
        "purpose": row.purpose,
        "item": row.item,
        "signatures": row.signatures,
        "decided_by": row.decided_by,
        "note": row.note,
    }


def write_file(row: Any, path: Path) -> None:
    """The scan, its bytes compared with what was landed, as a new file for this user alone. UsageError
    ``deposit-file-exists``."""
    from connectors.landing import LandedFile, Landing

    landed = LandedFile(row.file_digest, str(row.id), row.file_size, row.file)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError("deposit-file-exists", path=str(path)) from None
    with os.fdopen(descriptor, "wb") as copy, Landing(home.current().landing_url).open(landed) as stream:
        shutil.copyfileobj(stream, copy, CHUNK)


def restore(connection: sa.Connection, landing: Landing) -> int:
    """Write the rows of the documents that lie in ``landing`` and have none; returns how many. What was decided of them is
    in the decisions."""
    known = {str(one) for one in connection.scalars(sa.select(deposit.c.id))}
    found: dict[str, dict[str, Any]] = {}
    for month in landing.zone.names(FOLDER):
        for name in landing.zone.names(f"{FOLDER}/{month}"):
            if name.endswith(".json") and name.removesuffix(".json") not in known:
                path = f"{FOLDER}/{month}/{name}"
                # Cut off in one month and repeated in the next: the later one is what was recorded.
                found[name] = _row(orjson.loads(landing.zone.read(path)), path)
    if found:
        connection.execute(insert(deposit).on_conflict_do_nothing(), list(found.values()))
    return len(found)


def _id(client: str, key: str) -> uuid.UUID:
    """The same for the same key, so that an attempt that was cut off leaves nothing that its repetition does not replace
    (RFC 9562, version 8)."""
    number = int.from_bytes(hashlib.sha256(f"{client}\0{key}".encode()).digest()[:16], "big")
    return uuid.UUID(int=number & ~(0xF000 << 64 | 0xC000 << 48) | 0x8000 << 64 | 0x8000 << 48)


def _row(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    hashing, file = home.keyed_hash(), document["file"]
    return {
        "id": uuid.UUID(document["deposit"]),
        "received_at": dt.datetime.fromisoformat(document["received_at"]),
        **{name: document[name] for name in ("client", "key", "purpose", "case", "item", "material", "signature", "signatures")},
        "content": bytes.fromhex(document["content"]),
        "answer": uuid.UUID(document["answer"]),
        "holders": [hashing.of(identifier_text(one["scheme"], one["value"])) for one in document["holders"].values()],
        "document": orjson.dumps(document).decode(),
        "landed": path,
        "file": file["path"],
        "file_digest": file["digest"],
        "file_size": file["size"],
        "media_type": file["media_type"],
        "state": "waiting",
    }  # fmt: skip


def _known(connection: sa.Connection, client: str, key: str, content: bytes, lang: Language) -> dict[str, Any] | None:
    row = _one(connection, _id(client, key))
    if row is None:
        return None
    if row.content != content:
        raise UsageError("idempotency-conflict")
    return shown(row, lang)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while part := file.read(CHUNK):
        digest.update(part)
    file.seek(0)
    return digest.hexdigest()


def _signatures(file: IO[bytes]) -> Checked:
    return pdf_signatures.check(file, home.current().path / pdf_signatures.TRUST)


def _one(connection: sa.Connection, id_: uuid.UUID) -> Any:
    return connection.execute(sa.text(f"{query()} WHERE d.id = :id"), {"id": id_}).first()


_LOCK = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 9))")
# A deposit's row in the ledger of its source (hub/deposit_sources.py): keyed by its id as every row is (hub/digests.py).
LEDGER = """LEFT JOIN row_ledger AS l ON l.source = 'hub-deposits-' || d.material
  AND l.row_key = md5(chr(31) || '36:' || upper(d.id::text))::uuid"""
# The holding that the row was merged into names one of those whom the deposit names, under this or another of their numbers.
_CARRIED = """EXISTS (SELECT FROM holding_holder AS w WHERE w.holding = l.holding AND w.identifier = ANY(ARRAY(
    SELECT unnest(d.holders)
    UNION
    SELECT m.identifier FROM identity_member AS k JOIN identity_member AS m USING (component, cluster)
    WHERE k.identifier = ANY(d.holders))))"""
# What counts of the certificate, where it is another row's word, falls short of what the deposit says: then an answer may ask for it
# again. ``counts`` and ``said``: the two words, of the envelope alone. A deposit that names no end may have one for all anybody knows.
_SHORT = """LEFT JOIN LATERAL (
    SELECT h.source, h.updated_at, jsonb_agg(jsonb_build_object('field', f.name, 'counts', f.counts, 'deposit', f.said)) AS short
    FROM holding AS h JOIN mapped_row AS c ON c.holding = h.key AND c.id = h.mapped
      JOIN mapped_row AS s ON s.holding = l.holding AND s.id = l.mapped
      CROSS JOIN LATERAL (SELECT c.document\\:\\:jsonb AS c, s.document\\:\\:jsonb AS s, (now() AT TIME ZONE 'Asia/Shanghai')\\:\\:date\\:\\:text AS today) AS j
      CROSS JOIN LATERAL (
        SELECT e.name, j.c ->> e.name AS counts, j.s ->> e.name AS said FROM (VALUES
          ('status', coalesce(j.c ->> 'status', 'in_force') <> coalesce(j.s ->> 'status', 'in_force')),
          ('issued_on', j.c ->> 'issued_on' < j.s ->> 'issued_on'),
          ('valid_from', j.c ->> 'valid_from' > greatest(j.s ->> 'valid_from', j.today)),
          ('valid_to', j.c ->> 'valid_to' < coalesce(j.s ->> 'valid_to', j.today)),
          ('region', left(j.c ->> 'region', 2) <> left(j.s ->> 'region', 2))) AS e (name, short)
        WHERE e.short
        UNION ALL
        SELECT 'attributes.' || t.name, NULL, NULL FROM (VALUES {tested}) AS t (material, name)
        WHERE t.material = d.material AND j.s -> 'attributes' -> t.name IS NOT NULL
          AND j.c -> 'attributes' -> t.name IS DISTINCT FROM j.s -> 'attributes' -> t.name) AS f
    WHERE h.key = l.holding AND (h.source, h.row_key) <> (l.source, l.row_key)
    GROUP BY h.source, h.updated_at) AS w ON d.state = 'verified'"""


def query() -> str:
    """Deposits ``d`` with what became of them; :func:`shown` tells what ``standing`` is. Of attributes those count that
    requirements look at."""
    tested = {(material, one.attribute) for material, wanted in predicates.wanted().items() for one in wanted}
    values = ", ".join(f"('{material}', '{name}')" for material, name in sorted(tested)) or "('', '')"
    return f"""
SELECT d.*, l.holding, w.source AS counts_source, w.updated_at AS counts_at, w.short,
  CASE WHEN d.state <> 'verified' OR l.holding IS NULL OR NOT {_CARRIED} THEN d.state
    WHEN w.source IS NOT NULL THEN 'overruled' ELSE 'held' END AS standing,
  CASE WHEN d.state = 'verified' AND l.holding IS NOT NULL AND NOT {_CARRIED} THEN ARRAY['{OF_ANOTHER}']
    WHEN d.state = 'verified' AND w.source IS NOT NULL THEN ARRAY['{OTHER_WORD}'] ELSE
  (SELECT q.reasons FROM quarantine AS q WHERE q.source = l.source AND q.original_key = l.row_key AND q.state = 'open'
   ORDER BY q.id DESC LIMIT 1) END AS reasons
FROM deposit AS d {LEDGER} {_SHORT.replace("{tested}", values)}
"""
