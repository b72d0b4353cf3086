"""What the three hubs say after a schedule, beside what is true and beside each other."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.exchange_faults import lies, truth
from bench.exchange_faults.hubs import Hub
from bench.exchange_faults.truth import Register


@dataclass
class Account:
    """``lost``, ``twice``: index entries, evidence, corrections, decisions about agreements, records of messages. ``accepted``:
    lies. ``unrecorded``: refusals that do not stand in the ledger of who refused. ``why``: each of them in words."""

    lost: int = 0
    twice: int = 0
    accepted: int = 0
    unrecorded: int = 0
    why: list[str] = field(default_factory=list)

    def note(self, what: str, text: str, count: int = 1) -> None:
        if count:
            setattr(self, what, getattr(self, what) + count)
            self.why.append(f"{what} {count}: {text}")


# The index


def agreed_key(giver: Hub, named: str) -> tuple[str, bytes]:
    """The epoch that ``giver`` is in under an agreement, and the key of all its epochs."""
    from hub import index_keys
    from hub.home import Home

    row = giver.rows(_EPOCH, named=named)[0]
    return row.epoch, index_keys.unseal(Home(giver.home), bytes(row.sealed_key), f"agreement:{named}")


def index(account: Account, reader: Hub, giver: Hub, register: Register, named: str, when: str) -> None:
    """Whether ``reader`` keeps of ``giver``'s index exactly what follows from the register."""
    epoch, agreed = agreed_key(giver, named)
    expected = register.entries(epoch, agreed, reader.secret("pseudonym.key"))
    found = Counter("|".join(row) for row in reader.rows(_ENTRIES, source=truth.index(giver.name)))
    if truth.digest(expected) != truth.digest(found):
        beside(account, expected, found, f"in {reader.name}'s copy of {giver.name}'s index, {when}")


def beside(account: Account, expected: Counter[str], found: Counter[str], where: str) -> None:
    """Entries as they are beside those that should be: certificates that lack one or have another, that have one too many, that
    should be gone, and that were made up."""
    known, missing, beyond = (_handles(lines) for lines in (expected, expected - found, found - expected))
    more = beyond - missing
    false = more & {lies.FALSE}
    account.note("accepted", f"certificates that nobody holds {where}", len(false))
    account.note("lost", f"certificates {where}", len(missing))
    account.note("twice", f"certificates {where}", len(more & known))
    account.note("lost", f"withdrawals {where}", len(more - false - known))


def _handles(lines: Counter[str]) -> set[str]:
    return {line.partition("|")[0] for line in lines}


_EPOCH = """
SELECT epoch, sealed_key FROM exchange_agreement WHERE id = cast(:named AS uuid) AND epoch IS NOT NULL
ORDER BY epoch COLLATE "C" DESC LIMIT 1
"""
_ENTRIES = """
SELECT encode(handle, 'hex'), material, coalesce(region, ''), status, coalesce(valid_from::text, ''),
  coalesce(valid_to::text, ''), digest, role, encode(identifier, 'hex'), epoch
FROM index_entry WHERE source = :source AND recorded_to IS NULL
"""

# Evidence


@dataclass(frozen=True)
class Fetched:
    """One question for evidence under a case of its own. ``shown``: what came of it, where it came."""

    case: str
    asker: str
    owner: str
    holder: str
    digest: str | None = None
    shown: Mapping[str, Any] | None = None


def evidence(
    account: Account, hubs: Mapping[str, Hub], asked: Iterable[Fetched], history: Mapping[str, Sequence[Any]]
) -> None:
    """Given once where it was taken, at most once where it was not; and it is what the register said at some time."""
    rows: dict[str, list[Any]] = defaultdict(list)
    for name, hub in hubs.items():
        for row in hub.rows("SELECT \"case\", encode(digest, 'hex') AS digest, receiver, provider FROM evidence"):
            rows[f"{name} {row.case}"].append(row)
    for one in asked:
        given, taken = rows[f"{one.owner} {one.case}"], rows[f"{one.asker} {one.case}"]
        what = f"evidence for {one.case} from {one.owner} to {one.asker}"
        account.note("twice", f"given: {what}", max(0, len(given) - 1))
        account.note("twice", f"taken: {what}", max(0, len(taken) - 1))
        if one.digest is None:
            continue
        account.note("lost", f"taken, and not written down where it was given: {what}", 1 - min(1, len(given)))
        account.note("lost", f"taken, and not written down: {what}", 1 - min(1, len(taken)))
        if given and taken and {row.digest for row in given} != {one.digest}:
            account.note("lost", f"taken otherwise than given: {what}")
        if one.shown is not None and one.shown not in [_shown(version) for version in history[one.holder]]:
            account.note("accepted", f"what was never so: {what}")


def _shown(one: Any) -> dict[str, Any]:
    document = one.document()
    return {
        "certificate_number": document["certificate_number"],
        "name": document["name"],
        "status": document["status"],
        "valid_to": document["valid_to"],
        "holders": document["holders"],
        "attributes": document["attributes"],
    }


# Corrections and agreements


