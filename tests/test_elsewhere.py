"""A partner hub's index in answers: what it holds counts, its silence means no more than it can, and no answer turns wrong."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors.errors import FatalError
from hub import answers, cli, holdings, home, index_keys, knowledge, records
from hub.answers import Question
from hub.api.lookups import Answers
from hub.clock import CHINA
from tests import licences, partner, stored

# Invented, registered in Zhejiang; the last one elsewhere, in no index.
FIRM, GONE, ENDED = (licences.credit_code(number, region="330106", subject="MA2B") for number in (1, 2, 3))
OUTSIDER = "91440300708461136T"
PERSON = ("holder", "cn.ric", stored.RESIDENT)
DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def _partner(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partner.folder(tmp_path / "sources", monkeypatch)


def ask(engine: sa.Engine, applicant: str, item: str = "demo-food-permit", **more: object) -> dict[str, dict]:
    """Entries of the answer by requirement."""
    question = Question((item,), applicant, "test", "test", **more)  # type: ignore[arg-type]
    [answer] = answers.ask(engine, question)
    return {entry["requirement"]: entry for entry in answer["requirements"]} | {"": answer}


def ask_all(engine: sa.Engine) -> list[dict]:
    return answers.ask(engine, Question(("demo-food-permit",), f"cn.uscc:{FIRM}", "test", "test"))


def licence(engine: sa.Engine, applicant: str = f"cn.uscc:{FIRM}", **more: object) -> tuple[str, str]:
    entry = ask(engine, applicant, **more)["business-licence"]
    return entry["disposition"], entry["reason_code"]


def read(
    engine: sa.Engine, *rows: partner.Row, ago: dt.timedelta = dt.timedelta(0), regions: tuple[str, ...] = ("33",)
) -> None:
    """The partner's pages, which are about the materials of ``rows``, are read to their end, ``ago``."""
    about = {"materials": sorted({row["material"] for row in rows}), "regions": list(regions)}
    cursor = partner.cursor(max(row["epoch"] for row in rows), **about) if rows else None
    partner.merged(engine, list(rows), read=cursor)
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE source SET last_success_at = clock_timestamp() - :ago, promise_seconds = 172800"
                    " WHERE name = :name"), {"ago": ago, "name": partner.SOURCE}
        )  # fmt: skip


def test_what_a_partner_holds_need_not_be_handed_in(store: sa.Engine) -> None:
    row = partner.announcement(1, ("holder", "cn.uscc", FIRM), valid_to="2999-12-31")
    read(store, row)
    found = ask(store, f"cn.uscc:{FIRM}", language="zh")
    entry = found["business-licence"]
    assert entry["disposition"] == "held_elsewhere" and "business-licence" not in found[""]["must_submit"]
    [there] = entry["elsewhere"]
    read_at = dt.datetime.fromisoformat(there.pop("as_of"))
    assert there == {
        "handle": row["handle"], "hub": "zj", "source": partner.SOURCE, "material": "business-licence", "holder": "applicant",
        "region": "330106", "valid_to": "2999-12-31",
    }  # fmt: skip
    assert abs(dt.datetime.now(dt.UTC) - read_at) < dt.timedelta(minutes=1)
    assert "holdings" not in entry, "there is nothing here to fetch"
    given = {"answers": ask_all(store)}
    assert Answers.model_validate(given).model_dump(exclude_unset=True) == given, "as the OpenAPI document says"
    assert "zj" in entry["reason"] and "浙江省杭州市西湖区" in entry["reason"] and "营业执照" in entry["reason"]
    english = ask(store, f"cn.uscc:{FIRM}")["business-licence"]["reason"]
    assert "330106" in english and read_at.astimezone(CHINA).strftime("%H:%M") in english


