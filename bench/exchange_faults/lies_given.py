"""Lies that a hub gives when it is asked: put into its listener."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

from bench.exchange_faults.lies import FALSE, GIVEN
from bench.exchange_faults.truth import MATERIAL


def install(name: str) -> Callable[[], None]:
    """Put the lie ``name`` into the listener of the hub that lies."""

    def lying() -> None:
        from hub.exchange import service

        sealed = service._sealed

        def lied(message: Any, status: str, body: bytes, kind: str, head: Any) -> Any:
            asked = message.envelope
            if status == "ok" and asked.kind in _ABOUT[name]:
                return _lie(name, sealed, message, body, kind, head)
            return sealed(message, status, body, kind, head)

        service._sealed = lied

    return lying


_PAGE, _DIGESTS, _RESTATED, _EVIDENCE = "index.page", "reconcile.digests", "reconcile.records", "evidence.request"
_ABOUT: dict[str, tuple[str, ...]] = {
    name: {
        "read": (_PAGE,),
        "reconcile": (_DIGESTS,),
        "heal": (_DIGESTS, _RESTATED),
        "evidence": (_EVIDENCE,),
    }[lie.during]
    for name, lie in GIVEN.items()
}


def _lie(name: str, sealed: Callable[..., Any], message: Any, body: bytes, kind: str, head: Any) -> Any:
    match name:
        case "page-altered" | "evidence-altered":
            reply = sealed(message, "ok", body, kind, head)
            return dataclasses.replace(reply, body=reply.body[:-1] + b"!")
        case "page-signature":
            reply = sealed(message, "ok", body, kind, head)
            parts = reply.sealed.split(".")
            return dataclasses.replace(reply, sealed=".".join((parts[0], parts[1], parts[2][::-1])))
        case "page-replayed":  # the answer to another question
            from hub import records

            told = message.envelope
            other = dataclasses.replace(message, envelope=_changed(told, id=records.key(dt.datetime.now(dt.UTC))))
            return sealed(other, "ok", body, kind, head)
        case "reply-stale":
            reply = sealed(message, "ok", body, kind, head)
            return _resigned(reply, at=reply.envelope.at + dt.timedelta(minutes=11))
        case "evidence-of-another":
            said = json.loads(body)
            said["holding"] = FALSE
            return sealed(message, "ok", json.dumps(said).encode(), kind, head)
        case "digests-false" | "restated-false" if message.envelope.kind == _DIGESTS:
            said = json.loads(body)
            said["parts"] = [[part, count, FALSE] for part, count, _ in said["parts"]]
            return sealed(message, "ok", json.dumps(said).encode(), kind, head)
        case "digests-moved":  # what has moved is counted by neither side
            said = json.loads(body)
            if said.get("head") is not None:  # of one that gives
                most = said["head"] - said["until"]
                said |= {"parts": [], "moved": [f"{number:032x}" for number in range(most + 1)]}
            return sealed(message, "ok", json.dumps(said).encode(), kind, head)
        case "digests-malformed":
            said = json.loads(body)
            said["parts"] = [["abcdef", 1, FALSE], *said["parts"]]
            return sealed(message, "ok", json.dumps(said).encode(), kind, head)
        case "restated-false":  # a certificate that nobody asked about
            return sealed(message, "ok", body + _entry(body, FALSE), kind, head)
    return sealed(message, "ok", _page(name, body), kind, head)


def _page(name: str, body: bytes) -> bytes:
    """A page that says what it must not."""
    first, header, lines = body.split(b"\n", 2)
    frame = json.loads(first)
    match name:
        case "page-form":
            lines = _entry(body, FALSE).replace(b",in_force,", b",granted,") + lines
        case "page-order":
            lines = _entry(body, FALSE, position=frame["head"] + 7)
        case "page-head-back":
            frame["head"] = max(0, frame["after"] - 1)
            frame["more"] = False
        case "page-beyond":
            frame["regions"] = ["99"]
        case "page-beyond-agreement":
            frame["materials"] = [*frame["materials"], "birth-certificate"]
        case "page-epoch-back":
            frame["epoch"] = "20000101T000000Z-00000000"
        case "page-of-another-region":
            free = frame["after"] + 1  # where a certificate has changed again since
            if not lines or free < int(lines.split(b"\n", 1)[0].split(b",")[8]):
                lines = _entry(body, FALSE, position=free, region="999999") + lines
    return b"\n".join((json.dumps(frame).encode(), header, lines))


def _entry(body: bytes, handle: str, *, position: int | None = None, region: str = "") -> bytes:
    """One more announcement, of nothing that there is."""
    frame = json.loads(body.partition(b"\n")[0])
    place = frame["to"] if position is None else position
    where = region or frame["regions"][0].ljust(6, "0")
    at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return f"{handle},{MATERIAL},{where},in_force,2015-01-01,,{FALSE},{at},{place},holder:{FALSE}\n".encode()


def _changed(told: Any, **members: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(told, **members)


def _resigned(reply: Any, **members: Any) -> Any:
    from connectors import envelope
    from hub.exchange import keys

    told = _changed(reply.envelope, **members)
    return envelope.signed(told, reply.body, keys.own().signing(dt.datetime.now(dt.UTC)))
