"""Bulk shares over real HTTP: what the stock Delta Sharing client reads, and what is refused."""

from __future__ import annotations

import base64
import datetime as dt
import io
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import delta_sharing
import pandas as pd
import pytest
import requests
import sqlalchemy as sa

from hub import database
from hub.api import sharing
from hub.api.app import create
from hub.exchange import ledger, share_tables, share_versions, shares
from hub.home import Home
from tests import stored
from tests.peering import PartnerHub, move, partner_hub, withdraw
from tests.serving import Hub, served
from tests.sharing import LICENCE, Reader, agree, as_zj, change, licence, set_state

COLUMNS = [
    "certificate_number", "name", "region", "valid_from", "status", "holder.holder.scheme", "holder.holder.value",
    "holder.holder.name", "attributes.registered_capital", "attributes.registered_on",
]  # fmt: skip
BOTH = pytest.mark.parametrize("delta", [False, True])
JsonHint = dict[str, Any]


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    (app := create()).state.attempts.allowed = 10_000
    with served(app) as address:
        yield address


@pytest.fixture
def held(store: sa.Engine) -> list[str]:
    """Three licences of Zhejiang, beside one of Shanghai."""
    with as_zj():
        found = [licence(store, number) for number in (1, 2, 3)]
        licence(store, 9, region="310117")
    return found


@pytest.fixture
def reader(store: sa.Engine, held: list[str], base: str, tmp_path: Path) -> Iterator[Reader]:
    """A share with the licences in its first version."""
    with as_zj():
        named = agree(store)
        share_tables.publish(named)
        yield Reader(store, named, base, tmp_path)


@pytest.fixture(scope="module")
def filled(
    base: str, server_home: Home, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PartnerHub, Reader]]:
    with partner_hub(server_home, served=False) as hub:
        with hub.acting() as engine:
            for number in (1, 2, 3):
                licence(engine, number)
            licence(engine, 9, region="310117")
            named = agree(engine)
            share_tables.publish(named)
            reader = Reader(engine, named, base, tmp_path_factory.mktemp("profiles"))
        yield hub, reader


@pytest.fixture
def still(filled: tuple[PartnerHub, Reader]) -> Iterator[Reader]:
    """As ``reader``, one for all tests that change nothing."""
    with filled[0].acting():
        yield filled[1]


def numbers(found: pd.DataFrame) -> list[str]:
    return sorted(found["certificate_number"])


def equal(column: str, value: str, kind: str = "string") -> JsonHint:
    children = [
        {"op": "column", "name": column, "valueType": kind},
        {"op": "literal", "value": value, "valueType": kind},
    ]
    return {"op": "equal", "children": children}


def records(engine: sa.Engine) -> list[sa.Row[Any]]:
    query = "SELECT peer, direction, kind, agreement, outcome, detail, request, reply FROM exchange_record ORDER BY id"
    with engine.connect() as connection:
        return list(connection.execute(sa.text(query)))


def test_shares_schemas_and_tables(still: Reader) -> None:
    (share,) = still.client.list_shares()
    assert share.name == str(still.named)
    assert [schema.name for schema in still.client.list_schemas(share)] == ["materials"]
    tables = still.client.list_all_tables()
    assert [(table.share, table.schema, table.name) for table in tables] == [(share.name, "materials", LICENCE)]
    assert tables == still.client.list_tables(still.client.list_schemas(share)[0])
    assert still.get(f"/shares/{share.name.upper()}").json() == {"share": {"name": share.name, "id": share.name}}


@BOTH
def test_a_table_whole(still: Reader, delta: bool) -> None:
    found = still.read(use_delta_format=delta).sort_values("certificate_number")
    assert list(found.columns) == COLUMNS
    assert found.astype(object).where(found.notna(), None).to_dict("records")[1] == {
        "certificate_number": "33-0002", "name": "企业2", "region": "330106", "valid_from": dt.date(2020, 1, 2),
        "status": "in_force", "holder.holder.scheme": "cn.uscc", "holder.holder.value": "913300000000000002",
        "holder.holder.name": None, "attributes.registered_capital": {"amount": Decimal("2.5000"), "currency": "CNY"},
        "attributes.registered_on": dt.date(2020, 2, 3),
    }  # fmt: skip
    assert numbers(found) == ["33-0001", "33-0002", "33-0003"]
    assert len(still.read(use_delta_format=delta, convert_in_batches=True)) == 3