def test_a_new_epoch_about_nothing_ends_what_the_partner_answered_for(store: sa.Engine) -> None:
    row = partner.announcement(1, ("holder", "cn.uscc", FIRM))
    scope = {"materials": ["business-licence"], "regions": ["33"]}
    partner.merged(store, [row], read=partner.cursor("2026", **scope))
    with store.connect() as connection:
        before = connection.scalar(sa.text("SELECT clock_timestamp()"))
    assert [source.hub for source in _sources(store, None)] == ["zj"]
    partner.merged(store, [], read=partner.cursor("2027", **{**scope, "materials": []}))
    with store.connect() as connection:
        after = connection.scalar(sa.text("SELECT clock_timestamp()"))
    assert _sources(store, None) == _sources(store, after) == ()
    assert [source.hub for source in _sources(store, before)] == ["zj"], "as it was known then"


def _sources(store: sa.Engine, at: dt.datetime | None) -> tuple[holdings.Freshness, ...]:
    materials = ["business-licence"]
    with store.connect() as connection:
        known = (
            holdings.recorded(connection, {}, materials, at) if at else knowledge.current(connection, {}, materials)[1]
        )
    return tuple(source for source in known.sources if source.material in materials)


def test_nobody_else_is_found_and_the_trace_names_nobody(store: sa.Engine) -> None:
    row = partner.announcement(1, ("holder", "cn.uscc", FIRM))
    read(store, row)
    assert licence(store, f"cn.uscc:{OUTSIDER}") == ("submit", "no-source")
    kept = records.explain(store, ask(store, f"cn.uscc:{FIRM}")[""]["answer"])
    rules = {entry["requirement"]: entry for entry in kept["trace"]["requirements"]}
    assert rules["business-licence"]["options"][0][0]["entries"] == [
        {"entry": row["handle"], "source": partner.SOURCE, "epoch": "2026", "status": "in_force"}
    ]
    assert {"hub": "zj", "region": "330000", "late": False}.items() <= kept["trace"]["sources"][0].items()
    subject = row["subjects"].partition(":")[2]
    for secret in (FIRM, subject, home.keyed_hash().of(f"index:{partner.SOURCE}:2026:{subject}").hex()):
        assert secret not in json.dumps(kept)


def test_our_own_comes_first(store: sa.Engine) -> None:
    read(store, partner.announcement(1, ("holder", "cn.uscc", FIRM)))
    stored.source(store, "zj-amr-enterprises", "business-licence", region="330000")
    stored.holding(store, "zj-amr-enterprises", "business-licence", ("holder", "cn.uscc", FIRM), valid_to="2020-01-01")
    found = ask(store, f"cn.uscc:{FIRM}")["business-licence"]
    assert found["disposition"] == "held_elsewhere", "ours has ended, theirs has not"
    stored.holding(store, "zj-amr-enterprises", "business-licence", ("holder", "cn.uscc", FIRM))
    assert licence(store) == ("held", "held")


def test_every_party_of_a_question_is_looked_for(store: sa.Engine) -> None:
    read(store, partner.announcement(1, PERSON, material="resident-id-card"))
    facts = {"legal_representative_in_person": True}
    named = {"legal_representative": f"cn.ric:{stored.RESIDENT}"}
    found = ask(store, f"cn.uscc:{FIRM}", facts=facts, roles=named)["legal-representative-identity"]
    assert found["disposition"] == "held_elsewhere"
    assert found["elsewhere"][0]["holder"] == "legal_representative"


def test_an_epoch_changes_under_a_running_service(store: sa.Engine) -> None:
    row = partner.announcement(1, ("holder", "cn.uscc", FIRM))
    read(store, row)
    assert licence(store) == ("held_elsewhere", "elsewhere")
    read(store, partner.announcement(1, ("holder", "cn.uscc", FIRM), epoch="2027"))
    assert licence(store) == ("held_elsewhere", "elsewhere"), "the new key is used at once"
    before = dt.datetime.now(dt.UTC)
    read(store, partner.withdrawn(partner.announcement(1, epoch="2027"), "2026-08-01T00:00:00Z"))
    assert licence(store) == ("submit", "absent")
    assert licence(store, as_of=before) == ("held_elsewhere", "elsewhere")


