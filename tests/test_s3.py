"""connectors/s3.py and connectors/bucket.py against a real server that speaks the protocol."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
import xlsxwriter

from connectors import bucket, s3
from connectors.bucket import Bucket
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError, UsageError, YiciError
from connectors.fetched import Cursor
from connectors.landing import LandedFile, Landing
from connectors.source import S3Options, Source, load
from hub import contracts, pipeline
from tests import buckets
from tests.buckets import BUCKET, PREFIX

NAME = "sh-nhc-births"
SAMPLE = contracts.sample(load(NAME)).read_bytes()
BIG = os.urandom(7_000_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and folder: what the folder holds is in the bucket under ``certificates/``, a folder for each topic."""
    folder = tmp_path_factory.mktemp("nhc")
    columns = list(load(NAME).options.columns)
    random = pa.table({name: pa.array(os.urandom(10).hex() for _ in range(300_000)) for name in ("a", "b")})
    large, book = io.BytesIO(), io.BytesIO()
    pq.write_table(random, large, row_group_size=20_000)
    with xlsxwriter.Workbook(book) as made:
        made.add_worksheet().write_row(0, 0, columns)
    for path, content in {
        "two/births-1.parquet": SAMPLE,
        "two/births-2.parquet": BIG,
        "two/notes.txt": b"not data",
        "two/_draft.parquet": b"a writer's own",
        "sample/births.parquet": SAMPLE,
        "empty/empty.parquet": b"",
        "large/large.parquet": large.getvalue(),
        "csv/a.csv": (",".join(columns) + "\n").encode(),
        "xlsx/a.xlsx": book.getvalue(),
        "pipeline/births.parquet": SAMPLE,
    }.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    with buckets.running(folder) as url:
        yield url, folder


def at(endpoint: str, topic: str = "two", /, **changed: Any) -> Connection:
    """A connection to the objects of one topic."""
    return buckets.connection(endpoint, **{"url": f"s3://{BUCKET}/{PREFIX}/{topic}", **changed})


@pytest.fixture
def url(server: tuple[str, Path]) -> str:
    return server[0]


@pytest.fixture
def source() -> Source:
    return varied()


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


def varied(**options: Any) -> Source:
    """The packaged source with other options; quick to give up."""
    packaged = load(NAME)
    assert isinstance(packaged.options, S3Options)
    quick = {
        "attempts": 3,
        "backoff_seconds": 0.01,
        "read_seconds": 2,
        "connect_seconds": 2,
        "requests_per_second": 500,
    }
    return packaged.model_copy(update={"options": packaged.options.model_copy(update={**quick, **options})})


def stamps(cursor: Cursor | None) -> dict[str, int]:
    assert cursor is not None
    return {key: size for key, (size, _) in cursor.items()}


def error(source: Source, connection: Connection, landing: Landing) -> YiciError:
    with pytest.raises(YiciError) as caught:
        s3.fetch(source, connection, None, landing)
    shown = f"{caught.value.message('en')} {caught.value.advice('zh')} {caught.value!r}"
    assert buckets.SECRET not in shown and buckets.ACCESS not in shown
    return caught.value


def test_new_objects_then_nothing_then_the_changed_one(
    server: tuple[str, Path], source: Source, landing: Landing
) -> None:
    connection = at(server[0])
    seen: list[tuple[int, int | None]] = []
    first = s3.fetch(source, connection, None, landing, lambda done, total: seen.append((done, total)))
    assert [file.name for file in first.files] == ["births-1.parquet", "births-2.parquet"]
    assert landing.open(first.files[1]).read() == BIG
    assert stamps(first.cursor) == {
        f"{PREFIX}/two/births-1.parquet": len(SAMPLE),
        f"{PREFIX}/two/births-2.parquet": len(BIG),
    }
    assert seen == [(1, 2), (2, 2)]
    assert first.request == {
        "bucket": BUCKET, "prefix": f"{PREFIX}/two/", "pattern": "*.parquet", "found": 2, "new": 2, "taken": 2
    }  # fmt: skip

    again = s3.fetch(source, connection, first.cursor, landing)
    assert (again.files, again.cursor, again.requests) == ([], first.cursor, 1)

    assert first.cursor is not None
    other = {
        **first.cursor,
        f"{PREFIX}/two/births-1.parquet": [len(SAMPLE), "another"],
        f"{PREFIX}/two/gone.parquet": [1, "x"],
    }
    third = s3.fetch(source, connection, other, landing)
    assert [file.name for file in third.files] == ["births-1.parquet"]
    assert third.cursor == first.cursor