@BOTH
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5])
def test_a_limit_is_kept_by_the_server(still: Reader, limit: int, delta: bool) -> None:
    assert len(still.read(limit=limit, use_delta_format=delta)) == min(limit, 3)
    lines = still.query(limitHint=limit).text.splitlines()[2:]
    counted = [json.loads(json.loads(line)["file"]["stats"])["numRecords"] for line in lines]
    assert sum(counted) == min(limit, 3)


@BOTH
@pytest.mark.parametrize(
    ("hint", "wanted"),
    [
        (equal("name", "企业2"), ["33-0002"]),
        (equal("attributes.registered_on", "2020-02-04", "date"), ["33-0003"]),
        ({"op": "not", "children": [equal("name", "企业2")]}, ["33-0001", "33-0003"]),
        ({"op": "or", "children": [equal("name", "企业1"), equal("certificate_number", "33-0003")]}, ["33-0001", "33-0003"]),
        ({"op": "isNull", "children": [{"op": "column", "name": "holder.holder.name", "valueType": "string"}]}, ["33-0001", "33-0002", "33-0003"]),
        (equal("name", "企业9"), []),  # Shanghai's
    ],
)  # fmt: skip
def test_json_hints_are_kept_by_the_server(still: Reader, hint: JsonHint, wanted: list[str], delta: bool) -> None:
    """The client itself filters nothing: what it has is what was sent."""
    found = still.read(jsonPredicateHints=json.dumps(hint), use_delta_format=delta)
    assert numbers(found) == wanted and list(found.columns) == COLUMNS


def test_sql_hints_are_kept_by_the_server(still: Reader) -> None:
    assert numbers(still.hinted("attributes.registered_on > '2020-02-02'")) == ["33-0002", "33-0003"]
    assert numbers(still.hinted("name <> '企业1'", "'33-0003' > certificate_number")) == ["33-0002"]
    assert len(still.hinted("name <> '企业1'", limit=1)) == 1
    both = still.query(
        predicateHints=["name <> '企业1'"], jsonPredicateHints=json.dumps(equal("region", "330106")), limitHint=5
    )
    (line,) = both.text.splitlines()[2:]
    assert json.loads(json.loads(line)["file"]["stats"]) == {"numRecords": 2}


def test_columns_that_are_asked_for(still: Reader) -> None:
    """An addition of ours to the body. What a condition looks at need not be among them."""
    answer = still.query(columns=["name", "certificate_number"], predicateHints=["region = '330106'", "name = '企业3'"])
    _, metadata, line = map(json.loads, answer.text.splitlines())
    named = [field["name"] for field in json.loads(metadata["metaData"]["schemaString"])["fields"]]
    found = pd.read_parquet(fetched(line["file"]["url"]))
    assert named == list(found.columns) == ["certificate_number", "name"]  # in the order of the table
    assert found.to_dict("records") == [{"certificate_number": "33-0003", "name": "企业3"}]


def fetched(url: str) -> io.BytesIO:
    answer = requests.get(url, timeout=30)
    assert answer.status_code == 200, answer.text
    return io.BytesIO(answer.content)


