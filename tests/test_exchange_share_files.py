"""hub/exchange/share_files.py over real HTTP: an address opens one file, for minutes, while the agreement does."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
import pytest
import requests
import sqlalchemy as sa

from hub import home
from hub.api.app import create
from hub.exchange import share_files, share_selection, share_tables, shares
from tests.serving import served
from tests.sharing import LICENCE, Reader, agree, as_zj, licence, set_state


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    (app := create()).state.attempts.allowed = 10_000
    with served(app) as address:
        yield address


@pytest.fixture
def reader(store: sa.Engine, base: str, tmp_path: Path) -> Iterator[Reader]:
    with as_zj():
        for number in range(20):
            licence(store, number)
        named = agree(store)
        share_tables.publish(named)
        yield Reader(store, named, base, tmp_path)


def address(reader: Reader, **body: Any) -> str:
    (line,) = reader.query(**body).text.splitlines()[2:]
    return str(json.loads(line)["file"]["url"])


def get(url: str, **more: Any) -> requests.Response:
    """Without the token: the address is enough."""
    return requests.get(url, timeout=30, **more)


def landed(reader: Reader, url: str) -> Path:
    return home.current().path / "landing/shares" / urlsplit(url).path.removeprefix("/delta/files/")


def test_whole_and_in_ranges(reader: Reader) -> None:
    url = address(reader)
    content = landed(reader, url).read_bytes()
    whole = get(url)
    assert (whole.status_code, whole.content) == (200, content)
    assert (
        whole.headers["Content-Type"] == "application/vnd.apache.parquet"
        and whole.headers["Cache-Control"] == "no-store"
    )
    head = requests.head(url, timeout=30)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(content)))
    assert head.headers["Accept-Ranges"] == "bytes"
    size = len(content)
    for asked, start, end in (
        ("0-9", 0, 10), ("5-5", 5, 6), ("-8", size - 8, size), (f"{size - 4}-", size - 4, size), ("10-999999999", 10, size),
        (f"-{size + 5}", 0, size), (f"0-{size - 1}", 0, size),
    ):  # fmt: skip
        answer = get(url, headers={"Range": f"bytes={asked}"})
        assert answer.content == content[start:end], asked
        partial = (start, end) != (0, size)
        assert answer.status_code == (206 if partial else 200)
        assert answer.headers.get("Content-Range") == (f"bytes {start}-{end - 1}/{size}" if partial else None)
    for asked in (f"{size}-", "9-3"):
        reader.refused(get(url, headers={"Range": f"bytes={asked}"}), 416, "share-range")
    for asked in (
        "bytes=0-1,3-4",
        "lines=0-1",
        "bytes=-",
        "bytes=a-b",
    ):  # RFC 9110: what is not understood is left alone
        assert get(url, headers={"Range": asked}).content == content


def test_what_was_signed_cannot_be_changed(reader: Reader, store: sa.Engine) -> None:
    url = address(reader)
    parts = urlsplit(url)
    (signed,) = parse_qs(parts.query)["sig"]
    (until,) = parse_qs(parts.query)["until"]
    later = f"{dt.datetime.strptime(until, share_files.END) + dt.timedelta(hours=1):{share_files.END}}"
    other = agree(store)
    keys = next((home.current().path / "landing/shares" / str(reader.named) / LICENCE / "keys").iterdir())
    path = parts.path.rpartition("/")[2]
    for wrong in (
        url.replace(until, later),
        url.replace(signed, signed[:-1] + ("0" if signed[-1] != "0" else "1")),
        url.replace(signed, ""), url.replace(f"&sig={signed}", ""), url.replace(signed, "é"), url.replace(signed, signed.upper()),
        url.replace(str(reader.named), str(other)),
        url.replace(f"rows/{path}", f"keys/{keys.name}"),
        url.replace(path, "00001-" + path[6:]),
        url.replace(until, "never"), url.replace(f"until={until}", "until="),
        url.replace(str(reader.named), "nobody"),
        url.replace(str(reader.named), "00000000-0000-0000-0000-000000000000"),
    ):  # fmt: skip
        assert wrong != url
        reader.refused(get(wrong), 403, "share-address-invalid")
    for wrong in (f"../rows/{path}", f"%2e%2e/rows/{path}", f"./{path}", f"/{path}"):  # as no client would send it
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        connection.request("GET", f"{parts.path}?{parts.query}".replace(path, wrong))
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["errorCode"]) == (403, "share-address-invalid"), wrong
        connection.close()
    assert get(url).ok and get(f"{url}&more=1").ok
    with store.connect() as connection:  # whoever that was
        query = "SELECT DISTINCT peer, agreement FROM exchange_record WHERE outcome = 'share-address-invalid'"
        assert connection.execute(sa.text(query)).all() == [("?", None)]


def test_guessing_has_to_wait(reader: Reader, store: sa.Engine) -> None:
    with served(create()) as base:
        wrong = address(reader).replace(reader.base, f"{base}/delta") + "0"
        for _ in range(10):
            reader.refused(get(wrong), 403, "share-address-invalid")
        reader.refused(get(wrong), 429, "too-many-attempts")
    with store.connect() as connection:
        outcomes = connection.scalars(sa.text("SELECT outcome FROM exchange_record WHERE kind = 'share.file'")).all()
    assert outcomes == ["share-address-invalid"] * 10


def test_addresses_are_short_lived(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    url = address(reader)
    line = json.loads(reader.query().text.splitlines()[2])["file"]
    ends = dt.datetime.fromtimestamp(line["expirationTimestamp"] / 1000, dt.UTC)
    left = ends - dt.datetime.now(dt.UTC)
    assert dt.timedelta(minutes=14) < left <= dt.timedelta(minutes=15)
    monkeypatch.setattr(share_files, "MINUTES", 0)
    over = address(reader)
    reader.refused(get(over), 403, "share-address-expired")
    assert get(url).ok


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"state": "suspended", "suspended_by": ["zj"]}, "agreement-suspended"),
        ({"state": "ended"}, "agreement-not-in-force"),
        ({"valid_to": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}, "agreement-not-in-force"),
    ],
)
def test_an_agreement_that_stops_closes_them_at_once(
    reader: Reader, store: sa.Engine, values: dict[str, Any], code: str
) -> None:
    url = address(reader)
    assert get(url).ok
    set_state(store, reader.named, **values)
    reader.refused(get(url), 403, code)
    with store.connect() as connection:
        last = connection.execute(
            sa.text("SELECT peer, kind, outcome FROM exchange_record ORDER BY id DESC LIMIT 1")
        ).one()
    assert tuple(last) == ("sh", "share.file", code)


def test_tokens_and_versions_of_the_agreement_take_them_back(reader: Reader, store: sa.Engine) -> None:
    now = dt.datetime.now(dt.UTC)
    old, url = None, address(reader)

    def renew() -> None:
        with store.begin() as connection:
            made = shares.profile(connection, reader.named, reader.base, now=now)
        reader.session.headers["Authorization"] = f"Bearer {made['bearerToken']}"

    old = url
    renew()
    reader.refused(get(old), 403, "share-address-invalid")
    old = address(reader)
    assert get(old).ok
    agree(store, reader.named, 2)  # the same terms: still another agreement
    reader.refused(get(old), 403, "share-address-invalid")
    old = address(reader)
    assert get(old).ok
    with store.begin() as connection:
        connection.execute(sa.text("UPDATE exchange_agreement SET bearer_until = now()"))
    reader.refused(get(old), 403, "share-address-invalid")
    renew()
    old = address(reader)
    with store.begin() as connection:
        shares.revoke(connection, reader.named, now=now)
    reader.refused(get(old), 403, "share-address-invalid")


def test_files_made_for_a_question_go(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    url = address(reader, predicateHints=["certificate_number < '33-0003'"])
    assert re.search(r"/answers/[0-9TZ]+/00000-[0-9a-f]{64}\.parquet\?", url)
    path = landed(reader, url)
    assert pq.read_table(path).num_rows == 3 and path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert get(url).content == path.read_bytes()
    zone, now = share_files.zone(), dt.datetime.now(dt.UTC)
    share_files.drop_answered(zone, reader.named, now + dt.timedelta(minutes=share_files.MINUTES))
    assert path.exists()
    share_files.drop_answered(zone, reader.named, now + dt.timedelta(minutes=share_files.MINUTES + 2))
    assert not path.exists()
    reader.refused(get(url), 404, "share-file-gone")


def test_cutting_that_fails_or_takes_too_long(
    reader: Reader, store: sa.Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the condition is told or logged, and whole tables can still be read."""
    hint = {"predicateHints": ["name = '企业7'"]}
    with monkeypatch.context() as patch:
        patch.setattr(share_selection, "SECONDS", 0.01)
        reader.refused(reader.query(**hint), 503, "share-slow")
    with store.begin() as connection:
        connection.execute(
            sa.text("UPDATE share_file SET path = replace(path, '/rows/', '/gone/') WHERE kind = 'rows'")
        )
    reader.refused(reader.query(**hint), 503, "share-unavailable")
    assert "share-cut FileNotFoundError" in caplog.text and "企业" not in caplog.text
    assert reader.query().ok
