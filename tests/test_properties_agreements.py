"""Whatever two hubs decide, in whatever order, with messages lost, late or twice: neither admits what is not signed and in force.

The oracle reads the documents as JSON and knows what operators decided and which messages were carried out; it shares no
code with :mod:`hub.exchange.agreements`.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, currently_in_test_context, event, given, settings
from hypothesis import strategies as st

from connectors import envelope
from connectors.errors import RetriableError, YiciError
from hub.exchange import agreement_acts, agreements
from hub.home import Home
from tests.twohubs import Hub, Pair, pair

START = dt.datetime(2027, 3, 1, 8, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
MATERIALS = ("business-licence", "household-register", "marriage-certificate")
NAMES = ("zj", "sh")


@pytest.fixture(scope="module")
def made(server_home: Home, template: str) -> Iterator[Pair]:
    with pair(server_home, template, NAMES) as hubs:
        yield hubs


FIELDS = st.sampled_from([["status"], ["name", "status"], "*"])
CHANGES = st.fixed_dictionaries(
    {
        "materials": st.fixed_dictionaries(
            {"business-licence": FIELDS}, optional={"household-register": FIELDS, "marriage-certificate": FIELDS}
        ),
        "modes": st.sampled_from([["evidence"], ["share"], ["index", "evidence"], ["index", "evidence", "share"]]),
        "regions": st.sampled_from([["33"], ["3301"], ["3301", "3302"]]),
        "purposes": st.sampled_from([["handle-application"], ["handle-application", "verify"]]),
        "valid_from": st.integers(0, 2).map(lambda n: (START + n * MINUTE).isoformat()),
        "valid_to": st.integers(3, 5).map(lambda n: (START + n * MINUTE).isoformat()),
    }
)
FATES = st.sampled_from(["arrives"] * 6 + ["lost", "reply lost", "late", "twice"])
WORDS = ("agreement.suspend", "agreement.resume", "agreement.end")
ACTS = ("propose", "accept", "accept", "decline", "suspend", "suspend", "resume", "end", "tell", "late")
STEPS = st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(NAMES), FATES, CHANGES), min_size=4, max_size=14)
QUESTIONS = st.lists(
    st.fixed_dictionaries(
        {
            "mode": st.sampled_from(["index", "evidence", "evidence", "share", None]),
            "purpose": st.sampled_from(["handle-application", "handle-application", "verify", None]),
            "materials": st.sampled_from([[], ["business-licence"], ["household-register"], ["marriage-certificate"]]),
            "fields": st.sampled_from([None, None, ["status"], ["name"], ["valid_to"], ["*"]]),
            "region": st.sampled_from([None, None, "330106", "330206", "320100"]),
            "now": st.sampled_from([-1, 0, 1, 2, 2, 3, 4, 5]).map(lambda n: START + n * MINUTE),
        }
    ),
    min_size=6,
    max_size=6,
)


# What every agreement of these plays allows while it is in force.
PLAIN = {"mode": None, "purpose": None, "materials": [], "fields": None, "region": None, "now": START + 2 * MINUTE}


@dataclass
class Side:
    """What one hub can know. ``heard``: when each hub said the last word that this one heard, its own at once; ``wanted``: when
    it last wanted the end."""

    suspended: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(NAMES, False))
    ended: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(NAMES, False))
    heard: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, ""))
    wanted: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, ""))
    signed: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, ""))
    begun: list[int] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    over: bool = False

    def word(self, kind: str, hub: str, at: str) -> None:
        if not self.begun or at <= self.heard[hub] or (kind == "agreement.end" and at <= self.signed[hub]):
            return
        self.heard[hub] = at
        if kind == "agreement.resume":
            self.suspended[hub] = self.ended[hub] = False
        elif kind == "agreement.suspend":
            self.suspended[hub] = True
        else:
            self.ended[hub], self.wanted[hub] = True, at
        if all(self.ended.values()):
            self.end()

    def begin(self, version: int, signed: dict[str, str]) -> None:
        """Who signs a version after it wanted the end wants the end no more."""
        if version not in self.begun:
            self.begun.append(version)
            self.signed = signed
            self.ended = {hub: self.ended[hub] and self.wanted[hub] > signed[hub] for hub in NAMES}
            self.over = False
            if all(self.ended.values()):
                self.end()

    def end(self) -> None:
        """What was in force is gone for good; a later version may come."""
        self.over = True
        self.gone.update(self.begun)

    def concluded(self, own: str) -> None:
        """The other says that it has ended."""
        if self.wanted[own] > self.signed[own]:
            self.end()


class Play:
    """One agreement between the two, and what is known to have happened."""

    def __init__(self, hubs: Pair) -> None:
        hubs.forget()
        self.hubs, self.named = hubs, None
        self.sides = {name: Side() for name in NAMES}
        self.documents: dict[int, set[bytes]] = {}
        self.proposed: dict[tuple[int, str], bytes] = {}
        self.accepted: set[tuple[int, str]] = set()
        self.signed: dict[int, dict[str, str]] = {}
        self.late: list[Callable[[], bytes]] = []
        hubs.fate = self.carried
        self.fate = "arrives"

    named: uuid.UUID | None

    def carried(self, to: Hub, message: bytes, carry: Callable[[], bytes]) -> bytes:
        told = envelope.read(message)
        kind, sender, body = told.envelope.kind, told.envelope.sender, json.loads(told.body)
        if kind == "agreement.propose":
            self.signed.setdefault(json.loads(body["document"])["version"], {})[sender] = body["at"]
        elif kind == "agreement.accept":
            self.signed.setdefault(int(body["agreement"].partition("/")[2]), {})[sender] = body["at"]
        elif kind in WORDS:
            self.sides[sender].word(kind, sender, body["at"])  # it counts here before anybody hears it

        def done(returns: bool) -> bytes:
            reply = carry()
            self.heard(to.name, told, envelope.read(reply), returns)
            return reply

        if self.fate == "lost":
            raise RetriableError("partner-away", peer=to.name, reason="lost")
        if self.fate == "late":
            self.late.append(lambda: done(False))
            raise RetriableError("partner-away", peer=to.name, reason="late")
        reply = done(self.fate != "reply lost")
        if self.fate == "twice":
            again = carry()
            status = envelope.read(reply).envelope.status
            assert again == reply if status == "ok" else envelope.read(again).envelope.status == status
        if self.fate == "reply lost":
            raise RetriableError("partner-away", peer=to.name, reason="reply lost")
        return reply

    def heard(self, at: str, told: envelope.Message, reply: envelope.Message, returns: bool) -> None:
        """What ``at`` now knows, and whoever asked where the reply ``returns``."""
        kind, sender = told.envelope.kind, told.envelope.sender
        body, status = json.loads(told.body), reply.envelope.status
        if kind == "agreement.accept":
            version = int(body["agreement"].partition("/")[2])
            if status == "ok":
                self.sides[at].begin(version, self.signed[version])
            if returns and status in ("ok", "agreement-accepted"):
                self.sides[sender].begin(version, self.signed[version])
        elif kind in WORDS and status == "ok":
            version = int(body["agreement"].partition("/")[2])
            if (version, at) in self.accepted and version not in self.sides[at].gone:
                self.sides[at].begin(version, self.signed[version])
            self.sides[at].word(kind, sender, body["at"])
            if returns and json.loads(reply.body)["state"] == "ended":
                self.sides[sender].concluded(sender)
        elif kind == "agreement.decline" and status == "ok":
            self.sides[at].gone.add(int(body["agreement"].partition("/")[2]))

    def step(self, what: str, name: str, fate: str, changes: dict[str, Any]) -> None:
        hub = self.hubs.hubs[name]
        self.fate = fate
        self.hubs.rested()
        try:
            if what == "late":
                if self.late:
                    self.late.pop(0)()
            elif what == "propose":
                self.propose(hub, changes)
            elif self.named is not None:
                with hub.acting():
                    self.act(what, hub)
        except YiciError as error:
            note(f"{what}: {error.values.get('code', error.code)}")

    def propose(self, hub: Hub, changes: dict[str, Any]) -> None:
        other = self.hubs.hubs[NAMES[1 - NAMES.index(hub.name)]]
        if self.named is not None:
            changes = {**changes, "id": str(self.named)}
            if not self.hubs.rows(hub, self.named):
                return
        before = {row.version for row in self.hubs.rows(hub, self.named)} if self.named else set()
        try:
            done = self.hubs.propose(hub, other, **changes)
            self.named = uuid.UUID(done.agreement.partition("/")[0])
        finally:
            for row in self.hubs.rows(hub, self.named) if self.named else []:
                if row.version not in before:
                    self.proposed[row.version, hub.name] = bytes(row.document)

    def act(self, what: str, hub: Hub) -> None:
        assert self.named is not None
        side = self.sides[hub.name]
        if what == "tell":
            agreement_acts.tell(self.named)
        elif what in ("accept", "decline"):
            rows = self.hubs.rows(hub, self.named)
            if what == "accept" and rows:
                self.accepted.add((rows[0].version, hub.name))
            getattr(agreement_acts, what)(self.named, "t")
            if what == "decline":
                side.gone.add(rows[0].version)
        else:
            try:
                getattr(agreement_acts, what)(self.named, "t")
            finally:  # it counts on this side, whether or not a message ever leaves
                for row in reversed(self.hubs.rows(hub, self.named)):
                    for entry in row.history:
                        if entry["hub"] == hub.name and entry["kind"] == f"agreement.{what}":
                            side.word(entry["kind"], hub.name, entry["at"])

    def allowed(self, name: str, version: int, asked: dict[str, Any]) -> bool:
        """Whether ``name`` may do this: read off the text that both signed."""
        side, other = self.sides[name], NAMES[1 - NAMES.index(name)]
        texts = [
            self.proposed[version, by]
            for by, to in ((name, other), (other, name))
            if (version, by) in self.proposed and (version, to) in self.accepted
        ]
        if version not in side.begun or version in side.gone or side.over or any(side.suspended.values()):
            return False
        said = next(json.loads(text) for text in texts)
        start, end = (dt.datetime.fromisoformat(said[key]) for key in ("valid_from", "valid_to"))
        later = [each for each in side.begun if each > version]
        for each in later:
            [text] = {text for (number, _), text in self.proposed.items() if number == each}
            end = min(end, max(start, dt.datetime.fromisoformat(json.loads(text)["valid_from"])))
        if not start <= asked["now"] < end:
            return False
        mode, purpose, fields = asked["mode"], asked["purpose"], asked["fields"]
        if mode is not None and mode not in said["modes"]:
            return False
        if (mode == "evidence" and purpose is None) or (purpose is not None and purpose not in said["purposes"]):
            return False
        if asked["region"] and not any(asked["region"].startswith(prefix) for prefix in said["regions"]):
            return False
        for material in asked["materials"]:
            given = said["materials"].get(material)
            if given is None or (mode == "index" and material == "marriage-certificate"):
                return False
            if fields and (mode == "index" or not (given == "*" or set(fields) <= set(given))):
                return False
        return True

    def versions(self) -> range:
        """Those there are, and one more."""
        return range(1, 2 + max((version for version, _ in self.proposed), default=0))

    def admitted(self, name: str, version: int, asked: dict[str, Any]) -> bool:
        hub, other = self.hubs.hubs[name], NAMES[1 - NAMES.index(name)]
        with hub.acting() as engine, engine.connect() as connection:
            try:
                agreements.admit(connection, other, f"{self.named}/{version}", provider=name == "zj", **asked)
            except YiciError as error:
                note(error.code)
                return False
        return True


def note(text: str) -> None:
    """For hypothesis' statistics."""
    if currently_in_test_context():
        event(text)