@BOTH
def test_versions(reader: Reader, store: sa.Engine, held: list[str], delta: bool) -> None:
    between = [dt.datetime.now(dt.UTC)]
    for act in (
        lambda: change(store, held[0], name="改名"),
        lambda: withdraw(store, held[1]),
        lambda: licence(store, 4),
    ):
        time.sleep(0.01)
        act()
        share_tables.publish(reader.named)
        between.append(dt.datetime.now(dt.UTC))
    wanted = [
        ["33-0001", "33-0002", "33-0003"],
        ["33-0001", "33-0002", "33-0003"],
        ["33-0001", "33-0003"],
        ["33-0001", "33-0003", "33-0004"],
    ]
    assert reader.version() == 3
    for number, at in enumerate(between):
        found = reader.read(version=number, use_delta_format=delta)
        assert numbers(found) == wanted[number]
        assert ("改名" in set(found["name"])) == (number > 0)
        text = at.isoformat().replace("+00:00", "Z")
        assert numbers(reader.read(timestamp=text, use_delta_format=delta)) == wanted[number]
        if number < 3:
            assert reader.version(text) == number + 1
    local = between[1].astimezone(dt.timezone(dt.timedelta(hours=8))).replace(tzinfo=None)
    assert numbers(reader.read(timestamp=str(local), use_delta_format=delta)) == wanted[1]  # China's, without a zone


@BOTH
def test_changes(reader: Reader, store: sa.Engine, held: list[str], delta: bool) -> None:
    first = dt.datetime.now(dt.UTC)
    time.sleep(0.01)
    change(store, held[0], name="改名")
    withdraw(store, held[1])
    share_tables.publish(reader.named)
    move(store, held[2], "310117")
    licence(store, 4)
    share_tables.publish(reader.named)
    move(store, held[2], "330106")
    share_tables.publish(reader.named)

    def told(**span: Any) -> list[tuple[int, str, str, str]]:
        found = reader.changes(**span, use_delta_format=delta)
        assert set(found.columns) == {*COLUMNS, "_change_type", "_commit_version", "_commit_timestamp"}
        return sorted(
            zip(
                found["_commit_version"], found["certificate_number"], found["_change_type"], found["name"], strict=True
            )
        )

    made = [(0, f"33-000{number}", "insert", f"企业{number}") for number in (1, 2, 3)]
    one = [
        (1, "33-0001", "update_postimage", "改名"),
        (1, "33-0001", "update_preimage", "企业1"),
        (1, "33-0002", "delete", "企业2"),
    ]
    two = [(2, "33-0003", "delete", "企业3"), (2, "33-0004", "insert", "企业4")]
    three = [(3, "33-0003", "insert", "企业3")]
    assert told(starting_version=0) == [*made, *one, *two, *three]
    assert told(starting_version=1, ending_version=2) == [*one, *two]
    assert told(starting_version=3) == three
    text = first.isoformat().replace("+00:00", "Z")
    assert told(starting_timestamp=text) == [*one, *two, *three]
    later = dt.datetime.now(dt.UTC).isoformat()
    assert told(starting_version=2, ending_timestamp=later) == [*two, *three]
    stamps = reader.changes(starting_version=0, use_delta_format=delta)["_commit_timestamp"]
    if not delta:  # delta-kernel takes it from files that the client writes, in whole seconds
        with store.connect() as connection:
            known = connection.scalars(sa.text("SELECT made_at FROM share_version ORDER BY version")).all()
        assert sorted(set(stamps)) == [round(at.timestamp() * 1000) for at in known]


@BOTH
def test_an_empty_table(reader: Reader, store: sa.Engine, held: list[str], delta: bool) -> None:
    for key in held:
        withdraw(store, key)
    share_tables.publish(reader.named)
    assert list(reader.read(use_delta_format=delta).columns) == COLUMNS
    assert len(reader.read(use_delta_format=delta)) == 0
    assert list(reader.changes(starting_version=1, use_delta_format=delta)["_change_type"]) == ["delete"] * 3