def test_objects_below_folders_and_a_prefix_without_any(server: tuple[str, Path], landing: Landing) -> None:
    below = varied(pattern="births-*.parquet")
    whole = s3.fetch(below, at(server[0], url=f"s3://{BUCKET}"), None, landing)
    assert [file.name for file in whole.files] == [f"{PREFIX}/two/births-1.parquet", f"{PREFIX}/two/births-2.parquet"]
    none = s3.fetch(varied(), at(server[0], url=f"s3://{BUCKET}/cert"), None, landing)
    assert (none.files, none.cursor) == ([], {}), "a prefix is a folder, not the beginning of a name"


@pytest.mark.parametrize(
    ("key", "taken"),
    [
        ("p/a.parquet", True), ("p/2025/03/A.PARQUET", True), ("p/a.parquet.gz", True), ("p/a.csv", False),
        ("p/_temporary/0/a.parquet", False), ("p/.a.parquet", False), ("p/a.parquet.tmp", False), ("p/folder/", False),
        ("p/_SUCCESS", False),
    ],
)  # fmt: skip
def test_what_is_taken(key: str, taken: bool) -> None:
    assert s3._taken(bucket.Entry(key, 1, "e", 0.0), "p/", "*.parquet") is taken


def test_many_objects_come_page_by_page(url: str, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bucket(source, at(url)) as store:
        page = store._page
        monkeypatch.setattr(store, "_page", lambda token, size: page(token, 1))
        listed = [entry.key for entry in store.listing()]
        assert len(listed) == store.requests == 4
        assert listed == sorted(listed)


def test_an_object_that_changes_while_it_is_read_is_left(
    server: tuple[str, Path], tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Bucket.listing

    def stale(self: Bucket) -> Iterator[bucket.Entry]:
        """As the listing was before somebody replaced the first object and deleted the second."""
        for number, entry in enumerate(listing(self)):
            if number == 1:
                yield bucket.Entry(entry.key, entry.size, "0" * 32, entry.modified)
                yield bucket.Entry(f"{PREFIX}/two/deleted.parquet", 5, entry.etag, entry.modified)
            else:
                yield entry

    monkeypatch.setattr(Bucket, "listing", stale)
    fetched = s3.fetch(source, at(server[0]), None, Landing(tmp_path))
    assert [file.name for file in fetched.files] == ["births-2.parquet"]
    assert list(stamps(fetched.cursor)) == [f"{PREFIX}/two/births-2.parquet"]
    assert (fetched.request["new"], fetched.request["taken"]) == (3, 1)


def test_faults_of_the_wire_are_repeated(url: str, source: Source, landing: Landing) -> None:
    with buckets.wire(url) as proxy:
        proxy.plan = ["busy", "shut"]
        assert len(s3.fetch(source, at(proxy.url), None, landing).files) == 2
        proxy.plan = ["mute"]
        assert len(s3.fetch(varied(read_seconds=0.3), at(proxy.url), None, landing).files) == 2


def test_a_body_cut_short_is_fetched_again(url: str, source: Source, tmp_path: Path) -> None:
    class Counted(Landing):
        begun = 0

        def put(self, data: Any, name: str) -> LandedFile:
            self.begun += 1
            return super().put(data, name)

    with buckets.wire(url) as proxy:
        proxy.plan = [None, None, 3_000_000]  # the listing, the small object, and a part of the large one
        landing = Counted(tmp_path)
        fetched = s3.fetch(source, at(proxy.url), None, landing)
    assert landing.open(fetched.files[1]).read() == BIG
    assert landing.begun == 3
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize(("fault", "code"), [("busy", "s3-busy"), ("shut", "s3-unreachable")])
def test_retries_are_bounded(url: str, source: Source, landing: Landing, fault: str, code: str) -> None:
    with buckets.wire(url) as proxy:
        proxy.plan = [fault] * 50
        found = error(source, at(proxy.url), landing)
        assert (type(found), found.code, proxy.connections) == (RetriableError, code, 3)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"username": "nobody"}, "s3-key-unknown"),
        ({"password": "wrong"}, "s3-signature"),
        ({"url": "s3://another/x"}, "s3-denied"),
        ({"username": None}, "s3-credentials"),
        ({"url": "https://host/bucket"}, "s3-address"),
        ({"url": "s3://"}, "s3-address"),
        ({"extra": {"endpoint": "https://typo"}}, "s3-extra"),
        ({"extra": {"endpoint_url": "not a url"}}, "s3-address"),
        ({"extra": {"ca_file": "/absent.pem", "endpoint_url": "https://127.0.0.1:1"}}, None),
    ],
)
def test_refusals(url: str, source: Source, landing: Landing, changed: dict[str, Any], code: str | None) -> None:
    found = error(source, at(url, **changed), landing)
    if code:
        assert (type(found), found.code) == (FatalError, code)


