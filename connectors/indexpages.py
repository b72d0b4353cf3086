"""Landed pages of a partner hub's index feed (docs/protocol.md) → blocks.

What lands is the signed page and nothing else, so whoever reads it again can verify it again: the partner's public key is
in the connection. A page whose signature or frame is wrong is refused whole, and one with a status or a subject that the
protocol does not have: an announcement not understood must not leave the one before in force. An entry that is no object
is one malformed row.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from joserfc.jwk import OKPKey

from connectors import connections, signature
from connectors.block import MALFORMED, ROW, Block, table_schema
from connectors.connections import Connection
from connectors.errors import FatalError
from connectors.landing import LandedFile, Landing
from connectors.source import HubOptions, Source

COLUMNS = ("handle", "material", "region", "status", "valid_from", "valid_to", "digest", "recorded_at", "position",
           "epoch", "hub", "subjects")  # fmt: skip

STATUSES = ("in_force", "suspended", "revoked", "expired", "cancelled", "withdrawn")

Position = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]


class Page(msgspec.Struct, frozen=True):
    """The frame of a page; ``entries`` still as JSON. Further members are for later versions and left alone.

    ``restated``: outside the order of the feed, what is announced now under handles that were named: no page to read on from.
    """

    protocol: str
    hub: Name
    region: Annotated[str, msgspec.Meta(pattern=r"^[1-9]\d{5}$")]
    peer: Name
    epoch: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z][0-9A-Za-z.:_+-]{0,79}$")]
    after: Position
    to: Position
    head: Position
    more: bool
    issued_at: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    entries: msgspec.Raw
    materials: tuple[Name, ...] = ()
    regions: tuple[Name, ...] = ()
    restated: bool = False


@dataclass(frozen=True)
class Terms:
    """What a connection says of the partner: its keys (several while it changes them), its name, our name there."""

    keys: tuple[OKPKey, ...]
    hub: str
    peer: str


_page = msgspec.json.Decoder(Page)


def terms(connection: Connection) -> Terms:
    """FatalError ``index-connection-incomplete`` names what the connection lacks or holds in a wrong form."""
    given = connection.extra.get("public_key")
    texts: Sequence[object] = given if isinstance(given, list) else [given]
    try:
        keys = tuple(signature.public_key(str(text or "")) for text in texts)
    except ValueError:
        raise FatalError("index-connection-incomplete", connection=connection.name, what="public_key") from None
    hub = connection.extra.get("hub")
    for what, value in (("public_key", keys), ("hub", hub), ("username", connection.username)):
        if not value:
            raise FatalError("index-connection-incomplete", connection=connection.name, what=what)
    return Terms(keys, str(hub), str(connection.username))


def opened(body: bytes, agreed: Terms, name: str) -> Page:
    """The page in ``body``, its signature verified, from the agreed hub for us.

    FatalError ``index-signature``, ``index-key-unknown``, ``index-page-form`` or ``index-page-foreign``.
    """
    payload = signature.verify(body, agreed.keys, name)
    try:
        payload.decode()
        page = _page.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FatalError("index-page-form", file=name) from None
    for what, found, expected in (
        ("protocol", page.protocol, signature.PROTOCOL),
        ("hub", page.hub, agreed.hub),
        ("peer", page.peer, agreed.peer),
    ):
        if found != expected:
            raise FatalError("index-page-foreign", file=name, what=what, expected=expected)
    if not all(region.startswith(prefix(page.region)) for region in page.regions):
        raise FatalError("index-page-foreign", file=name, what="regions", expected=page.region)
    if bytes(page.entries)[:1] != b"[":
        raise FatalError("index-page-form", file=name)
    return page


def prefix(region: str) -> str:
    """What all division codes within ``region`` (six digits) begin with: 330000 is 33, 330100 is 3301 (GB/T 2260)."""
    return re.sub(r"(00)+$", "", region)


def block(page: Page, name: str) -> Block:
    """The entries of a page, one row each, numbered from 1. FatalError ``index-page-form``."""
    with duckdb.connect(config={"threads": 1}) as engine:
        entries = {"entries": bytes(page.entries).decode()}
        try:
            rows = engine.sql(_ROWS, params={**entries, "epoch": page.epoch, "hub": page.hub}).to_arrow_table()
            lost = engine.sql(_LOST, params=entries).to_arrow_table()
            strange = engine.sql(_STRANGE, params={**entries, "statuses": list(STATUSES)}).to_arrow_table()
        except duckdb.Error:  # half a surrogate pair, nesting without end; its message may quote the entry
            raise FatalError("index-page-form", file=name) from None
    if strange.num_rows:
        raise FatalError("index-page-form", file=name)
    return Block(rows.cast(table_schema(COLUMNS)).combine_chunks(), lost.cast(MALFORMED).combine_chunks())


def blocks(source: Source, landed: LandedFile, landing: Landing) -> Iterator[Block]:
    """The announcements of one landed page; columns :data:`COLUMNS`, ``subjects`` as ``role:id role:id``.

    Verified again against the connection of ``source``: FatalError as :func:`opened`, or ``index-connection-missing``.
    """
    assert isinstance(source.options, HubOptions)
    try:
        connection = connections.resolve(source.connection)
    except FatalError as error:
        if error.code != "connection-missing":
            raise
        values = {**error.values, "file_searched": error.values["file"], "file": landed.name}
        raise FatalError("index-connection-missing", **values) from None
    with landing.open(landed) as stream:
        body = stream.read(source.options.page_bytes + 1)
        if len(body) > source.options.page_bytes:
            raise FatalError("index-page-form", file=landed.name)
        stream.read(1)  # the end is where the landing zone finds an altered file
    yield block(opened(body, terms(connection), landed.name), landed.name)


def positions(rows: Block) -> pa.Array:
    """The readable positions of a block, int64."""
    texts = rows.table["position"].combine_chunks()
    readable = pc.fill_null(pc.match_substring_regex(texts, r"^\d{1,18}$"), False)
    return texts.filter(readable).cast(pa.int64())


# One entry a row, in order. A NUL character can be stored nowhere downstream: such an entry is malformed.
_ENTRIES = """
WITH listed AS (SELECT unnest(from_json($entries, '["JSON"]')) AS entry, generate_subscripts(from_json($entries, '["JSON"]'), 1) AS place),
judged AS (
  SELECT entry, place, CASE WHEN json_type(entry) IS DISTINCT FROM 'OBJECT' THEN 'not-an-object'
    WHEN contains(entry::varchar, '\\u0000') THEN 'nul-character' END AS reason
  FROM listed
)
"""
_FORM = """{"handle": "VARCHAR", "material": "VARCHAR", "region": "VARCHAR", "status": "VARCHAR", "valid_from": "VARCHAR",
  "valid_to": "VARCHAR", "digest": "VARCHAR", "recorded_at": "VARCHAR", "position": "VARCHAR",
  "subjects": [{"role": "VARCHAR", "id": "VARCHAR"}]}"""
_READ = f"""{_ENTRIES},
read AS (SELECT place, json_transform(entry, '{_FORM}') AS e FROM judged WHERE reason IS NULL)
"""
_ROWS = f"""{_READ}
SELECT e.handle, e.material, e.region, e.status, e.valid_from, e.valid_to, e.digest, e.recorded_at, e.position,
  $epoch AS epoch, $hub AS hub,
  array_to_string(list_transform(e.subjects, lambda s: coalesce(s.role, '') || ':' || coalesce(s.id, '')), ' ') AS subjects,
  place AS {ROW}
FROM read ORDER BY place
"""
_LOST = f"""{_ENTRIES}
SELECT place AS {ROW}, encode(coalesce(entry::varchar, 'null')) AS raw, reason FROM judged WHERE reason IS NOT NULL ORDER BY place
"""
# Subjects are flattened into one text, and a colon or a space in one would make another subject of it.
_STRANGE = f"""{_READ}
SELECT 1 FROM read WHERE NOT coalesce(list_contains($statuses, e.status), false) OR len(list_filter(e.subjects, lambda s:
  NOT coalesce(regexp_full_match(s.role, '[a-z][a-z0-9_]*') AND regexp_full_match(s.id, '[0-9a-f]{{32}}'), false))) > 0
LIMIT 1
"""
