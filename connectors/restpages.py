"""What both kinds of paging share: how a page is taken apart, and how a moment is written in a question."""

from __future__ import annotations

import codecs
import datetime as dt
import hashlib

import msgspec

from connectors.department import Again, Department
from connectors.errors import RetriableError
from connectors.fetched import Cursor
from connectors.source import RestOptions, Source

Question = dict[str, str | int]

_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw])


def options_of(source: Source) -> RestOptions:
    assert isinstance(source.options, RestOptions)
    return source.options


def parts(source: Source, body: bytes) -> dict[str, msgspec.Raw]:
    """The keys of a page. ``Again`` when the body is no JSON object: a gateway's page, an answer that was cut."""
    try:
        return _envelope.decode(body.removeprefix(codecs.BOM_UTF8))  # some servers send the mark although JSON has none
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = "rest-html" if body.lstrip()[:1] == b"<" else "rest-not-json"
        raise Again(RetriableError(code, source=source.name, path=options_of(source).path)) from None


def digest(records: msgspec.Raw) -> str:
    """Tells pages apart; the records of a page asked for again come in the same bytes."""
    return hashlib.sha256(bytes(records)).hexdigest()


def clock(department: Department) -> dt.datetime:
    """The server's own clock when it gave out the token; ours when it has none."""
    return (department.clock or dt.datetime.now(dt.UTC)).replace(microsecond=0)


def since(source: Source, cursor: Cursor) -> str:
    """The moment from which to ask: what was being written at the last reading may have become visible after it."""
    return written(dt.datetime.fromisoformat(cursor["watermark"]) - options_of(source).overlap)


def written(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