def corrections(account: Account, hubs: Mapping[str, Hub], fixed: Mapping[str, str]) -> None:
    """What one filed and the other took is the same, once. ``fixed``: id -> what the owner answered in this schedule."""
    filed: dict[str, Any] = {}
    owned: dict[str, Any] = {}
    for name, hub in hubs.items():
        for row in hub.rows(_CORRECTIONS):
            known = owned if row.owner else filed
            account.note("twice", f"correction {row.id}", int(row.id in known))
            known[row.id] = (name, row)
    for named, (name, row) in filed.items():
        there = owned.get(named)
        refused = row.state == "refused" and row.answered_by is None and fixed.get(named) != "refused"
        if refused:
            account.note("twice", f"correction {named}: refused, and taken", int(there is not None))
        elif there is None:
            account.note("lost", f"correction {named} of {name}, filed with {row.peer}")
        elif there[1].state != row.state or fixed.get(named, row.state) != row.state:
            account.note("lost", f"answer to correction {named}: {there[1].state}, at {name} {row.state}")
        elif fixed.get(named) == "corrected" and row.seen_at is None:
            account.note("lost", f"correction {named} of {name} came through the feed and was not seen")
    for named, (name, _) in owned.items():
        account.note("lost", f"correction {named} is at {name}, and not where it was filed", int(named not in filed))
    same = Counter(
        (name, row.peer, row.handle, row.field, row.state) for name, row in owned.values() if row.state == "filed"
    )
    account.note("twice", "corrections filed", sum(same.values()) - len(same))


_CORRECTIONS = """
SELECT id::text, peer, owner, state, seen_at, answered_by, encode(handle, 'hex') AS handle, field FROM correction
"""


def agreements(account: Account, hubs: Mapping[str, Hub], expected: Mapping[str, str]) -> None:
    """Both sides of each stand the same. ``expected``: agreement -> state, as it was decided."""
    sides: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for name, hub in hubs.items():
        for row in hub.rows(_AGREEMENTS):
            sides[row.reference].append((name, tuple(row)[1:]))
    for reference, told in sides.items():
        if len(told) != 2 or told[0][1] != told[1][1]:
            account.note("lost", f"agreement {reference}: {'; '.join(f'{name} {said}' for name, said in told)}")
    for reference, state in expected.items():
        for name, said in sides.get(reference, [("", ("missing",))]):
            if said[0] != state:
                account.note("lost", f"agreement {reference} is {said[0]} at {name}, decided was {state}")


_AGREEMENTS = """
SELECT id || '/' || version AS reference, state, array_to_string(suspended_by, ' '), array_to_string(ended_by, ' '),
  own_signature IS NOT NULL AND peer_signature IS NOT NULL
FROM exchange_agreement
"""

# Ledgers beside each other


@dataclass(frozen=True)
class Refusal:
    """One that somebody met: ``hub`` refused ``message`` with ``code``."""

    hub: str
    message: str | None
    code: str
    what: str


def ledgers(account: Account, hubs: Mapping[str, Hub], refusals: Iterable[Refusal]) -> int:
    """What one hub says it was answered stands in the ledger of the one that answered, carried out once; so does each refusal.
    Returns how many messages there were."""
    answered: dict[str, dict[str, Counter[str]]] = {}
    asked: list[tuple[str, Any]] = []
    for name, hub in hubs.items():
        rows = hub.rows(_RECORDS)
        answered[name] = defaultdict(Counter)
        for row in rows:
            if row.direction == "answered" and row.message:
                answered[name][row.message][row.outcome] += 1
            elif row.direction == "asked":
                asked.append((name, row))
        for message, outcomes in answered[name].items():
            account.note("twice", f"{name} carried out message {message}", max(0, outcomes["ok"] - 1))
    met = list(refusals)
    for name, row in asked:
        known = answered.get(row.peer, {}).get(row.message, Counter())
        status = _status(row.reply)
        if row.outcome == "ok":
            account.note(
                "lost",
                f"{row.peer} has no record of {row.kind} {row.message} of {name}, which it answered",
                int(not known["ok"]),
            )
        elif status not in (None, "ok") and row.outcome == status:
            met.append(Refusal(row.peer, row.message, status, f"{row.kind} of {name}"))
    for one in met:
        if one.message is None:
            there = hubs[one.hub].rows("SELECT 1 FROM exchange_record WHERE outcome = :code", code=one.code)
            recorded = bool(there)
        else:
            recorded = bool(answered[one.hub].get(one.message, Counter())[one.code])
        account.note("unrecorded", f"{one.hub} refused {one.what} with {one.code}", int(not recorded))
    return sum(len(known) for known in answered.values())


def _status(reply: str | None) -> str | None:
    """What a reply that was kept says, whoever signed it."""
    try:
        payload = (reply or "").split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))).get("status"))
    except (IndexError, ValueError):
        return None


def repeated(account: Account, owner: Hub, told: Mapping[str, Any], once: bool) -> None:
    """A message that came again was answered as it was the first time, or refused. ``once``: its reply has to be kept."""
    replies = [row.reply for row in owner.rows(_REPLIES, message=told["id"])]
    kept = {hashlib.sha256(reply.encode()).hexdigest() for reply in replies if reply}
    what = f"{told['kind']} {told['id']}, which came again to {owner.name}"
    if told["status"] == "ok":
        account.note("twice", f"{what} and was answered otherwise", int(told["reply"] not in kept))
    elif told["status"] == "message-repeated" and once:
        account.note("lost", f"the reply to {what}", int(bool(kept)))


_RECORDS = "SELECT peer, direction, message::text, kind, outcome, reply FROM exchange_record"
_REPLIES = "SELECT reply FROM exchange_record WHERE message = cast(:message AS uuid) AND outcome = 'ok' AND direction = 'answered'"
