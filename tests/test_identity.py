"""Clusters of identifiers: the rules by example, and that nothing but what was asserted decides them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub import decisions, identity_claims, identity_components, identity_decisions, pipeline, verify
from hub.home import Home
from tests import linked, residents, stored
from tests.clustering import BORN_1970, BORN_1980, NAMES, A, B, C, D, Decided, card, expected, name, said
from tests.deliveries import World, migrated, world  # noqa: F401 - fixtures
from tests.linked import Card, Said


@pytest.fixture(scope="module")
def engine(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    yield from linked.store(server_home, tmp_path_factory.mktemp("identity"))


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Nothing stays of what a test does."""
    with engine.connect() as opened:
        yield opened
        opened.rollback()


def clusters(connection: sa.Connection, *names: str) -> Mapping[str, frozenset[str]]:
    return linked.clusters(connection, names)


def test_links_join_and_withdrawal_parts(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, B), Said(C, D)])
    assert clusters(connection, A, B, C, D)[A] == {A, B}
    linked.deliver(connection, [Said(D, B)])
    assert clusters(connection, A, B, C, D)[A] == {A, B, C, D}
    linked.deliver(connection, withdrawn=[Said(D, B)])
    found = clusters(connection, A, B, C, D)
    assert (found[A], found[C]) == ({A, B}, {C, D})
    linked.deliver(connection, withdrawn=[Said(A, B), Said(C, D)])
    assert not any(linked.dump(connection).values())


def test_what_two_sources_say_stands_until_both_take_it_back(connection: sa.Connection) -> None:
    one, other = Said(A, B), Said(A, B, source="other")
    linked.deliver(connection, [one])
    linked.deliver(connection, [other])
    linked.deliver(connection, withdrawn=[one])
    assert clusters(connection, A, B)[A] == {A, B}
    linked.deliver(connection, [Said(A, B, source="other", status="revoked")])
    assert clusters(connection, A, B)[A] == {A}


def test_one_number_in_two_forms_is_no_link(connection: sa.Connection) -> None:
    assert linked.deliver(connection, [Said(A, A)]) == 0
    assert not any(linked.dump(connection).values())


@pytest.mark.parametrize(
    "said",
    [
        [Said(A, BORN_1970), Said(A, BORN_1980)],
        [Said(A, B, born_on="1970-01-31"), Said(B, C, born_on="1970-02-01")],
        [Said(A, B, sex="男"), Said(A, B, sex="女", source="other"), Said(B, C, sex="女")],
        [Said(A, BORN_1970, born_on="1970-01-13")],
    ],
)
def test_two_birth_dates_or_sexes_join_nobody(connection: sa.Connection, said: list[Said]) -> None:
    linked.deliver(connection, said)
    names = {name for one in said for name in (one.one, one.other)}
    found = clusters(connection, *names)
    assert {name: found[name] for name in names} == {name: {name, "?"} for name in names}


def test_an_unknown_sex_claims_nothing(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, BORN_1970, sex="未知"), Said(A, B, sex="男")])
    assert clusters(connection, A, B, BORN_1970)[A] == {A, B, BORN_1970}


def test_documents_of_linked_identifiers_are_heard(store: sa.Engine) -> None:
    """Whether the card or the link comes first, and until the card says otherwise."""
    card = ("holder", *BORN_1970.split(":"))
    stored.source(store, "cards", "resident-id-card")
    with store.begin() as connection:
        linked.deliver(connection, [Said(A, BORN_1970)])
    said = linked.document(store, "cards", "resident-id-card", card, attributes={"born_on": "1970-01-30", "sex": "男"})
    with store.begin() as connection:
        linked.changed(connection, [said])
        assert clusters(connection, A, BORN_1970)[A] == {A, "?"}
        linked.deliver(connection, withdrawn=[Said(A, BORN_1970)])
        linked.deliver(connection, [Said(A, BORN_1970), Said(A, B)])
        assert clusters(connection, A, B, BORN_1970)[A] == {A, "?"}
        before = linked.dump(connection)
        connection.execute(sa.text("DELETE FROM holding"))
        linked.changed(connection, [said], present=False)
        assert clusters(connection, A, B, BORN_1970)[A] == {A, B, BORN_1970}
        assert len(before["claim"]) == 1 and not linked.dump(connection)["claim"]


