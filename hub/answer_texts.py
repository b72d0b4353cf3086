"""What many answers say, and why, kept once: texts with marks where the certificates of one answer go.

The trace of an answer, and its words, are nearly always those of others but for keys of certificates, rows and last days. So a
text is kept under its digest, before the first answer that refers to it is given, and an answer keeps its own inputs alone: a mark
names the certificate among them by whose it is, its material and its place. Filled, it is what was decided and said, byte
for byte.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA

Part = bytes | int | tuple[int, ...] | str
"""JSON as it is; the key of the certificate at a place; the rows of those at the places; or a place (in digits) whose last day of
validity it is."""

# U+0001 as JSON writes it. What reads like it in a text itself becomes a mark too: then all of them are marks.
_END = rb"\u0001"
_ITSELF = rb"%bu%b" % (_END, _END)
_MARKS = re.compile(rb'"\\u0001r([^\\"]*)\\u0001"|\\u0001([kd])([^\\"]*)\\u0001|\\u0001u\\u0001')

# Written again on a day on which it is used, so that what nothing uses any more can go by its time. Those that are there
# already are not locked: another process may write the same.
KEEP = """
INSERT INTO answer_text (digest, text)
SELECT n.digest, n.text FROM unnest({digests}, {texts}) AS n (digest, text)
WHERE NOT EXISTS (
  SELECT FROM answer_text AS o WHERE o.digest = n.digest AND o.recorded_at > clock_timestamp() - interval '1 day')
ORDER BY n.digest ON CONFLICT (digest) DO UPDATE SET recorded_at = excluded.recorded_at
"""


@dataclass(slots=True, eq=False)
class Kept:
    """A text of answers."""

    text: bytes = field(repr=False)
    digest: bytes = b""

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256(self.text).digest()[:16]


def marked(parts: Sequence[Part], names: Sequence[str]) -> bytes:
    """JSON text with marks for its holes; ``names``: what the certificate at each place is called (:func:`name`)."""
    return b"".join([part.replace(_END, _ITSELF) if isinstance(part, bytes) else _mark(part, names) for part in parts])


def name(holder: str, material: str, place: int) -> str:
    """The certificate number ``place`` of a material of a party, in the order in which the inputs have them."""
    return f"{holder}/{material}/{place}"


def _mark(part: int | tuple[int, ...] | str, names: Sequence[str]) -> bytes:
    if isinstance(part, int):
        return rb"%bk%b%b" % (_END, names[part].encode(), _END)
    if isinstance(part, str):
        return rb"%bd%b%b" % (_END, names[int(part)].encode(), _END)
    return rb'"%br%b%b"' % (_END, ",".join(names[place] for place in part).encode(), _END)


def filled(text: str, known: Mapping[str, Iterable[Sequence[Any]]]) -> bytes:
    """``text`` with the certificates in place of its marks; ``known``: by role (key, shape, rows), as inputs keep them.

    What names none of them stays as it stands: it was said so, or the inputs were altered, which shows.
    """
    certificates: dict[str, tuple[str, Sequence[Any], Sequence[Sequence[Any]]]] = {}
    for holder, found in known.items():
        count: dict[str, int] = {}
        for key, shape, rows in found:
            place = count[shape[0]] = count.get(shape[0], -1) + 1
            certificates[name(holder, shape[0], place)] = key, shape, rows

    def certificate(mark: re.Match[bytes]) -> bytes:
        if mark[0] == _ITSELF:
            return _END
        if mark[2] is None:
            names = mark[1].decode().split(",") if mark[1] else []
            if not all(one in certificates for one in names):
                return mark[0]
            rows = sorted({tuple(row) for one in names for row in certificates[one][2]})
            return orjson.dumps([{"source": source, "file": file, "row": row} for source, file, row in rows])
        if (found := certificates.get(mark[3].decode())) is None:
            return mark[0]
        key, shape, _ = found
        return (key if mark[2] == b"k" else str(shape[4])).encode()

    return _MARKS.sub(certificate, text.encode())


def keep(connection: sa.Connection, texts: Iterable[Kept]) -> None:
    """Have ``texts`` in the store when the transaction ends."""
    once = {one.digest: one.text.decode() for one in texts}
    if once:
        connection.execute(_KEEPING, {"digests": list(once), "texts": list(once.values())})


def read(connection: sa.Connection, *digests: bytes) -> dict[bytes, str]:
    """Those of the texts under ``digests`` that are there, and still what was kept."""
    rows = connection.execute(_READ, {"digests": list(digests)})
    return {bytes(digest): text for digest, text in rows if Kept(text.encode()).digest == bytes(digest)}


def forget(connection: sa.Connection, day: dt.date) -> None:
    """Drop the texts that no answer from ``day`` on refers to: one that does was written again on its day or the one before,
    with a margin of a day between clocks."""
    connection.execute(
        sa.text("DELETE FROM answer_text WHERE recorded_at < cast(:day AS date) - interval '3 days'"), {"day": day}
    )


_ARRAYS: dict[str, Any] = {"digests": ARRAY(BYTEA), "texts": ARRAY(sa.Text)}
_KEEPING = sa.text(KEEP.format(digests=":digests", texts=":texts")).bindparams(
    *(sa.bindparam(name, type_=kind) for name, kind in _ARRAYS.items())
)
_READ = sa.text("SELECT digest, text FROM answer_text WHERE digest = ANY(:digests)").bindparams(
    sa.bindparam("digests", type_=_ARRAYS["digests"])
)
