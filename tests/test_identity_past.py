"""Who was one with whom then: asked later for an earlier time, the store says again what it said."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.errors import UsageError
from connectors.landing import Landing
from hub import (
    answers,
    decisions,
    holdings,
    home,
    identity_decisions,
    identity_past,
    pipeline,
    rebuild,
    verify,
    verify_sql,
)
from hub.holdings import Known
from hub.home import Home
from tests import linked, residents, stored
from tests.linked import Card, Said

A, B, C, D, E = (f"passport:{letter}1234567" for letter in "KLMNP")
BORN_1970, BORN_1980 = "cn.fpr:931840197001310015", "cn.permit:830000198005230130"  # a man, a man
NAMES = (A, B, C, D, E, BORN_1970, BORN_1980)
MATERIAL = "business-licence"
INSTANT = dt.timedelta(microseconds=1)

EPOCH = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def engine(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    """A store in which everybody of NAMES holds something."""
    for opened in linked.store(server_home, tmp_path_factory.mktemp("identity")):
        stored.source(opened, "register", MATERIAL)
        for name in NAMES:
            stored.holding(opened, "register", MATERIAL, ("holder", *name.split(":", 1)), recorded_at=EPOCH)
        yield opened


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Nothing stays of what a test does."""
    with engine.connect() as opened:
        yield opened
        opened.rollback()


class Told(NamedTuple):
    """What the store says of everybody asked about."""

    one_with: dict[str, frozenset[str]]
    undecided: frozenset[str]
    held: dict[str, frozenset[tuple[str, str]]]
    decided: dict[str, frozenset[str]]


def said(connection: sa.Connection, at: dt.datetime | None = None, names: Iterable[str] = NAMES) -> Told:
    """Now, or as it was known at ``at``. Of what speaks for it only the decisions: rows may have been read anew since."""
    holders = {linked.digest(name): tuple(name.split(":", 1)) for name in names}
    called = {digest: ":".join(pair) for digest, pair in holders.items()}
    if at is None:
        known = stored.known_now(connection, holders, [MATERIAL])
    else:
        known = holdings.recorded(connection, holders, [MATERIAL], at)
    people = known.people
    return Told(
        {name: frozenset(called[one] for one in people.of(digest)) for digest, name in called.items()},
        frozenset(called[digest] for digest in people.undecided),
        {holding.key: frozenset((called[digest], role) for digest, roles in holding.holders.items() for role in roles)
         for holding in known.holdings},
        {called[digest]: frozenset(row["decision"] for row in rows if "decision" in row)
         for digest, rows in people.through.items() if any("decision" in row for row in rows)},
    )  # fmt: skip


def last(connection: sa.Connection) -> dt.datetime:
    """The time of the last merge or decision."""
    at = connection.scalar(sa.text("SELECT recorded_at FROM feed_head"))
    assert isinstance(at, dt.datetime)
    return at


def memberships(connection: sa.Connection) -> list[tuple[Any, ...]]:
    query = "SELECT identifier, cluster, state, recorded_from, recorded_to FROM identity_membership ORDER BY 1, 4"
    return [tuple(row) for row in connection.execute(sa.text(query))]


def merge(connection: sa.Connection, *names: str) -> dict[str, Any]:
    return identity_decisions.merge(connection, names, actor="tester")


def split(connection: sa.Connection, *names: str) -> dict[str, Any]:
    return identity_decisions.split(connection, names, actor="tester")


# -- by example


def test_a_link_counts_from_when_it_came_to_when_it_went(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, B)])
    came = last(connection)
    linked.deliver(connection, withdrawn=[Said(A, B)])
    went = last(connection)
    alone, one = frozenset([A]), frozenset([A, B])
    told = {at: said(connection, at).one_with[A] for at in (EPOCH, came - INSTANT, came, went - INSTANT, went)}
    assert list(told.values()) == [alone, alone, one, one, alone]
    assert said(connection).one_with[A] == alone


def test_who_is_asked_about_alone_finds_what_the_others_held(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, B), Said(B, C)])
    came = last(connection)
    linked.deliver(connection, withdrawn=[Said(B, C)])
    held = {name: set(said(connection, came, [name]).held) for name in NAMES}
    assert held[A] == held[B] == held[C] and len(held[A]) == 3 and len(held[D]) == 1
    assert {who for who, _ in said(connection, came, [A]).held[min(held[A])]} == {A}, "and is the one they are held by"
    assert len(said(connection, None, [C]).held) == 1