def test_documents_that_say_what_the_identifier_does_change_nothing(connection: sa.Connection) -> None:
    agreeing = [Card(BORN_1970, "1970-01-31", "男"), Card(BORN_1980), Card(A, "1970-01-31", "男"), Card(B, sex="未知")]
    linked.hold(connection, agreeing)
    assert not any(linked.dump(connection).values())
    linked.deliver(connection, [Said(A, C)])
    before = linked.dump(connection)
    linked.hold(connection, [Card(BORN_1980, "1980-05-23")])
    assert linked.dump(connection) == before


@pytest.mark.parametrize("said", [{"born_on": "1970-01-13"}, {"sex": "女"}, {"born_on": "1970-01-13", "sex": "男"}])
def test_a_document_that_denies_the_identifier_makes_it_contradictory_alone(
    connection: sa.Connection, said: dict[str, str]
) -> None:
    """Until the document is corrected, or gone; a link makes no difference to it, and it takes the other along."""
    linked.hold(connection, [Card(BORN_1970, **said)])
    assert clusters(connection, BORN_1970)[BORN_1970] == {BORN_1970, "?"}
    alone = linked.dump(connection)
    linked.deliver(connection, [Said(A, BORN_1970)])
    found = clusters(connection, A, BORN_1970)
    assert (found[A], found[BORN_1970]) == ({A, "?"}, {BORN_1970, "?"})
    linked.deliver(connection, withdrawn=[Said(A, BORN_1970)])
    assert linked.dump(connection) == alone
    linked.hold(connection, [Card(BORN_1970, "1970-01-31", "男")])
    assert not any(linked.dump(connection).values())
    linked.hold(connection, [Card(BORN_1970, **said)])
    linked.hold(connection, lost=[Card(BORN_1970)])
    assert not any(linked.dump(connection).values())


def test_two_documents_contradict_each_other_where_the_identifier_says_nothing(connection: sa.Connection) -> None:
    linked.hold(connection, [Card(A, "1970-01-31", number=1)])
    assert not any(linked.dump(connection).values())
    linked.hold(connection, [Card(A, "1970-02-01", number=2)])
    assert clusters(connection, A)[A] == {A, "?"}
    linked.hold(connection, [Card(A, "1970-01-31", number=2)])
    assert not any(linked.dump(connection).values())


CARDS = "sh-ga-residents"
BEARER = f"cn.ric:{residents.number(residents.PEOPLE[0][1])}"  # a man, born on 1956-09-12
LINKED = Said("passport:K1234567", BEARER, "1956-09-12", "男")


@pytest.mark.parametrize(
    ("card", "doubt"),
    [
        (residents.row(0, csrq="1956-09-21"), True),
        (residents.row(0, xb="2"), True),
        (residents.row(0), False),
        (residents.row(1, csrq="1980-03-06"), False),
    ],
    ids=["birth-date", "sex", "agrees", "of-another"],
)
def test_a_card_of_a_first_load_is_heard(world: World, card: dict[str, str | None], doubt: bool) -> None:  # noqa: F811
    """Through the whole pipeline, where new rows of a first load are copied straight in, whichever comes first; and until
    a later version of the card takes back what it said."""
    (world.folder / "sources").mkdir(exist_ok=True)
    deliveries = [
        (linked.DOCUMENTS, linked.write(world.folder / "links.csv", [LINKED])),
        (CARDS, residents.write(world.folder / "cards.json", [card])),
    ]

    def found() -> frozenset[str]:
        assert verify.verify(world.engine).differences == ()
        with world.engine.connect() as connection:
            return clusters(connection, LINKED.one, BEARER)[BEARER]

    whole = frozenset([LINKED.one, BEARER])
    digests = []
    for order in (deliveries, deliveries[::-1]):
        world.reset()
        for place, (source, file) in enumerate(order):
            assert pipeline.run(source, input=file)["accepted"] == 1
            if place == 0 and source == linked.DOCUMENTS:
                assert found() == whole
        assert found() == (frozenset([BEARER, "?"]) if doubt else whole)
        digests.append(world.digest())
    assert digests[0] == digests[1]
    later = residents.write(world.folder / "later.json", [residents.row(0, gxsj="2025-02-02T08:00:00+08:00")])
    pipeline.run(CARDS, input=later)
    assert found() == whole