def test_nothing_of_the_machine_is_used(
    url: str, source: Source, landing: Landing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[default]\naws_access_key_id = {buckets.ACCESS}\naws_secret_access_key = {buckets.SECRET}\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        elsewhere = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        for name, value in {
            "AWS_ACCESS_KEY_ID": "ambient", "AWS_SECRET_ACCESS_KEY": "ambient", "AWS_SESSION_TOKEN": "ambient",
            "AWS_PROFILE": "absent", "AWS_ENDPOINT_URL": elsewhere, "HTTP_PROXY": elsewhere, "AWS_CA_BUNDLE": "/absent",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        assert s3.fetch(source, at(url), None, landing).files
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    bare = {"username": None, "password": None}
    assert error(source, at(url, **bare), landing).code == "s3-credentials"
    ambient = at(url, **bare, extra={"ambient_credentials": True})
    assert s3.fetch(source, ambient, None, landing).files


def test_an_empty_object(url: str, source: Source, landing: Landing) -> None:
    assert error(source, at(url, "empty"), landing).code == "file-empty"
    (step,) = [step for step in s3.check(source, at(url, "empty")) if not step.ok]
    assert step.step == "content"


def test_check_goes_step_by_step(url: str, source: Source) -> None:
    def steps(connection: Connection, source: Source = source) -> list[tuple[str, bool]]:
        return [(step.step, step.ok) for step in s3.check(source, connection)]

    reached = [("name", True), ("port", True)]
    listed = [*reached, ("login", True), ("bucket", True), ("files", True)]
    assert steps(at(url, "sample")) == [*listed, ("columns", True)]
    assert steps(at(url, "sample"), varied(pattern="*.csv")) == listed
    assert steps(at(url, "sample"), varied(format="xlsx", pattern="*.parquet")) == [*listed, ("content", False)]
    for topic in ("csv", "xlsx"):
        assert steps(at(url, topic), varied(format=topic, pattern=f"*.{topic}")) == [*listed, ("columns", True)]
    fewer = source.model_copy(update={"options": source.options.model_copy(update={"columns": ("cszbh", "extra")})})
    last = s3.check(fewer, at(url, "sample"))[-1]
    assert (last.step, last.ok) == ("columns", False)
    assert "extra" in last.detail and "mqxm" in last.detail

    assert steps(at(url, password="wrong")) == [*reached, ("login", False)]
    assert steps(at(url, username="nobody")) == [*reached, ("login", False)]
    assert steps(at(url, url="s3://another")) == [*reached, ("login", True), ("bucket", False)]
    assert steps(at(url, password=None)) == [("address", False)]
    assert steps(at(url.replace("http:", "https:"))) == [*reached, ("certificate", False)]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert steps(at(f"http://127.0.0.1:{port}")) == [("name", True), ("port", False)]
    assert steps(at("http://no-such-host.invalid")) == [("name", False)]


def test_check_reads_only_what_it_needs_of_a_large_object(url: str, source: Source) -> None:
    with Bucket(source, at(url, "large")) as store:
        (entry,) = store.listing()
        asked: list[int] = []
        part = store.part
        store.part = lambda entry, start, size: asked.append(size) or part(entry, start, size)  # type: ignore[method-assign, func-returns-value]
        assert s3._content(store)[-1].step == "columns"
        assert 0 < sum(asked) < entry.size / 2


def test_the_whole_pipeline(server: tuple[str, Path], store: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = server
    connection = at(url, "pipeline")
    fields = {"url": connection.url, "username": connection.username, "password": connection.password}
    monkeypatch.setenv("YICI_CONN_SH_NHC", json.dumps({**fields, "extra": connection.extra}))
    first = pipeline.run(NAME)
    accepted = contracts.read(load(NAME).sample_path / "expected.csv")
    kept = contracts.read(load(NAME).sample_path / "expected_rejects.csv")
    assert (first["fetched"], first["accepted"]) == (len(accepted) + len(kept), len(accepted))
    assert first["quarantined"] + first["rejected"] == len(kept)
    with store.connect() as db:
        holders = sa.text("SELECT role, count(*) FROM holding_holder GROUP BY role ORDER BY role")
        assert [tuple(row) for row in db.execute(holders)] == [("child", 1), ("father", 5), ("mother", 6)]
    again = pipeline.run(NAME)
    assert (again["fetched"], again["accepted"]) == (0, 0)

    table = pq.read_table(io.BytesIO(SAMPLE))
    later = table.slice(0, 1).set_column(table.column_names.index("zt"), "zt", pa.array(["作废"]))
    moment = pa.array([dt.datetime(2025, 4, 1)], pa.timestamp("us"))
    later = later.set_column(table.column_names.index("gxsj"), "gxsj", moment)
    pq.write_table(later, folder / "pipeline" / "later.parquet")
    with Bucket(load(NAME), connection) as objects:
        ends = time.monotonic() + 10
        while len(list(objects.listing())) < 2 and time.monotonic() < ends:
            time.sleep(0.1)
    third = pipeline.run(NAME)
    assert (third["fetched"], third["accepted"]) == (1, 1)
    with store.connect() as db:
        status = sa.text(
            "SELECT document ->> 'status' FROM observation WHERE document ->> 'certificate_number' = 'N310000001'"
        )
        assert db.scalar(status) == "cancelled"


def test_titles_come_by_hand(tmp_path: Path, store: sa.Engine) -> None:
    """The other source of this topic: a workbook through the whole pipeline, and the same one again."""
    name = "sh-mnr-titles"
    path = contracts.sample(load(name))
    first = pipeline.run(name, input=path)
    accepted = contracts.read(load(name).sample_path / "expected.csv")
    kept = contracts.read(load(name).sample_path / "expected_rejects.csv")
    assert (first["accepted"], first["quarantined"] + first["rejected"]) == (len(accepted), len(kept))
    with store.connect() as db:
        holders = sa.text("SELECT role, count(*) FROM holding_holder GROUP BY role ORDER BY role")
        assert [tuple(row) for row in db.execute(holders)] == [("owner_organisation", 2), ("owner_person", 6)]
    again = pipeline.run(name, input=path)
    assert again["unchanged"] == first["fetched"]
    with pytest.raises(UsageError):
        pipeline.run(name, input=tmp_path / "absent.xlsx")


def test_each_workbook_is_a_delivery_with_a_date_of_its_own(tmp_path: Path, store: sa.Engine) -> None:
    """The same title in two workbooks, its dates bare day numbers: the later one says what holds, nothing conflicts."""
    source = load("sh-mnr-titles")
    for day, state in ((45123, "现势"), (45124, "查封")):
        with xlsxwriter.Workbook(tmp_path / f"{day}.xlsx") as book:
            sheet = book.add_worksheet()
            columns = source.options.columns
            for place, name in enumerate(columns):
                above, _, below = name.partition("/")
                sheet.write_column(0, place, [above, below])
            values = {"登记/证号": "沪(2023)浦字不动产权第000001号", "登记/登记日期": day, "登记/状态": state}
            values |= {"权利人/姓名": "示例甲", "权利人/证件种类": "护照", "权利人/证件号码": "E12345678"}
            sheet.write_row(2, 0, [values.get(name, "") for name in columns])
    summary = pipeline.run(source.name, input=tmp_path)
    assert (summary["fetched"], summary["accepted"], summary["unchanged"]) == (2, 1, 1)
    assert summary["as_of"].startswith("2023-07-17")
    with store.connect() as db:
        assert db.scalars(sa.text("SELECT status FROM holding")).all() == ["suspended"]