# How a play begins, before what is drawn: by whoever proposes (0) or the other (1).
OPENINGS = (
    (),
    (("propose", 0, "arrives"), ("accept", 1, "arrives")),
    (("propose", 0, "arrives"), ("accept", 1, "reply lost"), ("suspend", 0, "arrives")),
    (
        ("propose", 0, "arrives"),
        ("accept", 1, "arrives"),
        ("suspend", 1, "arrives"),
        ("resume", 1, "late"),
        ("suspend", 1, "arrives"),
        ("late", 1, "arrives"),
    ),
    (("propose", 0, "arrives"), ("accept", 1, "arrives"), ("propose", 1, "lost"), ("propose", 0, "lost")),
    (
        ("propose", 0, "arrives"),
        ("accept", 1, "arrives"),
        ("end", 1, "lost"),
        ("end", 0, "reply lost"),
        ("resume", 0, "arrives"),
    ),
    (
        ("propose", 0, "arrives"),
        ("accept", 1, "arrives"),
        ("end", 1, "lost"),
        ("end", 0, "arrives"),
        ("propose", 0, "arrives"),
        ("accept", 1, "arrives"),
    ),
    (("propose", 0, "arrives"), ("accept", 1, "arrives"), ("propose", 1, "arrives"), ("accept", 0, "arrives")),
)


