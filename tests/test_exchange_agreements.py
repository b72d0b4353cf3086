"""What an agreement admits, on both sides: what is signed, in force and suspended by nobody, and nothing else."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from connectors.errors import FatalError, UsageError, YiciError
from hub.exchange import agreement_terms, agreements, keys, peers
from hub.exchange.agreements import Agreement
from hub.home import Home
from mappings import model
from tests.test_protocol_agreements import admission
from tests.twohubs import Hub, Pair, introduce, pair

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture(scope="module")
def made(server_home: Home, template: str) -> Iterator[Pair]:
    with pair(server_home, template, ("zj", "sh")) as hubs:
        yield hubs


@pytest.fixture
def hubs(made: Pair) -> Pair:
    made.forget()
    return made


def admit(hubs: Pair, hub: Hub, reference: str | None, **more: Any) -> Agreement:
    """As ``hub`` does; by default a call that everything allows."""
    peer = "sh" if hub is hubs.zj else "zj"
    asked = {"mode": "index", "provider": hub is hubs.zj, "now": NOW, "peer": peer, **more}
    with hub.acting() as engine, engine.connect() as connection:
        return agreements.admit(connection, asked.pop("peer"), reference, **asked)


def code(hubs: Pair, reference: str | None, **more: Any) -> set[str]:
    """What both sides refuse it for, as one would hope the same; ``ok`` where they do not."""
    found = set()
    for hub in (hubs.zj, hubs.sh):
        try:
            admit(hubs, hub, reference, **more)
            found.add("ok")
        except YiciError as error:
            assert str(error)
            found.add(error.code)
    return found


EVIDENCE = {"mode": "evidence", "purpose": "handle-application"}
LICENCE = {**EVIDENCE, "materials": ["business-licence"]}
ASKED: list[tuple[dict[str, Any], str]] = [
    ({}, "ok"),
    ({"mode": None}, "ok"),
    ({"mode": "share"}, "mode-not-agreed"),
    ({"mode": "INDEX"}, "mode-not-agreed"),
    ({"mode": ""}, "mode-not-agreed"),
    (EVIDENCE, "ok"),
    ({"mode": "evidence"}, "purpose-not-agreed"),
    ({**EVIDENCE, "purpose": "curiosity"}, "purpose-not-agreed"),
    ({"purpose": "curiosity"}, "purpose-not-agreed"),
    ({"purpose": ""}, "purpose-not-agreed"),
    (LICENCE, "ok"),
    ({**LICENCE, "fields": []}, "ok"),
    ({**LICENCE, "fields": ["name", "status"]}, "ok"),
    ({**LICENCE, "fields": ["name", "valid_to"]}, "field-not-agreed"),
    ({**LICENCE, "fields": ["*"]}, "field-not-agreed"),
    ({**LICENCE, "fields": ["no_such"]}, "field-not-agreed"),
    ({**LICENCE, "fields": {"business-licence": ["holder.holder"]}}, "field-not-agreed"),
    ({**EVIDENCE, "fields": {"business-licence": ["name"]}}, "ok"),
    ({**EVIDENCE, "fields": {"resident-id-card": ["name"]}}, "material-not-agreed"),
    ({**EVIDENCE, "materials": ["household-register"], "fields": ["status"]}, "ok"),
    ({**EVIDENCE, "materials": ["household-register", "business-licence"], "fields": ["status"]}, "ok"),
    ({**EVIDENCE, "materials": ["household-register", "business-licence"], "fields": ["name"]}, "field-not-agreed"),
    ({**EVIDENCE, "materials": ["degree-certificate"]}, "material-not-agreed"),
    ({**EVIDENCE, "materials": ["no-such"]}, "material-not-agreed"),
    ({"materials": ["business-licence", "degree-certificate"]}, "material-not-agreed"),
    ({"materials": ["business-licence"], "fields": ["name"]}, "field-not-agreed"),  # an index tells no columns
    ({"materials": ["marriage-certificate"]}, "material-not-agreed"),
    ({**EVIDENCE, "materials": ["marriage-certificate"], "fields": ["status"]}, "ok"),
    ({"region": "330106"}, "ok"),
    ({"region": "33"}, "ok"),
    ({"region": "320000"}, "region-not-agreed"),
    ({"region": ""}, "region-not-agreed"),
    ({"region": "3"}, "region-not-agreed"),
]  # fmt: skip
MATERIALS = {
    "business-licence": ["certificate_number", "name", "status"],
    "household-register": ["status"],
    "marriage-certificate": "*",
}


@pytest.fixture
def agreed(made: Pair) -> uuid.UUID:
    """One agreement for all tests that only look at it."""
    known = agreements_made.get("agreed")
    if known is None or not made.rows(made.zj, known):
        made.forget()
        known = agreements_made["agreed"] = made.agree(materials=MATERIALS)
    return known


agreements_made: dict[str, uuid.UUID] = {}


@pytest.mark.parametrize(("asked", "expected"), ASKED, ids=str)
def test_what_is_not_written_is_not_allowed(
    made: Pair, agreed: uuid.UUID, asked: dict[str, Any], expected: str
) -> None:
    assert code(made, f"{agreed}/1", **asked) == {expected}


@pytest.mark.parametrize("reference", [
    None, "", "x", "{}", "{}/", "{}/0", "{}/2", "{}/01", "{}/+1", "{}/1 ", "{}/1/1", "{}/-1", "{}/9999999999999999", "{}/１",
])  # fmt: skip
def test_what_names_no_agreement(made: Pair, agreed: uuid.UUID, reference: str | None) -> None:
    assert code(made, reference and reference.format(agreed)) == {"agreement-unknown"}


def test_each_side_has_its_role_and_its_partner(made: Pair, agreed: uuid.UUID) -> None:
    for hub in (made.zj, made.sh):
        with pytest.raises(UsageError) as caught:
            admit(made, hub, f"{agreed}/1", provider=hub is not made.zj)
        assert caught.value.code == "agreement-unknown"
        with pytest.raises(UsageError) as caught:
            admit(made, hub, f"{agreed}/1", peer="js")
        assert caught.value.code == "agreement-unknown"
    here = admit(made, made.zj, f"{agreed}/1")
    assert (here.peer, here.provider, here.reference, here.state) == ("sh", True, f"{agreed}/1", "in_force")
    assert here.terms == admit(made, made.sh, f"{agreed}/1").terms
    assert here.materials("index") == ("business-licence", "household-register")
    assert here.materials("evidence") == tuple(MATERIALS) == here.materials(None)


def test_it_begins_and_ends_with_the_minute(hubs: Pair) -> None:
    end = (dt.datetime.now(dt.UTC) + dt.timedelta(days=400)).replace(second=0, microsecond=0)
    start = end - 2 * MINUTE
    agreed = hubs.agree(valid_from=start.isoformat(), valid_to=end.isoformat())
    tick = dt.timedelta(microseconds=1)
    for now, expected in (
        (start - tick, "agreement-not-in-force"), (start, "ok"), (end - tick, "ok"), (end, "agreement-not-in-force"),
    ):  # fmt: skip
        assert code(hubs, f"{agreed}/1", now=now) == {expected}


def test_what_waits_was_declined_or_ended_admits_nothing(hubs: Pair) -> None:
    done = hubs.propose(hubs.zj, hubs.sh)
    assert code(hubs, done.agreement) == {"agreement-not-in-force"}
    for state in ("declined", "ended", "superseded", "suspended", "whatever"):
        agreed = hubs.agree()
        for hub in (hubs.zj, hubs.sh):
            with hub.acting() as engine, engine.begin() as connection:
                set_state = sa.text("UPDATE exchange_agreement SET state = :state WHERE id = :id")
                connection.execute(set_state, {"state": state, "id": agreed})
        expected = {"superseded": "agreement-version-old", "suspended": "agreement-suspended"}
        assert code(hubs, f"{agreed}/1") == {expected.get(state, "agreement-not-in-force")}


TAMPERED = {
    "the document": "document = convert_to(replace(convert_from(document, 'UTF8'), '\"share\"', '\"index\"'), 'UTF8')",
    "one byte": "document = set_byte(document, 3, 65)",
    "the peer's signature": "peer_signature = own_signature",
    "its own signature": "own_signature = peer_signature",
    "another's signature": "peer_signature = (SELECT peer_signature FROM exchange_agreement WHERE id <> :id LIMIT 1)",
    "the end beside it": "valid_to = '9000-01-01'",
    "the beginning beside it": "valid_from = '1000-01-01'",
    "the id": "id = gen_random_uuid()",
    "the version": "version = 2",
    "no signature of the peer": "peer_signature = NULL",
    "no own signature": "own_signature = NULL",
    "the peer": "peer = 'js'",
    "the role": "provider = NOT provider",
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_altered_in_the_store_admits_nothing(hubs: Pair, what: str) -> None:
    """Whoever writes the store cannot widen what two hubs signed, though it was verified before and is in the cache."""
    hubs.agree()
    start = (dt.datetime.now(dt.UTC) + dt.timedelta(days=400)).replace(second=0, microsecond=0)
    end = start + MINUTE
    agreed = hubs.agree(modes=["share"], valid_from=start.isoformat(), valid_to=end.isoformat())
    change = sa.text(
        f"UPDATE exchange_agreement SET {TAMPERED[what]} WHERE id = :id RETURNING id, version, peer, provider"
    )
    for hub in (hubs.zj, hubs.sh):
        assert admit(hubs, hub, f"{agreed}/1", mode="share", now=start).terms.modes == ("share",)
        with hub.acting() as engine, engine.begin() as connection:
            row = connection.execute(change, {"id": agreed}).one()
        now = {"the end beside it": end, "the beginning beside it": start - MINUTE}.get(what, start)
        asked = {"peer": row.peer, "provider": row.provider, "now": now}
        for mode in ("share", "index", None):
            with pytest.raises(YiciError) as caught:
                admit(hubs, hub, f"{row.id}/{row.version}", mode=mode, **asked)
            assert caught.value.code in ("agreement-broken", "agreement-unknown", "agreement-not-in-force")


def test_it_is_checked_in_the_order_of_the_protocol(hubs: Pair) -> None:
    agreed = hubs.agree(materials=MATERIALS)

    def store(values: str) -> Callable[[], None]:
        def change() -> None:
            for hub in (hubs.zj, hubs.sh):
                with hub.acting() as engine, engine.begin() as connection:
                    update = f"UPDATE exchange_agreement SET {values} WHERE id = :id"
                    connection.execute(sa.text(update), {"id": agreed})

        return change

    asked = {
        "mode": "share", "purpose": "curiosity", "materials": ["no-such"], "fields": ["no_such"], "region": "310000",
        "now": NOW.replace(year=2999),
    }  # fmt: skip
    reference = [f"{agreed}/2"]
    store("state = 'suspended', suspended_by = '{zj}', replaced_at = '2026-02-01'")()
    mend: list[Callable[[], object]] = [
        lambda: reference.append(f"{agreed}/1"), store("state = 'in_force', suspended_by = '{}'"),
        store("replaced_at = NULL"), lambda: asked.update(now=NOW), lambda: asked.update(mode="evidence"),
        lambda: asked.update(purpose="handle-application"), lambda: asked.update(materials=["business-licence"]),
        lambda: asked.update(fields=["name"]), lambda: asked.update(region="330106"),
    ]  # fmt: skip
    found = []
    for repair in mend:
        [refusal] = code(hubs, reference[-1], **asked)
        found.append(refusal)
        repair()
    assert found == admission() and code(hubs, reference[-1], **asked) == {"ok"}


def test_a_hub_that_is_no_peer_any_more_is_given_nothing(hubs: Pair) -> None:
    agreed = hubs.agree()
    for hub, name in ((hubs.zj, "sh"), (hubs.sh, "zj")):
        with hub.acting() as engine, engine.begin() as connection:
            peers.remove(connection, name)
    assert code(hubs, f"{agreed}/1") == {"agreement-unknown"}
    assert hubs.agreement(hubs.zj, agreed).state == "in_force"  # it can still be looked at
    with hubs.zj.acting() as engine, engine.connect() as connection:
        assert [row.id for row in agreements.every(connection)] == [agreed]
        with pytest.raises(UsageError) as caught:
            agreements.choose(connection, "sh", mode="index", provider=True, now=NOW)
    assert caught.value.code == "agreement-unknown"


def test_it_outlives_the_keys_it_was_signed_with(hubs: Pair) -> None:
    agreed = hubs.agree()
    for hub in (hubs.zj, hubs.sh):
        with hub.acting():
            keys.rotate(dt.timedelta(0))
    introduce(hubs.hubs)
    agreements._verified.cache_clear()
    assert code(hubs, f"{agreed}/1") == {"ok"}
    assert code(hubs, f"{hubs.agree()}/1") == {"ok"}


def test_an_index_alone_shows_no_field(hubs: Pair) -> None:
    agreed = hubs.agree(modes=["index"])
    asked = {"materials": ["business-licence"], "fields": ["name"]}
    for mode in ("index", None):
        assert code(hubs, f"{agreed}/1", mode=mode, **asked) == {"field-not-agreed"}


def test_what_the_model_no_longer_shares_is_not_given(hubs: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    agreed = hubs.agree()
    now = {"materials": ["business-licence"], "fields": ["name"], **EVIDENCE}
    assert code(hubs, f"{agreed}/1", **now) == {"ok"}
    shareable = agreement_terms.shareable
    monkeypatch.setattr(agreements, "shareable", lambda code: None if code == "business-licence" else shareable(code))
    assert code(hubs, f"{agreed}/1", **now) == {"material-not-agreed"}
    assert model.load("business-licence").sharing.class_ != "none"


def test_admitting_is_one_indexed_read(made: Pair, agreed: uuid.UUID) -> None:
    with made.zj.acting() as engine, engine.connect() as connection:
        said: list[str] = []
        given: list[Any] = []

        def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
            said.append(statement)
            given.append(parameters)

        sa.event.listen(engine, "before_cursor_execute", note)
        try:
            for _ in range(3):
                agreements.admit(connection, "sh", f"{agreed}/1", provider=True, now=NOW, **LICENCE)  # type: ignore[arg-type]
        finally:
            sa.event.remove(engine, "before_cursor_execute", note)
        assert len(said) == 3
        connection.exec_driver_sql("SET enable_seqscan = off")
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {said[0]}", given[0]).scalars())
    assert plan.count("Index Scan") == 2 and "Seq Scan" not in plan


def test_signatures_are_verified_once_a_process(hubs: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    agreed = hubs.agree()
    made = []
    verify = agreements.verify
    monkeypatch.setattr(agreements, "verify", lambda *given: made.append(verify(*given)))
    agreements._verified.cache_clear()
    for _ in range(5):
        admit(hubs, hubs.zj, f"{agreed}/1")
    assert len(made) == 2  # its own and the peer's


def test_choosing_the_agreement_for_a_call(hubs: Pair) -> None:
    licences = hubs.agree(materials={"business-licence": ["name"]})
    registers = hubs.agree(materials={"household-register": ["status"]}, modes=["evidence"])

    def chosen(**more: Any) -> uuid.UUID:
        with hubs.sh.acting() as engine, engine.connect() as connection:
            asked: dict[str, Any] = {**EVIDENCE, "provider": False, "now": NOW, "peer": "zj", **more}
            return agreements.choose(connection, asked.pop("peer"), **asked).id

    assert chosen(materials=["business-licence"]) == licences
    assert chosen(materials=["household-register"], fields=["status"]) == registers
    assert chosen(mode="index") == licences
    for asked, code in (
        ({"mode": "share"}, "mode-not-agreed"), ({"provider": True}, "agreement-none"), ({"peer": "js"}, "agreement-none"),
        ({"materials": ["degree-certificate"]}, "material-not-agreed"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as caught:
            chosen(**asked)
        assert caught.value.code == code


def test_an_id_may_be_shortened(hubs: Pair) -> None:
    agreed = hubs.agree()
    other = hubs.agree()
    with hubs.sh.acting():
        assert agreements.named(str(agreed)) == agreements.named(f"{agreed}/1") == agreed
        shortest = next(n for n in range(1, 37) if str(agreed)[:n] != str(other)[:n])
        assert agreements.named(str(agreed)[:shortest].upper()) == agreed
        for text, expected in (("", "agreement-unknown"), ("%", "agreement-unknown"), ("zz", "agreement-unknown")):
            with pytest.raises(UsageError) as caught:
                agreements.named(text)
            assert caught.value.code == expected
        if str(agreed)[0] == str(other)[0]:
            with pytest.raises(UsageError) as caught:
                agreements.named(str(agreed)[0])
            assert caught.value.code == "agreement-ambiguous"


def test_a_broken_one_is_listed_as_such(hubs: Pair) -> None:
    agreed = hubs.agree()
    with hubs.zj.acting() as engine, engine.begin() as connection:
        connection.exec_driver_sql("UPDATE exchange_agreement SET document = set_byte(document, 3, 65)")
        [row] = agreements.every(connection, "sh")
        with pytest.raises(FatalError) as caught:
            agreements.opened(row)
    assert caught.value.code == "agreement-broken" and str(agreed) in str(caught.value)