@pytest.mark.parametrize("said", [{"csrq": "1956-09-21"}, {"xb": "2"}], ids=["birth-date", "sex"])
def test_a_card_of_a_first_load_that_denies_its_number_is_heard(world: World, said: dict[str, str]) -> None:  # noqa: F811
    """Where nobody is a member of anything: among others, whichever way its row goes; one that is kept back says nothing."""
    (world.folder / "sources").mkdir(exist_ok=True)
    others = [residents.row(person) for person in (1, 2, 4)]
    first = residents.write(world.folder / "cards.json", [residents.row(0, **said), *others])

    def found() -> frozenset[str]:
        assert verify.verify(world.engine).differences == ()
        with world.engine.connect() as connection:
            return clusters(connection, BEARER)[BEARER]

    assert pipeline.run(CARDS, input=first)["accepted"] == 4
    assert found() == {BEARER, "?"}
    denied = world.digest()
    pipeline.run(
        CARDS,
        input=residents.write(world.folder / "bad.json", [residents.row(0, xm="", gxsj="2025-02-01T08:00:00+08:00")]),
    )
    assert found() == {BEARER, "?"}
    later = residents.row(0, gxsj="2025-02-02T08:00:00+08:00")
    pipeline.run(CARDS, input=residents.write(world.folder / "later.json", [later]))
    assert found() == {BEARER}
    right = world.digest()
    pipeline.run(
        CARDS,
        input=residents.write(world.folder / "worse.json", [later | said | {"gxsj": "2025-02-03T08:00:00+08:00"}]),
    )
    assert found() == {BEARER, "?"}
    world.reset()
    pipeline.run(CARDS, input=residents.write(world.folder / "others.json", [*others, later]))
    assert (found(), world.digest()) == ({BEARER}, right)
    assert denied != right


@pytest.mark.parametrize("length", [2, 3, 64, 1000])
def test_long_chains_take_few_rounds(connection: sa.Connection, length: int) -> None:
    order = list(range(1, length))
    random.Random(length).shuffle(order)
    connection.execute(
        sa.text(f"CREATE TEMP TABLE identity_node AS SELECT n FROM generate_series(1, {length} + 1) AS n")
    )
    pairs = ", ".join(f"({n + 1}, {n})" for n in order)
    rounds = len(str(length)) * 4 + 3
    statements: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        stars = identity_components._stars
        patch.setattr(identity_components, "_stars", lambda c, query: (statements.append(query), stars(c, query)))
        identity_components.components(connection, "found", f"SELECT * FROM (VALUES {pairs}) AS e (a, b)")
    rows = connection.execute(sa.text("SELECT root, alone, count(*) AS nodes FROM found GROUP BY 1, 2")).all()
    assert {tuple(row) for row in rows} == {(1, False, length), (length + 1, True, 1)}
    assert len(statements) <= 2 * rounds


# -- by the rule, in another language and at once


groups = st.lists(name, min_size=1, max_size=4, unique=True)
decided = groups.flatmap(
    lambda them: st.sampled_from(
        [("merge", (tuple(them),)), *([("split", (tuple(them[:1]), tuple(them[1:])))] if len(them) > 1 else [])]
    )
)


