"""What a hub does in a schedule, in a process of its own, by the code that its commands call; what came of it, as JSON."""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import datetime as dt
import json
import random
import tempfile
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import urllib3

from bench.exchange_faults import seams
from bench.exchange_faults.seams import Place
from bench.exchange_faults.truth import MATERIAL, REGIONS, index

CLIENT, PURPOSE, ITEM = "yici-cli", "handle-application", "demo-food-permit"
OVERLAP = dt.timedelta(minutes=25)  # of keys: the old ones sign for five minutes more
AHEAD = 6 * 60.0  # seconds after which the new ones do
COLUMNS = ["certificate_number", "name", "status", "valid_to", "holder.holder", "attributes.registered_on"]


def told(what: str, given: tuple[Any, ...], place: Place) -> dict[str, Any]:
    """Do it. An error that says what to do is clear; any other is not."""
    from connectors.errors import RetriableError, YiciError

    try:
        return {"ending": "done", "value": OPERATIONS[what](place, *given)}
    except YiciError as error:
        return {
            "ending": "error",
            "code": error.code,
            "told": str(error.values.get("code", "")),
            "passing": isinstance(error, RetriableError),
            "text": str(error)[:300],
        }
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
        where = f"{Path(last.filename).name}:{last.lineno}"
        traceback.print_exc()
        return {
            "ending": "error",
            "code": type(error).__name__,
            "clear": False,
            "text": f"{type(error).__name__} in {where}: {str(error)[:200]}",
        }


# Getting to know each other


def settle(place: Place) -> str:
    """A store of its own and a card."""
    from hub import database
    from hub.exchange import cards

    database.upgrade()
    cards.settle(title=f"Hub {place.name}", exchange_addresses=seams.address(place.name))
    return json.dumps(cards.own())


def know(place: Place, *others: str) -> None:
    """The cards of the others."""
    from hub import database
    from hub.exchange import peers

    with database.engine().begin() as connection:
        for card in others:
            peers.add(connection, card.encode(), replace=True)


# Reading


def read(place: Place, peer: str) -> dict[str, Any]:
    """A run of the source that reads the index of ``peer``."""
    from hub import pipeline

    done = pipeline.run(index(peer))
    return {name: done[name] for name in ("batch", "accepted", "quarantined", "rejected")}


def reconcile(place: Place, peer: str, heal: bool) -> list[dict[str, Any]]:
    """Under each agreement by which ``peer`` gives."""
    from hub.exchange import reconciliation

    return [result.shown() for named in giving(peer) for result in reconciliation.reconcile(peer, named, heal=heal)]


def giving(peer: str) -> list[uuid.UUID]:
    """The agreements in force by which ``peer`` announces its index to this hub."""
    from hub import database
    from hub.exchange import agreements

    with database.engine().connect() as connection:
        rows = agreements.every(connection, peer)
    return sorted(
        {row.id for row in rows if not row.provider and row.state == "in_force" and b'"index"' in bytes(row.document)}
    )


# Evidence


def evidence(place: Place, peer: str, holder: str, case: str, seconds: float) -> dict[str, Any]:
    """A lookup here for ``holder``, whose licence ``peer`` holds, and the evidence that its answer opens there."""
    from hub import answers, database
    from hub.exchange import evidence_asking
    from hub.exchange.evidence_grants import Wanted

    who, engine = f"cn.uscc:{holder}", database.engine()
    question = answers.Question((ITEM,), who, CLIENT, purpose=PURPOSE, case=case)
    [answer] = answers.ask(engine, question)
    [licence] = [one for one in answer["requirements"] if one["requirement"] == MATERIAL]
    elsewhere = [one for one in licence.get("elsewhere", ()) if one["hub"] == peer]
    if not elsewhere:
        return {"held": False, "disposition": licence["disposition"]}
    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    wanted = Wanted(who, elsewhere[0]["handle"])
    given = evidence_asking.fetch(engine, CLIENT, answer["answer"], wanted, until, operator=True)
    shown = json.loads(given.body)
    return {"held": True, "digest": given.digest.hex(), "certificate": shown["certificate"], "answer": answer["answer"]}


# Corrections


def correct(place: Place, peer: str, handle: str, said: str) -> dict[str, Any]:
    from hub.exchange import corrections
    from hub.exchange.correction_messages import Said

    made = corrections.file(peer, handle, "status", Said(expected=said, why=said), actor="rig")
    return {"id": str(made.id), "state": made.state, "told": made.told}


def answer_correction(place: Place, named: str, outcome: str) -> dict[str, Any]:
    from hub.exchange import corrections

    made = corrections.answer(uuid.UUID(named), outcome, "seen", actor="rig")
    return {"id": str(made.id), "state": made.state, "told": made.told}


# Agreements