def test_what_is_said_of_a_table(still: Reader) -> None:
    found = delta_sharing.get_table_metadata(still.url(), use_delta_format=False)
    fields = json.loads(found.schema_string)["fields"]
    assert [field["name"] for field in fields] == COLUMNS
    assert fields[-1] == {"name": "attributes.registered_on", "type": "date", "nullable": True,
                          "metadata": {"comment": "成立日期 Date of registration"}}  # fmt: skip
    assert found.configuration == {"enableChangeDataFeed": "true"} and found.num_files == 1 and found.version == 0
    assert delta_sharing.get_table_protocol(still.url()).min_reader_version == 1
    answer = still.get(still.at("metadata"))
    assert answer.headers["Content-Type"] == "application/x-ndjson; charset=utf-8" and answer.text.isascii()
    assert answer.headers["delta-sharing-capabilities"] == "responseformat=parquet"
    either = {"delta-sharing-capabilities": "responseformat=delta,parquet;readerfeatures=deletionvectors"}
    assert (
        "responseformat=parquet"
        in still.get(still.at("metadata"), headers=either).headers["delta-sharing-capabilities"]
    )
    delta = still.get(still.at("metadata"), headers={"delta-sharing-capabilities": "responseformat=DELTA"})
    protocol, metadata = map(json.loads, delta.text.splitlines())
    assert protocol == {"protocol": {"deltaProtocol": {"minReaderVersion": 1, "minWriterVersion": 4}}}
    assert metadata["metaData"]["deltaMetadata"]["configuration"] == {"delta.enableChangeDataFeed": "true"}
    assert metadata["metaData"]["deltaMetadata"]["id"] == found.id


def test_pages_of_lists(reader: Reader, store: sa.Engine) -> None:
    register = "household-register"
    agree(store, reader.named, 2, materials={LICENCE: ["name"], register: ["status"], "degree-certificate": ["status"]})
    reader = Reader(store, reader.named, reader.base.removesuffix("/delta"), reader.path.parent)
    tables = f"/shares/{reader.named}/all-tables"
    seen, page = [], ""
    while True:
        answer = reader.get(tables, params={"maxResults": 1, "pageToken": page}).json()
        seen += [item["name"] for item in answer["items"]]
        if not (page := answer.get("nextPageToken", "")):
            break
        assert len(answer["items"]) == 1
    assert seen == sorted(["degree-certificate", LICENCE, register])
    assert [table.name for table in reader.client.list_all_tables()] == seen
    none = reader.get(tables, params={"maxResults": 0}).json()
    assert (
        none["items"] == []
        and reader.get(tables, params={"pageToken": none["nextPageToken"]}).json()["items"][0]["name"] == seen[0]
    )
    for wrong in (
        {"maxResults": -1},
        {"maxResults": "x"},
        {"pageToken": "%%"},
        {"pageToken": base64.urlsafe_b64encode(b"x:a").decode()},
    ):
        reader.refused(reader.get(tables, params=wrong), 400, "share-parameters")


BODIES: list[tuple[Any, str]] = [
    ({"predicateHints": ["name LIKE '%'"]}, "share-predicate-unreadable"),
    ({"predicateHints": ["attributes.enterprise_type = 'x'"]}, "share-predicate-column"),
    ({"predicateHints": ["name = 1"]}, "share-predicate-type"),
    ({"jsonPredicateHints": "{}"}, "share-predicate-unreadable"),
    ({"jsonPredicateHints": equal("name", "x")}, "share-parameters"),  # the protocol has it as text
    ({"predicateHints": "name = 'a'"}, "share-parameters"),
    ({"columns": ["attributes.enterprise_type"]}, "share-columns"),
    ({"columns": []}, "share-columns"),
    ({"columns": ["name", "key"]}, "share-columns"),
    ({"limitHint": -1}, "share-parameters"),
    ({"limitHint": "1"}, "share-parameters"),
    *(
        ({name: number, "predicateHints": ["status = 'in_force'"]}, "share-parameters")
        for name in ("limitHint", "version", "maxFiles")
        for number in (-1, 2**63, 2**64, 10**25, 10**4000)
    ),
    ({"timestamp": "2026-03-01T08:00:00." + "0" * 4000 + "Z"}, "share-parameters"),
    ({"timestamp": "9999-12-31T23:59:59-14:00"}, "share-time-invalid"),
    ({"predicateHints": ["name = '\ud800'"]}, "share-parameters"),
    ({"columns": ["\ud800"]}, "share-parameters"),
    ({"jsonPredicateHints": json.dumps(equal("name", "\ud800"))}, "share-predicate-unreadable"),
    ({"jsonPredicateHints": json.dumps(equal("\ud800", "x"))}, "share-predicate-column"),
    ({"version": 0, "timestamp": "2026-03-01T08:00:00Z"}, "share-parameters"),
    ({"version": -1}, "share-parameters"),
    ({"timestamp": "yesterday"}, "share-time-invalid"),
    ({"timestamp": "2026-02-30T08:00:00Z"}, "share-time-invalid"),
    ({"startingVersion": 0}, "share-parameters"),
    ({"somethingNew": True}, "share-parameters"),
    ([], "share-parameters"),
]