def landed(place: int, one: Decided) -> decisions.Landed:
    kind, sides = one
    members = [[linked.digest(name).hex(), side] for side, group in enumerate(sides) for name in group]
    forms = {linked.digest(name).hex(): identity_claims.form(*name.split(":", 1)) for group in sides for name in group}
    content = {"kind": kind, "named": forms, "ends": [], "members": members, "links": []}
    return decisions.Landed(f"decision-{place}", stored.NOW, content)


Statements = tuple[list[Said], list[Said], list[Card], list[Card], list[Decided], random.Random]
statements: st.SearchStrategy[Statements] = st.tuples(
    st.lists(said, max_size=9, unique_by=lambda one: (one.one, one.other)),
    st.lists(said, max_size=3),
    st.lists(card, max_size=5, unique_by=lambda one: (one.holder, one.number)),
    st.lists(card, max_size=3, unique_by=lambda one: (one.holder, one.number)),
    st.lists(decided, max_size=3),
    st.randoms(use_true_random=False),
)
LIMITS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@given(statements)
@settings(max_examples=8, **LIMITS)
def test_any_order_and_splitting_gives_the_same_clusters(connection: sa.Connection, made: Statements) -> None:
    check_order(connection, *made)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(1500)
@given(statements)
@settings(max_examples=150, **LIMITS)
def test_any_order_and_splitting_of_many_gives_the_same_clusters(connection: sa.Connection, made: Statements) -> None:
    check_order(connection, *made)


def check_order(
    connection: sa.Connection,
    final: list[Said],
    before: list[Said],
    cards: list[Card],
    cards_before: list[Card],
    decided: list[Decided],
    chance: random.Random,
) -> None:
    """What comes and goes on the way leaves no trace: other versions of rows and cards first, those that are withdrawn
    again. And what has become of it piece by piece is what verify makes anew at once."""
    keys, held = {(one.one, one.other) for one in final}, {one.key for one in cards}
    gone = [one for one in before if (one.one, one.other) not in keys]
    lost = [one for one in cards_before if one.key not in held]
    first = [*(("row", one) for one in before), *(("card", one) for one in cards_before)]
    later = [*(("row", one) for one in final), *(("decision", pair) for pair in enumerate(decided))]
    later += [*(("gone", one) for one in gone), *(("card", one) for one in cards), *(("lost", one) for one in lost)]
    chance.shuffle(first)
    chance.shuffle(later)
    trial = connection.begin()
    try:
        batch: dict[str, list[Any]] = {"row": [], "gone": []}
        for place, (kind, what) in enumerate([*first, *later]):
            if kind == "decision":
                identity_decisions.carry_out(connection, landed(*what))
                continue
            if kind in ("card", "lost"):
                linked.hold(connection, **{"cards" if kind == "card" else "lost": [what]})
                continue
            batch[kind].append(what)
            if place == len(first) - 1 or chance.random() < 0.5:
                linked.deliver(connection, _last(batch["row"]), batch["gone"])
                batch = {"row": [], "gone": []}
        linked.deliver(connection, _last(batch["row"]), batch["gone"])
        found, kept = clusters(connection, *NAMES), linked.dump(connection)
        assert linked.anew(connection) == set()
    finally:
        trial.rollback()
    trial = connection.begin()
    try:
        for pair in enumerate(decided):
            identity_decisions.carry_out(connection, landed(*pair))
        linked.hold(connection, cards)
        linked.deliver(connection, final)
        assert linked.dump(connection) == kept
    finally:
        trial.rollback()
    rule = expected(final, cards, decided)
    assert found == {name: rule.get(name, frozenset([name])) for name in NAMES}


def _last(rows: list[Said]) -> list[Said]:
    return list({(row.one, row.other): row for row in rows}.values())