def test_what_a_partner_no_longer_tells_us_of_is_not_its_to_know(store: sa.Engine) -> None:
    applicant, late = f"cn.uscc:{GONE}", dt.timedelta(days=3)
    read(store, partner.announcement(1, ("holder", "cn.uscc", FIRM)), ago=late)
    assert licence(store, applicant) == ("undetermined", "hub-late")
    before = dt.datetime.now(dt.UTC)
    read(store, partner.announcement(2, PERSON, epoch="2027", material="resident-id-card"), ago=late)
    assert licence(store, applicant) == ("submit", "no-source"), "a new epoch is about other materials"
    with store.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE batch SET finished_at = finished_at - make_interval(days => 3) WHERE cursor ->> 'epoch' = '2026'"
            )
        )
    assert licence(store, applicant, as_of=before) == ("undetermined", "hub-late")


@pytest.mark.parametrize("regions", [("3301",), ("3301", "3302"), ("330106",), ("3300",)])
def test_silence_about_a_part_of_a_province_says_nothing_of_the_province(
    store: sa.Engine, regions: tuple[str, ...]
) -> None:
    """An agreement for one city: what is held in another the partner was never allowed to tell."""
    applicant = f"cn.uscc:{GONE}"
    read(store, partner.announcement(1, ("holder", "cn.uscc", FIRM)))
    assert licence(store, applicant) == ("submit", "absent"), "of the whole province it would have told"
    told = partner.announcement(1, ("holder", "cn.uscc", FIRM), epoch="2027", valid_to="2020-01-01")
    read(store, told, regions=regions)
    before = dt.datetime.now(dt.UTC)
    assert licence(store, applicant) == ("submit", "no-source"), "nobody who would know is connected"
    assert licence(store, applicant, as_of=before) == ("submit", "no-source")
    assert licence(store) == ("expired", "expired"), "what it says counts"
    read(store, told, regions=regions, ago=dt.timedelta(days=3))
    assert licence(store, applicant) == ("submit", "no-source"), "nor does its lateness leave it open"
    assert licence(store) == ("undetermined", "hub-late"), "but of whom it spoke"
    [source] = _sources(store, None)
    assert source.region == " ".join(regions) and not source.whole
    stored.source(store, "zj-amr-enterprises", "business-licence", region="330000")
    found = ask(store, applicant)["business-licence"]
    assert found["reason_code"] == "absent" and "zj-amr-enterprises" in found["reason"]
    assert partner.SOURCE not in found["reason"], "it is not said of the part that it has none"


def test_what_was_known_then(store: sa.Engine) -> None:
    row = partner.announcement(1, ("holder", "cn.uscc", FIRM))
    partner.merged(store, [row])
    first = dt.datetime.now(dt.UTC)
    partner.merged(store, [{**row, "status": "revoked", "recorded_at": "2026-08-01T00:00:00Z"}])
    partner.merged(store, [partner.announcement(7, PERSON, epoch="2027")])
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE source SET promise_seconds = 172800"))
    assert licence(store, as_of=first) == ("held_elsewhere", "elsewhere"), "under the key of an epoch that is over"
    [there] = ask(store, f"cn.uscc:{FIRM}", as_of=first)["business-licence"]["elsewhere"]
    assert dt.datetime.fromisoformat(there["as_of"]) <= first
    assert licence(store, as_of=first - DAY) == ("submit", "no-source")
    assert licence(store) == ("submit", "absent")


def test_one_query_answers_until_the_keys_change(store: sa.Engine) -> None:
    asked: list[str] = []
    sa.event.listen(
        store, "before_cursor_execute", lambda *call: asked.append(call[2]) if "holding_holder" in call[2] else None
    )
    holders = {b"0" * 16: ("cn.uscc", FIRM)}
    with store.connect() as connection:
        knowledge.current(connection, holders, ["business-licence"])
        asked.clear()
        for _ in range(3):
            knowledge.current(connection, holders, ["business-licence"])
        assert len(asked) == 3
        read(store, partner.announcement(1, ("holder", "cn.uscc", FIRM)))
        asked.clear()
        for _ in range(3):
            [found] = knowledge.current(connection, holders, ["business-licence"])[0].subject(b"0" * 16).found
        assert len(asked) == 4 and found.shape.roles == ("holder",)