@pytest.mark.parametrize(("body", "code"), BODIES)
def test_questions_that_are_refused(still: Reader, body: Any, code: str) -> None:
    before = len(records(database.engine()))
    answer = still.session.post(still.base + still.at("query"), json=body, timeout=30)
    still.refused(answer, 400, code)
    assert [(row.kind, row.outcome) for row in records(database.engine())[before:]] == [("share.query", code)]


@pytest.mark.parametrize("limit", [2**32, 2**63 - 1])
def test_a_limit_may_be_large(still: Reader, limit: int) -> None:
    (line,) = still.query(predicateHints=["name <> '企业1'"], limitHint=limit).text.splitlines()[2:]
    assert json.loads(json.loads(line)["file"]["stats"]) == {"numRecords": 2}


def test_other_refusals(still: Reader) -> None:
    def get(path: str, status: int, code: str, **more: Any) -> requests.Response:
        answer = still.get(path, **more)
        still.refused(answer, status, code)
        return answer

    get("/shares/other/schemas", 404, "share-unknown")
    get(f"/shares/{still.named}/schemas/other/tables", 404, "share-unknown")
    get(still.at("version", "household-register"), 404, "share-table-unknown")
    get(still.at("version") + "?startingTimestamp=2999-01-01T00:00:00Z", 404, "share-version-unknown")
    get(still.at("version") + "?startingTimestamp=soon", 400, "share-time-invalid")
    get(still.at("metadata"), 400, "share-format", headers={"delta-sharing-capabilities": "responseformat=iceberg"})
    for span in ("", "startingVersion=0&startingTimestamp=2026-03-01T08:00:00Z", "startingVersion=x", "startingVersion=-1",
                 "startingVersion=0&endingVersion=0&endingTimestamp=2999-01-01T00:00:00Z"):  # fmt: skip
        get(still.at("changes") + "?" + span, 400, "share-parameters")
    for span in ("startingVersion=1", "startingVersion=0&endingVersion=1", "startingTimestamp=2999-01-01T00:00:00Z"):
        get(still.at("changes") + "?" + span, 404, "share-version-unknown")
    still.refused(still.query(version=7), 404, "share-version-unknown")
    still.refused(still.query(timestamp="2000-01-01 00:00:00"), 404, "share-version-unknown")
    get("/somewhere", 404, "share-address-unknown")
    still.refused(still.session.delete(still.base + "/shares", timeout=30), 404, "share-address-unknown")
    still.refused(still.session.get(still.base + still.at("query"), timeout=30), 404, "share-address-unknown")
    large = still.session.post(still.base + still.at("query"), data=b"x" * 70_000, timeout=30)
    still.refused(large, 413, "body-too-large")
    chinese = get("/shares/other", 404, "share-unknown", headers={"Accept-Language": "zh"})
    assert "共享" in chinese.json()["message"]


def test_what_was_not_published(reader: Reader, store: sa.Engine) -> None:
    named = agree(store, materials={LICENCE: ["name"]})
    other = Reader(store, named, reader.base.removesuffix("/delta"), reader.path.parent)
    other.refused(other.get(other.at("version")), 404, "share-not-published")
    other.refused(other.query(), 404, "share-not-published")
    other.refused(other.get(f"/shares/{reader.named}/schemas"), 404, "share-unknown")  # of another agreement


