"""What the two hubs of the demo do with each other beyond the index: evidence fetched for a case, whole tables read by the stock
Delta Sharing client, and whether both hold the same and can prove what they said.

What Zhejiang does it does by its own commands, in its own home (:meth:`demo.neighbour.Neighbour.begin`).
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from connectors import envelope
from connectors.errors import FatalError
from demo import neighbour_runs
from demo.neighbour import NAME, Neighbour, reported
from demo.questions import Intake, Question
from hub import database, services
from hub.exchange import checking, ledger_verify, ledger_view, peers, reconciliation
from hub.home import Home, replace_json

HERE = "sh"
PROFILE = f"{NAME}.share"
OFFERED = {"business-licence": ["certificate_number", "name", "status", "valid_to", "holder.holder",
                                "attributes.registered_on"]}  # fmt: skip
LEAST = dt.timedelta(days=1)  # that a profile has to be good for to be kept
Asked = Sequence[tuple[Question, Mapping[str, Any]]]


def offer(here: Home, second: Neighbour) -> str:
    """An agreement in force under which Shanghai gives Zhejiang a table, a few columns of it; its reference. Kept as that of
    :meth:`Neighbour.agree`."""
    path = here.path / "offered.json"
    replace_json(path, neighbour_runs.terms(HERE, NAME, here.identity("region") or "", OFFERED, ["share"]))
    return second.agreed(path, provider=True)


def fetch(intake: Intake, asked: Asked) -> dict[str, Any] | None:
    """Evidence of the first certificate that an answer found at a partner hub, verified with that hub's key; None where none did."""
    found = (
        (question, answer["answer"], entry)
        for question, answer in asked
        for requirement in answer["requirements"]
        if requirement["disposition"] == "held_elsewhere"
        for entry in requirement["elsewhere"]
    )
    chosen = next(found, None)
    if chosen is None:
        return None
    question, answer, entry = chosen
    body, sealed = intake.evidence_elsewhere(entry["handle"], answer, question.party(entry["holder"]))
    _verify(entry["hub"], sealed, body)
    given = orjson.loads(body)
    return {
        "hub": entry["hub"],
        "material": given["material"],
        "fields": given["fields"],
        "case": given["given"]["case"],
        "item": question.item,
        "answer": answer,
        "handle": entry["handle"],
        "message": given["given"]["answer"],
    }


def _verify(hub: str, sealed: str, body: bytes) -> None:
    """As any intake system can: FatalError ``message-signature``, ``message-altered``."""
    message = envelope.read(sealed.encode() + b"\n" + body)
    with database.engine().connect() as connection:
        peer = peers.of(connection, hub)
    envelope.verify(message, peers.keys_at(peer, message.envelope.at), hub)
    if not message.intact:
        raise FatalError("message-altered", peer=hub)


def profile(here: Home, second: Neighbour, agreement: str) -> Path:
    """The profile with which Shanghai's people read Zhejiang's tables, in a file of theirs alone; made once, and again where it is
    nearly over."""
    path, endpoint = here.path / PROFILE, f"{second.api.address}/delta"
    if not _good(path, endpoint, agreement):
        made = reported(second.begin("share", "profile", agreement.partition("/")[0], "--endpoint", endpoint))
        replace_json(path, {**made, "agreement": agreement})
    return path


def _good(path: Path, endpoint: str, agreement: str) -> bool:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        until = dt.datetime.fromisoformat(known["expirationTime"])
        same = (known["endpoint"], known["agreement"]) == (endpoint, agreement)
    except (FileNotFoundError, ValueError, KeyError):
        return False
    return same and until - dt.datetime.now(dt.UTC) > LEAST


def read(here: Home, profile: Path) -> subprocess.Popen[str]:
    """Begin to read all tables with the stock client (:mod:`demo.share_reader`), for :func:`reported`."""
    variables = services.environment(here, {"NO_PROXY": services.HOST, "no_proxy": services.HOST})
    command = [sys.executable, "-m", "demo.share_reader", str(profile)]
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def compared(published: Sequence[Mapping[str, Any]], read: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By table the rows that were published and those that the stock client read, at which version, of which columns."""
    return [
        {
            "table": one["material"],
            "version": one["version"],
            "published": one["rows"],
            **{name: read.get(one["material"], {}).get(name) for name in ("rows", "columns")},
        }
        for one in published
    ]


def proved(second: Neighbour, evidence: Mapping[str, Any] | None) -> dict[str, Any]:
    """Whether both hold the same (对账), reach each other, and kept their ledgers as they were written; with what each wrote
    down of the evidence."""
    message = evidence["message"] if evidence else None
    there = {
        "checks": second.begin("peer", "check", HERE),
        "ledgers": second.begin("ledger", "verify"),
        **({"records": second.begin("ledger", "show", message)} if message else {}),
    }
    [reconciled] = [result.shown() for result in reconciliation.reconcile(NAME)]
    steps = [asdict(step) for step in checking.steps(NAME)]
    here: dict[str, Any] = {
        "checks": {"peer": NAME, "ok": all(step["ok"] for step in steps), "steps": steps},
        "ledgers": ledger_verify.verify().shown(),
    }
    if message:
        with database.engine().connect() as connection:
            here["records"] = ledger_view.shown(connection, message)
    told = {name: reported(process) for name, process in there.items()}
    return {"reconciled": reconciled, **{name: {HERE: here[name], NAME: told[name]} for name in here}}


def right(found: Mapping[str, Any]) -> bool:
    """Whether all of it is as it should be."""
    return bool(
        found["evidence"]
        and found["reconciled"]["equal"]
        and all(one["ok"] for name in ("checks", "ledgers") for one in found[name].values())
        and found["tables"]
        and all(one["published"] == one["rows"] for one in found["tables"])
    )
