"""What a page of the feed says, to whom, and what it never says."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from connectors import indexpages
from connectors.block import ROW
from connectors.envelope import LIMIT
from connectors.indexframe import ENTRY, MEDIA_TYPE
from hub import database, index_feed, index_keys, partitions
from hub.exchange.announced import Given
from hub.home import Home, KeyedHash
from tests import examplepage, stored
from tests.conftest import _database
from tests.peering import announce, move, withdraw

KEY = index_keys.epoch_key(bytes(range(32)), "2026")
REGISTER = "zj-ga-households"


@pytest.fixture(scope="module")
def engine(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.Engine]:
    with _database(server_home, f"feed_{uuid.uuid4().hex}", template) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("YICI_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("YICI_DATABASE_URL", url)
        database.upgrade()
        yield database.engine()
        database.engine().dispose()


@pytest.fixture
def feed(engine: sa.Engine) -> Feed:
    stored.emptied(engine)
    stored.source(engine, REGISTER, "household-register", region="330000")
    return Feed(engine)


class Feed:
    """A hub with a feed, and what it may announce to somebody."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.given = Given(("household-register", "business-licence"), ("33",), "2026", KeyedHash(KEY))

    def allow(self, *materials: str, regions: tuple[str, ...] = ("33",)) -> None:
        self.given = Given(materials or self.given.materials, regions, "2026", KeyedHash(KEY))

    def hold(self, material: str = "household-register", region: str | None = "330106", **more: Any) -> str:
        holders = more.pop("holders", [("holder", "cn.ric", stored.RESIDENT)])
        key = stored.holding(self.engine, REGISTER, material, *holders, region=region, **more)
        announce(self.engine, key)
        return key

    def read(self, after: int = 0, limit: int = 100, **ends: int) -> dict[str, Any]:
        """The frame, with ``entries`` as the reader reads them."""
        with self.engine.begin() as connection:
            served = index_feed.page(connection, self.given, after, limit, **ends)
        assert served.type == MEDIA_TYPE
        return opened(served)


def opened(served: index_feed.Served) -> dict[str, Any]:
    told = json.loads(served.body.partition(b"\n")[0])
    page = indexpages.opened(examplepage.message(served.body), "330000", "test")
    entries = indexpages.block(page, "test").table.drop_columns([ROW]).to_pylist()
    assert len(entries) == served.entries and told["to"] == served.to
    return {**told, "entries": [{**entry, "position": int(entry["position"])} for entry in entries]}


def test_an_announcement(feed: Feed) -> None:
    holders = [("holder", "cn.ric", stored.RESIDENT), ("representative", "passport", "E12345678")]
    feed.allow("household-register")
    key = feed.hold(holders=holders, number="330106-1", name="户口簿", valid_from="2015-09-01", status="suspended")
    page = feed.read()
    [entry] = page.pop("entries")
    assert page == {
        "epoch": "2026", "after": 0, "to": 1, "head": 1, "more": False, "materials": ["household-register"],
        "regions": ["33"],
    }  # fmt: skip
    with feed.engine.connect() as connection:
        digest = connection.scalar(sa.text("SELECT digest FROM holding")).hex
        recorded = connection.scalar(sa.text("SELECT recorded_at FROM feed"))
    assert dt.datetime.fromisoformat(entry.pop("recorded_at")) == recorded
    subjects = [f"{role}:{index_keys.subject_id(KEY, scheme, value).hex()}" for role, scheme, value in holders]
    assert {name: entry[name] for name in ENTRY if name in entry} == {
        "handle": index_keys.handle(KEY, key).hex(),
        "material": "household-register",
        "region": "330106",
        "status": "suspended",
        "valid_from": "2015-09-01",
        "valid_to": None,
        "digest": KeyedHash(KEY).of(f"version:{digest}").hex(),
        "position": 1,
        "subjects": " ".join(subjects),
    }