def test_whose_token_it_is(reader: Reader, store: sa.Engine) -> None:
    def asked(header: str | None) -> requests.Response:
        return requests.get(f"{reader.base}/shares", headers={"Authorization": header} if header else {}, timeout=30)

    for header, code in ((None, "token-missing"), ("Basic eDp5", "token-missing"), ("Bearer x", "token-invalid")):
        answer = asked(header)
        reader.refused(answer, 401, code)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "profile" in answer.json()["message"] and "oauth2" not in answer.text
        chinese = requests.get(f"{reader.base}/shares", headers={"Accept-Language": "zh"}, timeout=30)
        assert "配置文件" in chinese.json()["message"] and "oauth2" not in chinese.text
    token = reader.profile["bearerToken"]
    assert asked(f"Bearer {token}").ok
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_agreement SET bearer_until = now() - interval '1 second'"))
    reader.refused(asked(f"Bearer {token}"), 401, "share-token-expired")
    with store.begin() as connection:
        again = shares.profile(connection, reader.named, reader.base, now=dt.datetime.now(dt.UTC))
    reader.refused(asked(f"Bearer {token}"), 401, "token-invalid")
    assert asked(f"Bearer {again['bearerToken']}").ok
    with store.begin() as connection:
        shares.revoke(connection, reader.named, now=dt.datetime.now(dt.UTC))
    reader.refused(asked(f"Bearer {again['bearerToken']}"), 401, "token-invalid")


def test_tokens_open_one_thing(store: sa.Engine, tmp_path: Path) -> None:
    """A share's token opens no lookup, a client's token no share; who guesses has to wait."""
    stored.source(store, "sc-guangan-items", "service-item", region="511602")
    with as_zj(), served(app := create()) as base:
        named = agree(store)
        reader, hall = Reader(store, named, base, tmp_path), Hub(base, app)
        for path in ("/v1/items", "/v1/burden"):
            assert reader.session.get(base + path, timeout=30).json()["code"] == "token-invalid"
        hall.sign_in()
        for _ in range(10):
            reader.refused(hall.get("/delta/shares"), 401, "token-invalid")
        waits = hall.get("/delta/shares")
        reader.refused(waits, 429, "too-many-attempts")
        assert int(waits.headers["Retry-After"]) > 0
        outcomes = [row.outcome for row in records(store) if row.peer == sharing.STRANGER]
        assert outcomes == ["token-invalid"] * 10  # who only knocks does not fill the ledger


def test_an_agreement_that_stops(reader: Reader, store: sa.Engine) -> None:
    for values, code in (
        ({"state": "suspended", "suspended_by": ["sh"]}, "agreement-suspended"),
        ({"state": "ended", "suspended_by": []}, "agreement-not-in-force"),
        ({"state": "in_force", "valid_to": dt.datetime.now(dt.UTC)}, "agreement-not-in-force"),
    ):
        set_state(store, reader.named, **values)
        for path in ("/shares", reader.at("metadata")):
            reader.refused(reader.get(path), 403, code)
        reader.refused(reader.query(), 403, code)
    assert {row.peer for row in records(store)} == {"sh"}


def test_another_version_of_the_agreement(reader: Reader, store: sa.Engine, held: list[str]) -> None:
    """The token stays; what is read is by the new terms from that moment."""
    agree(store, reader.named, 2, materials={LICENCE: ["name", "status"]})
    reader.refused(reader.query(), 404, "share-not-published")
    share_tables.publish(reader.named)
    assert list(reader.read().columns) == ["name", "status"] and reader.version() == 1
    reader.refused(reader.query(version=0), 404, "share-version-unknown")
    with pytest.raises(requests.HTTPError, match="share-version-unknown"):
        reader.changes(starting_version=0)
    # What it has of the table before is under other terms: no changes lead from there to here.
    for start in ("startingVersion=1", "startingTimestamp=2026-01-01T00:00:00Z"):
        reader.refused(reader.get(reader.at("changes") + "?" + start), 404, "share-made-anew")
    change(store, held[0], name="改名")
    share_tables.publish(reader.named)
    assert sorted(reader.changes(starting_version=2)["_change_type"]) == ["update_postimage", "update_preimage"]
    agree(store, reader.named, 3, materials={LICENCE: ["name", "status"]}, modes=["index"])
    reader.refused(reader.query(), 403, "mode-not-agreed")