def test_without_the_sealing_key_no_answer_is_given(store: sa.Engine) -> None:
    read(store, partner.announcement(1, ("holder", "cn.uscc", FIRM)))
    (home.current().keys / index_keys.SEALING_KEY).write_bytes(b"A" * 44)
    with pytest.raises(FatalError) as refused:
        licence(store)
    assert refused.value.code == "index-key-unreadable"


def test_stopping_the_partner_turns_no_answer_wrong(store: sa.Engine) -> None:
    """Step by step later: what it said stays, its silence opens what it alone knows, and nothing else changes."""
    there, gone, ended, stranger, local = (
        f"cn.uscc:{code}" for code in (FIRM, GONE, ENDED, OUTSIDER, stored.LICENCE_CODE)
    )
    stored.source(store, "sh-amr-enterprises", "business-licence")
    read(
        store,
        partner.announcement(1, ("holder", "cn.uscc", FIRM)),
        partner.announcement(2, ("holder", "cn.uscc", ENDED), valid_to="2020-01-01"),
    )
    stored.holding(store, "sh-amr-enterprises", "business-licence", ("holder", "cn.uscc", stored.LICENCE_CODE))
    in_time = {there: "held_elsewhere", gone: "submit", ended: "expired", stranger: "submit", local: "held"}
    silent = {there: "held_elsewhere", gone: "undetermined", ended: "undetermined", stranger: "submit", local: "held"}
    for hours, expected in ((0, in_time), (24, in_time), (47, in_time), (49, silent), (24 * 30, silent)):
        with store.begin() as connection:
            connection.execute(
                sa.text("UPDATE source SET last_success_at = clock_timestamp() - make_interval(hours => :hours)"
                        " WHERE name = :name"), {"hours": hours, "name": partner.SOURCE}
            )  # fmt: skip
        given = {applicant: ask(store, applicant)["business-licence"] for applicant in expected}
        assert {applicant: entry["disposition"] for applicant, entry in given.items()} == expected, f"after {hours} h"
        for entry in given.values():
            if entry["disposition"] == "undetermined":
                assert "zj" in entry["next_step"] and partner.SOURCE in entry["next_step"]
        read_at = dt.datetime.fromisoformat(given[there]["elsewhere"][0]["as_of"])
        assert abs(dt.datetime.now(dt.UTC) - read_at - dt.timedelta(hours=hours)) < dt.timedelta(minutes=1)
    read(store)
    assert licence(store, gone) == ("submit", "absent"), "back, and nothing new"


def test_people_read_where_it_is_and_what_may_wait(store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    read(store, partner.announcement(1, ("holder", "cn.uscc", FIRM), valid_to="2999-12-31"))
    asked = ["lookup", "--item", "demo-branch-registration", "--id", f"cn.uscc:{FIRM}"]
    for lang, words in {
        "zh": ("外省已有", "容缺或承诺", "可后补或承诺", "zj · 330106 · → 2999-12-31"),
        "en": ("held_elsewhere", "deferred", "Deferred: ", "zj · 330106 · → 2999-12-31"),
    }.items():
        done = CliRunner().invoke(cli.app, [*asked, "--lang", lang])
        assert done.exit_code == 0
        assert all(word in done.stdout for word in words), done.stdout
    number = re.search(r"yici explain ([0-9a-f-]{36})", done.stdout)
    assert number is not None
    explained = CliRunner().invoke(cli.app, ["explain", number[1]])
    assert f"elsewhere (elsewhere) {partner.SOURCE} 2026 in_force" in explained.stdout
    assert "zj 330000" in explained.stdout
