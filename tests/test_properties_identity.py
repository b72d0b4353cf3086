"""Who is whom, as people decide while rows and cards come and go: what hypothesis thinks of.

Links that say of one end what contradicts the other, merges of up to four, splits out of them. Whatever was done, clusters are
what the rule says of what is in force, every member says of itself what its number says, and the decisions as they were landed
lead to the same again: in their order, before everything else, and as versions before landed them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectors.errors import UsageError
from connectors.landing import Landing
from hub import decisions, home, identity_claims, identity_decisions, rebuild, verify
from hub.decisions import Landed
from hub.home import Home
from tests import linked
from tests.clustering import BORN_1970, BORN_1980, NAMES, A, B, C, Decided, card, expected, name, said
from tests.linked import Card, Said

Act = tuple[str, Any]
DECIDE = {"merge": identity_decisions.merge, "split": identity_decisions.split}


@pytest.fixture(scope="module")
def engine(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    yield from linked.store(server_home, tmp_path_factory.mktemp("identity"))


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as opened:
        yield opened
        opened.rollback()


def of(least: int, most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(name, min_size=least, max_size=most, unique=True)


act = st.one_of(
    st.tuples(st.just("link"), said),
    st.tuples(st.just("gone"), said),
    st.tuples(st.just("card"), card),
    st.tuples(st.just("lost"), card),
    st.tuples(st.just("merge"), of(1, 4)),
    st.tuples(st.just("merge"), of(3, 3)),
    st.tuples(st.just("split"), of(1, 2)),
    st.tuples(st.just("split"), of(1, 1)),
)
FAR = Said(A, BORN_1980, "1980-05-23", "男")
CONTRADICTED = [("merge", [BORN_1970, A]), ("link", FAR)]
LEFT = [("merge", [BORN_1970, A, B]), ("split", [B]), ("card", Card(BORN_1970, "1970-01-31", "男")), ("link", FAR),
        ("link", Said(C, BORN_1970))]  # fmt: skip
LIMITS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@given(st.lists(act, min_size=4, max_size=10))
@example(CONTRADICTED)
@example(CONTRADICTED[::-1])
@example(LEFT)
@settings(max_examples=6, **LIMITS)
def test_clusters_are_what_is_in_force_says(connection: sa.Connection, acts: list[Act]) -> None:
    check(connection, acts)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(3000)
@given(st.lists(act, min_size=4, max_size=14))
@settings(max_examples=200, **LIMITS)
def test_clusters_are_what_is_in_force_says_of_much(connection: sa.Connection, acts: list[Act]) -> None:
    check(connection, acts)


def check(connection: sa.Connection, acts: Sequence[Act]) -> None:
    shutil.rmtree(home.current().path / "landing", ignore_errors=True)  # of examples before
    links: dict[bytes, Said] = {}
    cards: dict[bytes, Card] = {}
    taken: list[Act] = []
    trial = connection.begin()
    try:
        for kind, what in acts:
            if kind in DECIDE:
                if made := decide(connection, kind, what):
                    taken.append(("decided", made))
            else:
                happen(connection, kind, what)
                taken.append((kind, what))
                note(kind, what, links, cards)
        kept = linked.dump(connection)
        assert linked.clusters(connection, NAMES) == rule(connection, links, cards)
        assert linked.anew(connection) == set()
        for row in connection.execute(sa.text("SELECT identifier, scheme, born_on, sex FROM identity_member")):
            (who,) = [one for one in NAMES if linked.digest(one) == row.identifier]
            assert row._asdict() == {"identifier": row.identifier, **identity_claims.form(*who.split(":", 1))}
    finally:
        trial.rollback()
    before = [(kind, as_before(what) if kind == "decided" else what) for kind, what in taken]
    said_now = [*(("card", one) for one in cards.values()), *(("link", one) for one in links.values())]
    for steps in (taken, before):
        decided = [step for step in steps if step[0] == "decided"]
        assert replayed(connection, steps) == kept
        assert replayed(connection, [*decided, *said_now]) == kept


def decide(connection: sa.Connection, kind: str, names: list[str]) -> list[Landed]:
    """The decisions that were landed; none where it is refused."""
    landing = Landing(home.current().landing_url)
    known = {one.digest for one in decisions.every(landing)}
    try:
        DECIDE[kind](connection, names, actor="tester")
    except UsageError:
        return []
    return [one for one in decisions.every(landing) if one.digest not in known]


def as_before(made: list[Landed]) -> list[Landed]:
    """As versions before landed them: of those whom a split leaves merged without what they say themselves."""
    return [made[0], *(replace(one, content={**one.content, "named": {}}) for one in made[1:])]


def happen(connection: sa.Connection, kind: str, what: Any) -> None:
    if kind in ("card", "lost"):
        linked.hold(connection, **{"cards" if kind == "card" else "lost": [what]})
    else:
        linked.deliver(connection, **{"said" if kind == "link" else "withdrawn": [what]})


def note(kind: str, what: Any, links: dict[bytes, Said], cards: dict[bytes, Card]) -> None:
    """What is said now."""
    kept: dict[bytes, Any] = links if kind in ("link", "gone") else cards
    kept.pop(what.key, None)
    if kind in ("link", "card"):
        kept[what.key] = what


def replayed(connection: sa.Connection, steps: Sequence[Act]) -> dict[str, set[tuple[object, ...]]]:
    """What is kept after the same once more, decisions as they were landed."""
    forms = identity_decisions.forms(one for kind, made in steps if kind == "decided" for one in made)
    trial = connection.begin()
    try:
        for kind, what in steps:
            if kind == "decided":
                for one in what:
                    identity_decisions.carry_out(connection, one, forms)
            else:
                happen(connection, kind, what)
        return linked.dump(connection)
    finally:
        trial.rollback()


def rule(connection: sa.Connection, links: dict[bytes, Said], cards: dict[bytes, Card]) -> dict[str, frozenset[str]]:
    """The clusters that follow from what is said and from the decisions in force."""
    called = {linked.digest(one): one for one in NAMES}
    decided: dict[str, tuple[str, tuple[list[str], list[str]]]] = {}
    query = "SELECT decision, kind, side, member FROM identity_decision WHERE side < 2 AND ended_by IS NULL"
    for row in connection.execute(sa.text(query)):
        decided.setdefault(row.decision, (row.kind, ([], [])))[1][row.side].append(called[row.member])
    every: list[Decided] = [(kind, tuple(tuple(side) for side in sides)) for kind, sides in decided.values()]
    found = expected(links.values(), cards.values(), every)
    return {one: found.get(one, frozenset([one])) for one in NAMES}


def test_a_rebuild_of_a_zone_that_versions_before_landed_knows_what_everybody_says_of_themselves(
    store: sa.Engine, fresh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store itself does not know it any more, and verify says so."""
    with store.begin() as connection:
        identity_decisions.merge(connection, [BORN_1970, A, B], actor="tester")
        with monkeypatch.context() as before:
            before.setattr(identity_decisions, "_forms", lambda connection, keys: {})
            identity_decisions.split(connection, [B], actor="tester")
    query = sa.text("SELECT encode(identifier, 'hex'), scheme, born_on, sex FROM identity_member ORDER BY identifier")
    with store.connect() as connection:
        assert {row.scheme for row in connection.execute(query)} == {None}
    assert [one.code for one in verify.verify(store).differences] == ["identity-differs"]
    rebuild.rebuild(fresh)
    made = sa.create_engine(sa.make_url(fresh).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with made.connect() as connection:
        found = {key: form for key, *form in connection.execute(query)}
    assert found == {
        linked.digest(one).hex(): list(identity_claims.form(*one.split(":", 1)).values()) for one in (BORN_1970, A)
    }
    assert verify.verify(made).differences == ()