def test_every_call_is_recorded(reader: Reader, store: sa.Engine, held: list[str]) -> None:
    """And names nobody: not what was looked for, nor whose token it was."""
    reader.client.list_all_tables()
    reader.hinted("holder.holder.value = '913300000000000002'", limit=7)
    change(store, held[0], name="改名")
    share_tables.publish(reader.named)
    reader.changes(starting_version=1)
    reader.query(predicateHints=["name = 5"])
    found = records(store)
    assert all(
        (row.direction, row.request, row.reply) == ("answered", None, None)
        for row in found
        if row.kind != "share.profile"
    )
    assert {(row.peer, row.agreement) for row in found} == {("sh", f"{reader.named}/1")}
    told = [(row.kind, row.outcome, json.loads(row.detail)) for row in found]
    assert told[0][:2] == ("share.profile", "ok") and told[0][2]["tables"] == [LICENCE]
    kinds = [kind for kind, _, _ in told]
    assert kinds[1:4] == ["share.list", "share.list", "share.metadata"]
    query = next(detail for kind, _, detail in told if kind == "share.query")
    assert query == {"table": LICENCE, "version": 0, "columns": 10, "where": ["holder.holder.value"], "limit": 7, "files": 1,
                     "rows": 1, "cut": True}  # fmt: skip
    changes = next(detail for kind, _, detail in told if kind == "share.changes")
    assert changes == {"table": LICENCE, "version": 1, "until": 1, "files": 1, "rows": 2}
    files = [detail for kind, _, detail in told if kind == "share.file"]
    assert sum(detail["bytes"] for detail in files) > 0 and any(detail.get("table") == LICENCE for detail in files)
    assert told[-1] == ("share.query", "share-predicate-type", {"table": LICENCE, "version": 1})
    text = str(found)
    assert "9133" not in text and reader.profile["bearerToken"] not in text and "企业" not in text
    with store.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM exchange_pending")) == len(found)


def test_what_cannot_be_recorded_is_not_answered(still: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise sa.exc.OperationalError("INSERT", {}, Exception("gone"))

    monkeypatch.setattr(ledger, "record", failing)
    for answer in (still.get("/shares"), still.query()):
        still.refused(answer, 503, "store-unavailable")
        assert answer.headers["Retry-After"]


@pytest.mark.parametrize(
    "what", [TypeError("Integer exceeds 64-bit range: 913300000000000002"), KeyError("x"), OSError()]
)
def test_nor_when_the_record_is_what_fails(
    still: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: Exception
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise what

    monkeypatch.setattr(ledger, "record", failing)
    for answer in (still.get("/shares"), still.query(), still.query(limitHint=-1)):
        still.refused(answer, 500, "internal")
    assert "share not recorded" in caplog.text and "9133" not in caplog.text


def test_faults_of_ours_are_told_in_their_form(
    still: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise ValueError("913300000000000002")

    monkeypatch.setattr(share_versions, "files", failing)
    still.refused(still.query(), 500, "internal")
    assert "ValueError at" in caplog.text and "9133" not in caplog.text


def test_a_rate_that_is_exceeded(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "RATE", 2)
    answers = [reader.get("/shares") for _ in range(8)]
    assert answers[0].ok and any(answer.status_code == 429 for answer in answers)
    assert next(answer for answer in answers if not answer.ok).headers["Retry-After"]