def test_a_link_that_is_corrected_joins_others_from_then_on(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, B)])
    linked.deliver(connection, [Said(A, C)], withdrawn=[Said(A, B)])
    corrected = last(connection)
    before, after = said(connection, corrected - INSTANT), said(connection, corrected)
    assert (before.one_with[A], before.one_with[C]) == ({A, B}, {C})
    assert (after.one_with[A], after.one_with[B]) == ({A, C}, {B})


def test_who_was_contradictory_then_is_undecided_then(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, BORN_1970)])
    linked.deliver(connection, [Said(A, BORN_1980)])
    doubt = last(connection)
    merge(connection, A, BORN_1970, BORN_1980)
    settled = last(connection)
    assert not said(connection, doubt - INSTANT).undecided and not said(connection, settled).undecided
    assert (
        said(connection, doubt).undecided == said(connection, settled - INSTANT).undecided == {A, BORN_1970, BORN_1980}
    )


def test_decisions_are_known_from_the_time_they_are_landed_with(connection: sa.Connection) -> None:
    done = merge(connection, A, B)
    merged = last(connection)
    split(connection, A)
    parted = last(connection)
    landing = Landing(home.current().landing_url)
    known = {one.digest: one.decided_at for one in decisions.every(landing)}
    assert known[done["decision"]] == merged < parted
    assert said(connection, merged - INSTANT).decided == {} == said(connection).decided
    then = said(connection, merged)
    assert then.one_with[A] == {A, B} and then.decided == {name: frozenset([done["decision"]]) for name in (A, B)}
    assert said(connection, parted).one_with[A] == {A}


def test_only_whose_cluster_or_state_changes_gets_a_version(connection: sa.Connection) -> None:
    one, *others = sorted((A, B, C, D), key=linked.digest)
    linked.deliver(connection, [Said(one, others[0])])
    before = memberships(connection)
    linked.deliver(connection, [Said(one, others[0], born_on="1970-01-31"), Said(one, others[0], source="other")])
    linked.deliver(connection, [Said(others[0], others[1])])
    merge(connection, one, others[2])
    after = memberships(connection)
    assert set(before) <= set(after) and len(after) == 4, "the others joined the cluster, which kept its name"
    assert all(row[4] is None for row in after)


def test_a_decision_done_again_changes_nothing(connection: sa.Connection) -> None:
    done = merge(connection, A, B)
    before = memberships(connection)
    landing = Landing(home.current().landing_url)
    identity_decisions.carry_out(connection, {one.digest: one for one in decisions.every(landing)}[done["decision"]])
    assert memberships(connection) == before


def test_where_nothing_changes_nothing_is_closed(connection: sa.Connection) -> None:
    identity_past.close(connection, EPOCH)
    assert connection.scalar(sa.text("SELECT count(*) FROM identity_change")) == 0


def test_times_rise_whatever_is_replayed(connection: sa.Connection) -> None:
    now = identity_past.announce(connection)
    assert identity_past.announce(connection, EPOCH) == now + INSTANT
    later = now + dt.timedelta(hours=1)
    assert identity_past.announce(connection, later) == later
    assert identity_past.announce(connection) == later + INSTANT, "a clock that was set back"


# -- whatever happens


name = st.sampled_from(NAMES)
rows = st.builds(
    Said,
    name,
    name,
    born_on=st.sampled_from([None, None, "1970-01-31", "1980-05-23"]),
    sex=st.sampled_from([None, None, "男", "女"]),
)
two = st.lists(name, min_size=1, max_size=2, unique=True)
cards = st.builds(
    Card, name, born_on=st.sampled_from([None, "1970-01-31", "1980-05-23"]), sex=st.sampled_from([None, "女"])
)
Step = tuple[str, Any]
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("rows"), st.lists(rows, min_size=1, max_size=3, unique_by=lambda one: one.key)),
        st.tuples(st.just("gone"), st.integers(0, 9)),
        st.tuples(
            st.sampled_from(["cards", "lost"]), st.lists(cards, min_size=1, max_size=2, unique_by=lambda one: one.key)
        ),
        st.tuples(st.just("merge"), two),
        st.tuples(st.just("split"), two),
    ),
    min_size=3,
    max_size=8,
)
LIMITS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@given(steps)
@settings(max_examples=8, derandomize=True, **LIMITS)
def test_what_was_said_is_said_again_for_its_time(connection: sa.Connection, steps: list[Step]) -> None:
    check_replay(connection, steps)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(1500)
