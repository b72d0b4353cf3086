"""Merge and split: landed first, in force, and taken back by the opposite without a trace in what is in force."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connectors.errors import UsageError
from connectors.landing import Landing
from hub import decisions, home, identity_decisions, identity_evidence
from hub.home import Home
from tests import linked
from tests.linked import Card, Said

A, B, C, D, E = (f"passport:{letter}1234567" for letter in "KLMNP")
BORN_1970, BORN_1980 = "cn.fpr:931840197001310015", "cn.permit:830000198005230130"
NAMES = (A, B, C, D, E, BORN_1970, BORN_1980)


@pytest.fixture(scope="module")
def engine(server_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    yield from linked.store(server_home, tmp_path_factory.mktemp("identity"))


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as opened:
        yield opened
        opened.rollback()


def merge(connection: sa.Connection, *names: str) -> dict:
    return identity_decisions.merge(connection, names, actor="tester", note="seen")


def split(connection: sa.Connection, *names: str) -> dict:
    return identity_decisions.split(connection, names, actor="tester", note="wrong")


def joined(connection: sa.Connection, name: str) -> frozenset[str]:
    return linked.clusters(connection, NAMES)[name]


def states(connection: sa.Connection) -> dict[str, str]:
    found = connection.execute(sa.text("SELECT encode(link, 'hex'), state FROM identity_link"))
    return {key: state for key, state in found if state != "standing"}


def test_a_decision_is_landed_with_its_effect_and_names_nobody(connection: sa.Connection) -> None:
    done = merge(connection, A, BORN_1970)
    landing = Landing(home.current().landing_url)
    found = {one.digest: one.content for one in decisions.every(landing)}[done["decision"]]
    assert (found["kind"], found["actor"], found["note"]) == ("merge", "tester", "seen")
    text = json.dumps(found)
    assert "K1234567" not in text and "931840197001310015" not in text
    row = connection.execute(
        sa.text("SELECT kind, source, actor, note FROM decision WHERE landed = :d"), {"d": done["decision"]}
    )
    assert tuple(row.one()) == ("merge", "identity", "tester", "seen")
    assert done["clusters"] == [{"cluster": min(linked.digest(A), linked.digest(BORN_1970)).hex(), "state": "joined",
                                 "members": sorted(linked.digest(name).hex() for name in (A, BORN_1970))}]  # fmt: skip


COMPANY, SHOP = "cn.uscc:91110000600037341L", "cn.regno:321200000019530"


def merges() -> int:
    return sum(one.content["kind"] == "merge" for one in decisions.every(Landing(home.current().landing_url)))


def test_a_person_and_an_organisation_are_never_one(connection: sa.Connection) -> None:
    landed = merges()
    for names in ((A, COMPANY), (COMPANY, B, A), (BORN_1970, SHOP)):
        with pytest.raises(UsageError) as refused:
            merge(connection, *names)
        assert refused.value.code == "identity-kinds"
    merge(connection, A, B)
    key = f"key:{linked.digest(B).hex()}"
    with pytest.raises(UsageError) as refused:
        merge(connection, key, COMPANY)
    assert refused.value.code == "identity-kinds", "the key says nothing, what is known of it does"
    assert merges() == landed + 1
    assert merge(connection, COMPANY, SHOP)["clusters"][0]["state"] == "joined"


def test_what_was_landed_and_never_in_force_is_taken_back(connection: sa.Connection) -> None:
    """Killed between landing and commit: the next decision says so, and a rebuild carries out that one alone."""
    cut = connection.begin_nested()
    never = merge(connection, A, B)["decision"]
    cut.rollback()
    done = merge(connection, A, B)["decision"]
    landed = list(decisions.every(Landing(home.current().landing_url)))
    assert never in decisions.never(landed) and done not in decisions.never(landed)
    split(connection, A, B)
    again = list(decisions.every(Landing(home.current().landing_url)))
    assert decisions.never(again) == decisions.never(landed), "once is enough"


def test_carried_out_again_it_changes_nothing(connection: sa.Connection) -> None:
    done = merge(connection, A, B)
    before = linked.dump(connection)
    landing = Landing(home.current().landing_url)
    identity_decisions.carry_out(connection, {one.digest: one for one in decisions.every(landing)}[done["decision"]])
    assert linked.dump(connection) == before


@pytest.mark.parametrize("parted", [(A, C), (C, A), (A,), (C,)])
def test_a_merge_then_a_split_restores(connection: sa.Connection, parted: tuple[str, ...]) -> None:
    linked.deliver(connection, [Said(D, E)])
    before = linked.dump(connection)
    merge(connection, A, C)
    assert joined(connection, A) == {A, C}
    split(connection, *parted)
    assert linked.dump(connection) == before


def test_a_merge_of_clusters_then_a_split_restores(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, B), Said(C, D, born_on="1970-01-31"), Said(B, E, born_on="1971-01-31")])
    before = linked.dump(connection)
    merge(connection, A, C)
    split(connection, A, C)
    assert linked.dump(connection) == before


def test_a_split_then_a_merge_restores(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, B), Said(B, C)])
    before = linked.dump(connection)
    split(connection, C)
    assert (joined(connection, A), joined(connection, C)) == ({A, B}, {C})
    assert set(states(connection).values()) == {"parted"}
    merge(connection, C, A)
    assert linked.dump(connection) == before


def test_a_contradiction_is_settled_either_way(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, BORN_1970), Said(A, BORN_1980)])
    assert joined(connection, A) == {A, "?"}
    split(connection, BORN_1980)
    assert (joined(connection, A), joined(connection, BORN_1980)) == ({A, BORN_1970}, {BORN_1980})
    merge(connection, A, BORN_1980)
    assert (joined(connection, A), joined(connection, BORN_1970)) == ({A, BORN_1980}, {BORN_1970})
    merge(connection, BORN_1970, BORN_1980)
    assert joined(connection, A) == {A, BORN_1970, BORN_1980} and not states(connection)


DENIED = Card(BORN_1970, "1970-01-13", "男")


@pytest.mark.parametrize("named", [BORN_1970, "key:" + "{key}"])
def test_one_that_contradicts_itself_is_accepted_and_taken_back(connection: sa.Connection, named: str) -> None:
    linked.hold(connection, [DENIED])
    before = linked.dump(connection)
    named = named.format(key=linked.digest(BORN_1970).hex())
    done = merge(connection, named)
    assert [cluster["state"] for cluster in done["clusters"]] == ["joined"]
    assert joined(connection, BORN_1970) == {BORN_1970}
    assert linked.anew(connection) <= {"identity-decision-unknown"}
    with pytest.raises(UsageError) as refused:
        merge(connection, named)
    assert refused.value.code == "identity-two", "it is accepted already"
    split(connection, named)
    assert linked.dump(connection) == before
    with pytest.raises(UsageError) as refused:
        split(connection, named)
    assert refused.value.code == "identity-apart"


def test_what_was_accepted_of_one_joins_and_a_later_contradiction_waits(connection: sa.Connection) -> None:
    linked.hold(connection, [DENIED])
    linked.deliver(connection, [Said(A, BORN_1970, born_on="1970-01-31")])
    assert joined(connection, A) == {A, "?"}
    before = linked.dump(connection)
    merge(connection, BORN_1970)
    assert joined(connection, A) == {A, BORN_1970}
    linked.deliver(connection, [Said(BORN_1970, BORN_1980)])
    assert joined(connection, BORN_1970) == {BORN_1970}, "every link of it waits for a person"
    assert set(states(connection).values()) == {"waiting"}
    linked.deliver(connection, withdrawn=[Said(BORN_1970, BORN_1980)])
    split(connection, BORN_1970)
    assert linked.dump(connection) == before


def test_what_was_accepted_stays_so_while_cards_come_and_go(connection: sa.Connection) -> None:
    linked.hold(connection, [DENIED])
    merge(connection, BORN_1970)
    linked.hold(connection, lost=[DENIED])
    linked.hold(connection, [DENIED])
    assert joined(connection, BORN_1970) == {BORN_1970}


@pytest.mark.parametrize("first", [0, 1])
def test_later_links_that_join_what_was_split_wait(connection: sa.Connection, first: int) -> None:
    linked.deliver(connection, [Said(A, B)])
    split(connection, A, B)
    for one in [Said(A, C), Said(C, B)][:: 1 if first else -1]:
        linked.deliver(connection, [one])
    assert {joined(connection, name) for name in (A, B, C)} == {frozenset([name]) for name in (A, B, C)}
    assert sorted(states(connection).values()) == ["parted", "waiting", "waiting"]
    assert len(identity_evidence.waiting(connection)) == 2
    merge(connection, A, C)
    assert (joined(connection, C), joined(connection, B)) == ({A, C}, {B})
    assert not identity_evidence.waiting(connection), "to decide for the one is to decide against the other"


def test_a_direct_link_that_comes_later_waits(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, C), Said(C, B)])
    split(connection, A)
    linked.deliver(connection, [Said(A, B)])
    assert (joined(connection, A), joined(connection, B)) == ({A}, {B, C})
    assert sorted(states(connection).values()) == ["parted", "waiting"]


def test_later_links_that_contradict_a_merge_wait(connection: sa.Connection) -> None:
    merge(connection, A, BORN_1970)
    linked.deliver(connection, [Said(A, BORN_1980), Said(A, B), Said(BORN_1980, C)])
    assert joined(connection, A) == {A, BORN_1970}
    assert joined(connection, BORN_1980) == {BORN_1980, C}
    assert set(states(connection).values()) == {"waiting"} and len(states(connection)) == 2


FAR = [
    Said(A, BORN_1980, "1980-05-23", "男"),
    Said(BORN_1980, A, "1980-05-23"),
    Said(A, C, "1980-05-23"),
    Said(A, BORN_1980),
]


@pytest.mark.parametrize("far", FAR, ids=["all", "birth-date", "of-a-passport", "nothing"])
@pytest.mark.parametrize("first", ["merge", "link"])
def test_a_link_that_says_what_its_far_end_says_contradicts_a_merge_all_the_same(
    connection: sa.Connection, far: Said, first: str
) -> None:
    """What a row says of the other end is nothing that the merge accepted of its own, although the row names both."""
    steps = [lambda: linked.deliver(connection, [far]), lambda: merge(connection, A, BORN_1970)]
    for step in steps[:: -1 if first == "merge" else 1]:
        step()
    (other,) = {far.one, far.other} - {A}
    assert (joined(connection, A), joined(connection, other)) == ({A, BORN_1970}, {other})
    (waits,) = identity_evidence.waiting(connection)
    assert waits["link"] == far.key.hex() and not identity_evidence.contradictions(connection)
    assert linked.anew(connection) == set()


def test_a_link_to_somebody_else_is_not_accepted_with_the_number_alone(connection: sa.Connection) -> None:
    linked.hold(connection, [DENIED])
    merge(connection, BORN_1970)
    linked.deliver(connection, [Said(BORN_1970, A, born_on="1980-05-23")])
    assert (joined(connection, BORN_1970), joined(connection, A)) == ({BORN_1970}, {A})
    assert set(states(connection).values()) == {"waiting"}


def test_what_a_link_within_a_merge_says_is_accepted(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, BORN_1970, born_on="1980-05-23")])
    assert joined(connection, A) == {A, "?"}
    merge(connection, A, BORN_1970)
    linked.deliver(connection, [Said(A, BORN_1980)])
    assert joined(connection, A) == {A, BORN_1970, BORN_1980} and not states(connection)


def test_a_merge_of_three_loses_one(connection: sa.Connection) -> None:
    merge(connection, A, B, C)
    split(connection, B)
    assert (joined(connection, A), joined(connection, B)) == ({A, C}, {B})


@pytest.mark.parametrize("keys", [False, True], ids=["by-value", "by-key"])
def test_who_is_left_merged_says_of_itself_what_it_said(connection: sa.Connection, keys: bool) -> None:
    """As if the third had never been merged, now and for whatever comes."""

    def told() -> dict[str, set[tuple[object, ...]]]:
        linked.hold(connection, [DENIED])
        linked.deliver(connection, [Said(A, BORN_1980)])
        assert linked.anew(connection) == set()
        return linked.dump(connection)

    trial = connection.begin_nested()
    merge(connection, BORN_1970, A)
    must = told()
    trial.rollback()
    links = [Said(BORN_1970, C), Said(A, D), Said(B, E)] if keys else []
    linked.deliver(connection, links)
    merge(connection, *(f"key:{linked.digest(name).hex()}" if keys else name for name in (BORN_1970, A, B)))
    linked.deliver(connection, withdrawn=links)
    split(connection, B)
    assert told() == must


@pytest.mark.parametrize(
    ("decide", "names", "code"),
    [
        (merge, [A], "identity-two"),
        (merge, [A, A], "identity-two"),
        (merge, [A, "no such thing"], "identity-identifier"),
        (merge, [A, "key:12"], "identity-identifier"),
        (merge, [A, "key:" + "0" * 32], "identity-key-unknown"),
        (merge, [D, E], "identity-one-already"),
        (split, [A, B, C], "identity-split-of"),
        (split, [A], "identity-apart"),
        (split, [A, D], "identity-apart"),
    ],
)
def test_what_cannot_be_decided_is_refused(connection: sa.Connection, decide, names: list[str], code: str) -> None:
    linked.deliver(connection, [Said(D, E)])
    before = linked.dump(connection)
    with pytest.raises(UsageError) as refused:
        decide(connection, *names)
    assert refused.value.code == code and linked.dump(connection) == before
    assert "K1234567" not in refused.value.message()


def test_the_card_that_denies_a_number_is_shown(connection: sa.Connection) -> None:
    linked.hold(connection, [DENIED])
    (found,) = identity_evidence.contradictions(connection)
    assert (found["members"], found["schemes"], found["key"]) == (1, ["cn.fpr"], linked.digest(BORN_1970).hex())
    (member,) = identity_evidence.show(connection, linked.digest(BORN_1970))["members"]
    assert {claim["evidence"] for claim in member["claims"]} == {"itself", DENIED.key.hex()}


def test_evidence_is_shown(connection: sa.Connection) -> None:
    linked.landed_file(connection)
    linked.deliver(connection, [Said(A, B, born_on="1970-01-31"), Said(B, C, born_on="1971-01-31")])
    (found,) = identity_evidence.contradictions(connection)
    assert (found["members"], found["schemes"]) == (3, ["passport"])
    shown = identity_evidence.show(connection, bytes.fromhex(found["key"]))
    assert shown["state"] == "contradictory" and shown["cluster"] == [found["key"]] and len(shown["members"]) == 3
    assert {row["source"] for link in shown["links"] for row in link["rows"]} == {"links"}
    assert {claim["born_on"] for member in shown["members"] for claim in member["claims"]} == {
        "1970-01-31",
        "1971-01-31",
    }
    split(connection, "key:" + linked.digest(C).hex())
    shown = identity_evidence.show(connection, linked.digest(A))
    assert set(shown["cluster"]) == {linked.digest(A).hex(), linked.digest(B).hex()}
    assert [(row["kind"], row["actor"], row["ended"]) for row in shown["decisions"]] == [("split", "tester", False)]
    assert {line[0] for line in identity_evidence.lines(shown)} == {"member", "link", "split"}
    assert identity_evidence.show(connection, linked.digest(E))["state"] == "alone"


@pytest.mark.parametrize("parted", [(A, BORN_1970), (A,), (BORN_1970,)])
def test_a_split_ends_only_the_merge_that_is_in_the_way(connection: sa.Connection, parted: tuple[str, ...]) -> None:
    """Neither another merge of the same identifier nor a link that the merge had made wait is touched."""
    linked.deliver(connection, [Said(A, BORN_1980)])
    merge(connection, BORN_1970, D)
    merge(connection, B, BORN_1980)
    before = linked.dump(connection)
    merge(connection, A, BORN_1970)
    assert joined(connection, A) == {A, BORN_1970, D}
    split(connection, *parted)
    if parted == (BORN_1970,):
        assert joined(connection, BORN_1970) == {BORN_1970}, "it is none with D either"
    else:
        assert linked.dump(connection) == before


def test_what_stays_merged_does_not_join_who_was_split(connection: sa.Connection) -> None:
    linked.deliver(connection, [Said(A, C), Said(B, D)])
    merge(connection, A, B, C, D)
    split(connection, A, B)
    assert (joined(connection, A), joined(connection, B), joined(connection, C)) == ({A}, {B}, {C, D})
    assert set(states(connection).values()) == {"waiting"}, "to which of the two C and D belong nobody said"


some = st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True)
Statements = tuple[list[Said], list[list[str]], list[str]]
statements: st.SearchStrategy[Statements] = st.tuples(
    st.lists(st.builds(Said, *[st.sampled_from(NAMES)] * 2), max_size=6), st.lists(some, max_size=2), some
)
SETTINGS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@given(statements)
@example(([Said(A, B), Said(A, BORN_1970), Said(A, BORN_1980)], [], [A, B]))
@settings(max_examples=6, **SETTINGS)
def test_opposites_restore_whatever_there_is(connection: sa.Connection, made: Statements) -> None:
    check_opposites(connection, *made)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(1500)
@given(statements)
@settings(max_examples=300, **SETTINGS)
def test_opposites_restore_whatever_there_is_of_much(connection: sa.Connection, made: Statements) -> None:
    check_opposites(connection, *made)


def check_opposites(connection: sa.Connection, said: list[Said], merged: list[list[str]], pair: list[str]) -> None:
    """A merge and then a split, or of two that are one a split and then a merge: what is in force is what was before. Of
    two that earlier merges make one the opposite of a split is a merge of them, so there who is one is compared."""
    trial = connection.begin_nested()
    try:
        linked.deliver(connection, said)
        for names in merged:
            if names[1] not in joined(connection, names[0]):
                merge(connection, *names)
        before = linked.dump(connection)
        there, back = (split, merge) if pair[1] in joined(connection, pair[0]) else (merge, split)
        there(connection, *pair)
        back(connection, *pair)
        if there is merge or not merged:
            assert linked.dump(connection) == before
        else:
            assert pair[1] in joined(connection, pair[0])
    finally:
        trial.rollback()