def test_nothing_in_a_page_names_anybody(feed: Feed) -> None:
    key = feed.hold(number="330106-7", name="户口簿")
    with feed.engine.begin() as connection:
        body = index_feed.page(connection, feed.given, 0).body.decode()
    for value in (stored.RESIDENT, "330106-7", "户口簿", key, REGISTER):
        assert value not in body


def test_only_what_is_agreed_and_within_the_regions(feed: Feed) -> None:
    mine = feed.hold()
    feed.hold("marriage-certificate")  # not agreed
    feed.hold(region="310106")  # of another province: its own hub announces it
    page = feed.read()
    assert len(page["entries"]) == 1 and page["to"] == page["head"] == 3 and not page["more"]
    assert page["entries"][0]["handle"] == index_keys.handle(KEY, mine).hex()
    feed.allow(regions=("3302",))
    assert feed.read()["entries"] == []
    feed.hold(region="330203")
    assert [entry["region"] for entry in feed.read()["entries"]] == ["330203"]


def test_a_region_that_is_no_code_breaks_no_line(feed: Feed) -> None:
    feed.hold(region='33,"\n\r')
    feed.hold()
    assert [entry["region"] for entry in feed.read()["entries"]] == ["33", "330106"]


def test_a_holder_without_an_identifier_is_nobody(feed: Feed) -> None:
    feed.hold(holders=[("holder", "cn.ric", stored.RESIDENT), ("representative", "passport", "E12345678")])
    feed.hold()
    with feed.engine.begin() as connection:
        unnamed = """UPDATE mapped_row SET document = jsonb_set(document::jsonb, '{holders,0,value}', 'null')::text"""
        connection.execute(sa.text(unnamed))
    first, second = feed.read()["entries"]
    assert first["subjects"].startswith("representative:") and " " not in first["subjects"] and not second["subjects"]


def test_what_names_no_region_is_of_its_register(feed: Feed) -> None:
    """Silence about it would count, so it is announced; where the register is of another region it stays out."""
    held = feed.hold(region=None)
    entry = feed.read()["entries"][0]
    assert (entry["region"], entry["status"], entry["subjects"].count(":")) == ("330000", "in_force", 1)
    withdraw(feed.engine, held)
    assert [entry["status"] for entry in feed.read()["entries"]] == ["withdrawn"]
    with feed.engine.begin() as connection:
        connection.execute(sa.text("UPDATE source SET region = '310000'"))
    stranger = feed.hold(region=None)
    withdraw(feed.engine, stranger)
    feed.hold(region=None)
    assert feed.read()["entries"] == [], "never in scope, so not even withdrawn"


def test_each_holding_once_at_its_latest_position(feed: Feed) -> None:
    first, second = feed.hold(), feed.hold()
    announce(feed.engine, first, "changed")
    page = feed.read()
    assert [entry["position"] for entry in page["entries"]] == [2, 3]
    assert feed.read(after=2)["entries"] == page["entries"][1:]
    assert [entry["position"] for entry in feed.read(until=2)["entries"]] == [1, 2], "a read that began before it"
    withdraw(feed.engine, second)
    assert [(e["position"], e["status"]) for e in feed.read()["entries"]] == [(3, "in_force"), (4, "withdrawn")]


def test_parts_of_one_read_have_each_certificate_once(feed: Feed) -> None:
    """Where a part ends says nothing of which position is the latest."""
    first, _ = feed.hold(), feed.hold()
    announce(feed.engine, first, "changed")
    parts = [feed.read(to=1, until=3), feed.read(after=1, to=3, until=3)]
    assert [(part["to"], part["more"]) for part in parts] == [(1, True), (3, False)]
    assert [[entry["position"] for entry in part["entries"]] for part in parts] == [[], [2, 3]]