@given(steps)
@settings(max_examples=200, **LIMITS)
def test_what_was_said_is_said_again_for_its_time_of_much(connection: sa.Connection, steps: list[Step]) -> None:
    check_replay(connection, steps)


# A split that takes apart a merge of several is several decisions.
_MADE = "SELECT min(recorded_at) AS first, max(recorded_at) AS last FROM identity_change WHERE id > :known"


def check_replay(connection: sa.Connection, steps: list[Step]) -> None:
    """After each step, and the moment before the next."""
    trial = connection.begin_nested()
    try:
        told = [(EPOCH, EPOCH, said(connection))]
        present: dict[bytes, Said] = {}
        for kind, what in steps:
            known = connection.scalar(sa.text("SELECT count(*) FROM identity_change"))
            if kind == "rows":
                linked.deliver(connection, what)
                present |= {one.key: one for one in what}
            elif kind in ("cards", "lost"):
                linked.hold(connection, **{kind: what})
            elif kind == "gone":
                for key in list(present)[what % 10 : what % 10 + 1]:
                    linked.deliver(connection, withdrawn=[present.pop(key)])
            else:
                with suppress(UsageError):  # they are one already, or were apart
                    (merge if kind == "merge" else split)(connection, *what)
            made = connection.execute(sa.text(_MADE), {"known": known}).one()
            if made.last:
                told.append((made.first, made.last, said(connection)))
        for _, at, answer in told:
            assert said(connection, at) == answer
        for (*_, answer), (following, *_) in pairwise(told):
            assert said(connection, following - INSTANT) == answer
        assert not any(row.code for row in connection.execute(sa.text(verify_sql.CHECKS["memberships"])))
    finally:
        trial.rollback()


# -- in the store


OLD, NEW = "cn.regno:310106000000000", "cn.uscc:91310106012345671D"


def clock(engine: sa.Engine) -> dt.datetime:
    with engine.connect() as connection:
        at = connection.scalar(sa.text("SELECT clock_timestamp()"))
    assert isinstance(at, dt.datetime)
    return at


def held(engine: sa.Engine, number: str, at: dt.datetime | None = None) -> dict[str, tuple[str, ...]]:
    """What is held for ``number``, and in which roles."""
    holders = {linked.digest(number): tuple(number.split(":", 1))}
    with engine.connect() as connection:
        if at is None:
            known = stored.known_now(connection, holders, [MATERIAL])
        else:
            known = holdings.recorded(connection, holders, [MATERIAL], at)
    return {holding.key: holding.holders[linked.digest(number)] for holding in known.holdings}


def test_what_ended_under_another_number_is_found_for_its_time(store: sa.Engine) -> None:
    stored.source(store, "register", MATERIAL)
    both = [(role, *NEW.split(":")) for role in ("holder", "keeper")]
    key = stored.holding(store, "register", MATERIAL, *both, ("holder", "passport", "K1234567"), recorded_at=EPOCH)
    unlinked = clock(store)
    with store.begin() as connection:
        linked.deliver(connection, [Said(OLD, NEW)])
    one = clock(store)
    with store.begin() as connection:
        stored.end(connection, key)
        connection.execute(sa.text("DELETE FROM holding_holder"))
        connection.execute(sa.text("DELETE FROM holding"))
    over = clock(store)
    assert held(store, OLD, unlinked) == {} and held(store, NEW, unlinked) == {key: ("holder", "keeper")}
    assert held(store, OLD, one) == held(store, NEW, one) == {key: ("holder", "keeper")}
    assert held(store, A, one) == {key: ("holder",)}
    assert held(store, OLD, over) == held(store, OLD) == {}