def propose(place: Place, peer: str, named: str, modes: list[str]) -> dict[str, Any]:
    """An agreement under which this hub gives; ``named``: of which it is a new version, or empty."""
    from hub.exchange import agreement_acts

    said: dict[str, Any] = {
        "provider": place.name,
        "receiver": peer,
        "basis": {"zh": "《政务数据共享条例》第二十条", "en": "Regulations on Government Data Sharing, Art. 20"},
        "scenario": {"zh": "跨省通办", "en": "Services across provinces"},
        "materials": {MATERIAL: COLUMNS},
        "regions": [REGIONS[place.name][:2]],
        "modes": modes,
        "purposes": [PURPOSE],
        "valid_from": "2020-01-01T00:00:00Z",
        "valid_to": "2999-01-01T00:00:00Z",
        "consent": "none",
        "epoch_days": 366,
        "correction": True,
    }
    if named:
        said["id"] = named
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "agreement.yml"
        path.write_text(json.dumps(said), encoding="utf-8")  # JSON is YAML
        return _acted(agreement_acts.propose(peer, path, "rig"))


def act(place: Place, kind: str, named: str) -> dict[str, Any]:
    """``accept``, ``decline``, ``suspend``, ``resume`` or ``end``."""
    from hub.exchange import agreement_acts

    return _acted(getattr(agreement_acts, kind)(uuid.UUID(named), "rig"))


def _acted(done: Any) -> dict[str, Any]:
    return {"agreement": done.agreement, "state": done.state, "confirmed": done.problem is None}


def renew(place: Place, named: str) -> str:
    """A new epoch of the index that this hub gives under an agreement."""
    from hub.exchange import epochs

    return epochs.renew(uuid.UUID(named), dt.datetime.now(dt.UTC))


# What goes on beside, at once


def tell(place: Place) -> list[str]:
    """Tell others all that they have not taken yet; what is still untold."""
    from hub import database
    from hub.exchange import agreement_acts, corrections, upkeep

    left = [f"card to {peer}: {code}" for peer, code in upkeep.introduce().items() if code != "ok"]
    left += [f"agreement {named}: {error.code}" for named, error in agreement_acts.tell_all().items() if error]
    left += [f"correction {named}: {code}" for named, code in corrections.tell_all().items() if code != "ok"]
    with database.engine().connect() as connection:
        resting = connection.scalars(sa.text(_UNTOLD)).all()
    return left + [f"agreement {named}: untold" for named in resting]


def rotate(place: Place) -> dict[str, str]:
    """New keys, and what each peer says to them."""
    from hub.exchange import keys, upkeep

    keys.rotate(OVERLAP)
    return upkeep.introduce()


def check(place: Place) -> dict[str, Any]:
    """What ``yici ledger verify`` finds, once everything has its place, peers asked for what they witnessed."""
    from hub import database
    from hub.exchange import ledger, ledger_verify

    ledger.chain(database.engine())
    return ledger_verify.verify(database.engine()).shown()


# A network that repeats


def repeat(place: Place, seed: str, most: int) -> list[dict[str, Any]]:
    """Some of what this hub has sent, as it was, in another order; what each was answered. Most of it must not happen twice."""
    from connectors import envelope
    from connectors.errors import FatalError
    from hub import database
    from hub.exchange import keys, kinds, peers

    rng, told = random.Random(seed), []
    now = dt.datetime.now(dt.UTC)
    with database.engine().connect() as connection:
        known = {peer.name: peers.pems(peer, now) for peer in peers.every(connection)}
    kept, once = seams.kept(place), kinds.register()
    rng.shuffle(kept)
    kept.sort(key=lambda one: once[envelope.read(one[1]).envelope.kind].once + rng.random(), reverse=True)
    for peer, wire in kept[:most]:
        try:
            answer = seams.again(
                peer, seams.address(peer), keys.own().certificate(now), known[peer], wire, seams.SECONDS
            )
            told.append(seams.said_of(peer, wire, answer))
        except (urllib3.exceptions.HTTPError, OSError, FatalError):
            continue
    rng.shuffle(told)
    return told


def lie(place: Place, name: str, peer: str, seed: str, facts: dict[str, Any]) -> dict[str, Any]:
    """A message of this hub to ``peer`` that is a lie (:mod:`bench.exchange_faults.lies`)."""
    from bench.exchange_faults import lies_told

    return lies_told.told(place, name, peer, seed, facts)


OPERATIONS: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (
        settle,
        know,
        read,
        reconcile,
        evidence,
        correct,
        answer_correction,
        propose,
        act,
        renew,
        tell,
        rotate,
        check,
        repeat,
        lie,
    )
}
_UNTOLD = "SELECT id::text FROM exchange_agreement WHERE untold <> '[]'"