@pytest.mark.parametrize("opening", range(1, len(OPENINGS)))
def test_what_is_hard_by_itself(made: Pair, opening: int) -> None:
    changes = {
        "materials": {"business-licence": ["status"]}, "modes": ["evidence"], "regions": ["33"],
        "purposes": ["verify"], "valid_from": START.isoformat(), "valid_to": (START + 3 * MINUTE).isoformat(),
    }  # fmt: skip
    later = {**changes, "valid_from": (START + MINUTE).isoformat()}
    questions = [{**PLAIN, "now": START + n * MINUTE} for n in range(-1, 5)]
    play_all(made, opening, [("", "zj", "", changes), ("late", "zj", "arrives", later)], questions)


def whole(examples: int) -> Callable[..., Any]:
    """The settings of a test that plays so many."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@whole(25)
@given(opening=st.integers(0, len(OPENINGS) - 1), steps=STEPS, questions=QUESTIONS)
def test_neither_side_admits_what_is_not_signed_and_in_force(
    made: Pair, opening: int, steps: list[Any], questions: list[dict[str, Any]]
) -> None:
    play_all(made, opening, steps, questions)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@whole(200)
@given(opening=st.integers(0, len(OPENINGS) - 1), steps=STEPS, questions=QUESTIONS)
def test_neither_side_does_at_length(
    made: Pair, opening: int, steps: list[Any], questions: list[dict[str, Any]]
) -> None:
    play_all(made, opening, steps, questions)


def play_all(made: Pair, opening: int, steps: list[Any], questions: list[dict[str, Any]]) -> None:
    play = Play(made)
    _, first, _, changes = steps[0]
    names = first, NAMES[1 - NAMES.index(first)]
    begun = [
        (what, names[who], fate, changes if place < 2 else steps[1][3])
        for place, (what, who, fate) in enumerate(OPENINGS[opening])
    ]
    steps = [*begun, *steps[1 if begun else 0 :]]
    for number, step in enumerate(steps):
        play.step(*step)
        if play.named is None:
            continue
        for name in NAMES:
            for version in play.versions():
                for asked in (PLAIN, questions[(number + version) % len(questions)]):
                    told = play.admitted(name, version, asked)
                    assert told == play.allowed(name, version, asked), (step, name, version, asked)
                    note(f"allowed: {told}")
    # Once all is told, late messages included, both sides say the same.
    play.fate = "arrives"
    while play.late:
        play.late.pop(0)()
    for name in NAMES * 2:
        made.rested()
        with made.hubs[name].acting():
            agreement_acts.tell_all()
    if play.named is None:
        return
    for version in play.versions():
        for asked in (PLAIN, *questions):
            found = {play.admitted(name, version, asked) for name in NAMES}
            assert len(found) == 1 and found == {play.allowed(name, version, asked) for name in NAMES}
    note(f"begun: {len(play.sides['zj'].begun)} versions")
    assert all(not row.untold for name in NAMES for row in made.rows(made.hubs[name], play.named))
    documents = [
        {
            row.version: bytes(row.document)
            for row in made.rows(made.hubs[name], play.named)
            if row.state in agreements.LIVE
        }
        for name in NAMES
    ]
    assert documents[0] == documents[1]


def test_the_oracle_allows_something(made: Pair) -> None:
    play = Play(made)
    changes = {
        "materials": {"business-licence": ["status"]}, "modes": ["evidence"], "regions": ["33"],
        "purposes": ["verify"], "valid_from": START.isoformat(), "valid_to": (START + MINUTE).isoformat(),
    }  # fmt: skip
    play.step("propose", "zj", "arrives", changes)
    asked = {
        "mode": "evidence", "purpose": "verify", "materials": ["business-licence"], "fields": ["status"],
        "region": "330106", "now": START,
    }  # fmt: skip
    assert not play.allowed("sh", 1, asked)
    play.step("accept", "sh", "arrives", changes)
    assert all(play.allowed(name, 1, asked) and play.admitted(name, 1, asked) for name in NAMES)
    assert orjson.loads(play.proposed[1, "zj"])["purposes"] == ["verify"]