def test_answers_of_then(store: sa.Engine) -> None:
    stored.source(store, "sh-amr-enterprises", MATERIAL)
    stored.holding(store, "sh-amr-enterprises", MATERIAL, ("holder", *NEW.split(":")))

    def disposition(at: dt.datetime | None = None) -> str:
        question = answers.Question(
            ("demo-food-permit",), OLD, "test", "test", {"legal_representative_in_person": True}, as_of=at
        )
        (answer,) = answers.ask(store, question)
        return next(entry["disposition"] for entry in answer["requirements"] if MATERIAL in entry["materials"])

    told = [(clock(store), disposition())]
    doubtful = [Said(OLD, NEW, born_on="1970-01-31"), Said(OLD, "cn.orgcode:012345671", born_on="1971-01-31")]
    for step in (doubtful[:1], doubtful[1:]):
        with store.begin() as connection:
            linked.deliver(connection, step)
        told.append((clock(store), disposition()))
    with store.begin() as connection:
        linked.deliver(connection, withdrawn=doubtful)
    assert [then for _, then in told] == ["submit", "held", "undetermined"] and disposition() == "submit"
    assert [disposition(at) for at, _ in told] == [then for _, then in told]


BEARER = f"cn.ric:{residents.number(residents.PEOPLE[0][1])}"  # a man, born on 1956-09-12
BORN, CARDS = "1956-09-12", "sh-ga-residents"


def test_a_rebuild_ends_with_the_same_past(store: sa.Engine, tmp_path: Path, fresh: str) -> None:
    """Links, one of them corrected; a card that contradicts and one that takes it back; decisions."""
    files = iter(range(9))

    def links(*rows: Said, day: str = "2024-03-04", instead: tuple[str, str] = ("", "")) -> None:
        path = linked.write(tmp_path / f"{next(files)}.csv", rows, day=day)
        path.write_text(path.read_text(encoding="utf-8").replace(*instead), encoding="utf-8")
        assert pipeline.run(linked.DOCUMENTS, input=path)["accepted"] == len(rows)

    def card(**said: str) -> None:
        pipeline.run(CARDS, input=residents.write(tmp_path / f"{next(files)}.json", [residents.row(0, **said)]))

    def everybody(engine: sa.Engine, at: dt.datetime | None = None) -> tuple[Told, Known]:
        with engine.connect() as connection:
            names = (A, B, C, D, BEARER)
            whom = {linked.digest(BEARER): tuple(BEARER.split(":", 1))}
            card = ["resident-id-card"]
            known = holdings.recorded(connection, whom, card, at) if at else stored.known_now(connection, whom, card)
            return said(connection, at, names), known

    links(Said(A, BEARER, BORN), Said(B, C, BORN))
    told = [(clock(store), everybody(store))]
    told_rows = told[0][1][1].people.through[linked.digest(BEARER)]
    for step in (
        lambda: card(csrq="1956-09-21"),
        lambda: links(Said(B, C, BORN), day="2024-04-05", instead=(C.partition(":")[2], D.partition(":")[2])),
        lambda: decide(store, merge, A, BEARER),
        lambda: decide(store, split, B, D),
        lambda: card(gxsj="2025-02-02T08:00:00+08:00"),
        lambda: decide(store, split, A, BEARER),
    ):
        step()
        told.append((clock(store), everybody(store)))
    assert len({str(answer.one_with) + str(answer.undecided) for _, (answer, _) in told}) > 4
    for at, (answer, _) in told:
        assert everybody(store, at)[0] == answer
    assert everybody(store, told[0][0])[1].people.through == {linked.digest(BEARER): told_rows}, "the row still says so"
    assert everybody(store, told[2][0])[0].one_with[B] == {B, D} and told[2][1][0].one_with[C] == {C}
    result = rebuild.rebuild(fresh)
    assert not result.other
    again = sa.create_engine(sa.make_url(fresh).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with store.connect() as one, again.connect() as other:
        assert memberships(one) == memberships(other) and len(memberships(one)) > 6
    for at, (answer, _) in told:
        assert everybody(again, at)[0] == answer
    assert verify.verify(again).ok and verify.verify(store).ok


def decide(engine: sa.Engine, how: Any, *names: str) -> None:
    with engine.begin() as connection:
        how(connection, *names)