def test_what_leaves_the_scope_is_withdrawn_and_what_never_was_in_it_is_not_announced(feed: Feed) -> None:
    leaving, stranger = feed.hold(), feed.hold(region="310106")
    move(feed.engine, leaving, "310115")
    withdraw(feed.engine, stranger)
    gone = feed.hold()
    withdraw(feed.engine, gone)
    page = feed.read()
    found = [
        (e["position"], e["status"], e["subjects"], e["region"], e["digest"], e["valid_from"]) for e in page["entries"]
    ]
    assert found == [(3, "withdrawn", None, None, None, None), (6, "withdrawn", None, None, None, None)]


def test_pages_follow_each_other(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        feed.hold("household-register" if number % 2 else "marriage-certificate")
    pages, after = [], 0
    while not pages or pages[-1]["more"]:
        pages.append(feed.read(after, limit=2, until=7))
        after = pages[-1]["to"]
    assert [(page["after"], page["to"], len(page["entries"])) for page in pages] == [(0, 4, 2), (4, 7, 1)]
    monkeypatch.setattr(index_feed, "SCAN", 3)  # few positions are looked at: a page may be empty and not the last
    assert [(p["to"], len(p["entries"]), p["more"]) for p in (feed.read(0), feed.read(3))] == [
        (3, 1, True),
        (6, 2, True),
    ]
    beyond = feed.read(after=99)
    assert (beyond["to"], beyond["head"], beyond["more"], beyond["entries"]) == (99, 7, False, [])
    nothing = feed.read(until=0)
    assert (nothing["to"], nothing["head"], nothing["more"], nothing["entries"]) == (0, 7, False, [])


def test_a_page_fits_into_a_message(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(9):
        feed.hold(holders=[(f"member_{number}", "passport", f"E{number:08d}") for number in range(30)])
    whole = feed.read()
    assert index_feed.ROOM < LIMIT and len(whole["entries"]) == 9
    monkeypatch.setattr(index_feed, "ROOM", 6000)
    pages, after = [], 0
    while not pages or pages[-1]["more"]:
        pages.append(feed.read(after))
        after = pages[-1]["to"]
    assert [entry for page in pages for entry in page["entries"]] == whole["entries"] and len(pages) > 2


@pytest.mark.slow
def test_a_page_is_quick_in_a_large_store(feed: Feed) -> None:
    """10,000 entries out of 200,000 holdings in less than half a second (taken twofold: others use this machine)."""
    with feed.engine.begin() as connection:
        partitions.ensure(connection)
        for statement in _MANY:
            connection.execute(sa.text(statement), {"rows": 200_000})
    with feed.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
    feed.read()
    took = []
    for after in (0, 100_000, 190_000):
        began = dt.datetime.now()
        assert len(feed.read(after, limit=10_000)["entries"]) == 10_000
        took.append((dt.datetime.now() - began).total_seconds())
    assert min(took) < 1, took


_MANY = (
    """INSERT INTO holding (key, mapped, material, source, row_key, digest, updated_at, authority, observations, conflicting,
      status, valid_from, region, batch)
    SELECT substr(sha256(convert_to(i::text, 'UTF8')), 1, 16), i, 'household-register', 's', md5(i::text)::uuid,
      gen_random_uuid(), now(), 100, 1, false, 'in_force', '2020-01-01', '330106', 'b'
    FROM generate_series(1, :rows) AS i""",
    """INSERT INTO mapped_row (holding, id, source, row_key, file, "row", document)
    SELECT h.key, i, 's', h.row_key, 1, i, json_build_object('region', '330106',
        'holders', json_build_array(json_build_object('role', 'holder', 'scheme', 'cn.ric', 'value', i::text)))
    FROM generate_series(1, :rows) AS i JOIN holding AS h ON h.row_key = md5(i::text)::uuid""",
    """INSERT INTO feed (position, holding, material, change, digest, batch, recorded_at)
    SELECT row_number() OVER (ORDER BY key), key, material, 'added', digest, 'b', now() FROM holding""",
    "UPDATE feed_head SET position = :rows",
)
