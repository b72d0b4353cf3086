"""connectors/sftp.py against real servers: what is new is landed whole, whatever happens on the way."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from connectors import sftp
from connectors.connections import Connection
from connectors.errors import FatalError, RetriableError
from connectors.fetched import Fetched
from connectors.landing import Landing
from connectors.sftpsession import PIECE, UNDERWAY
from connectors.source import SftpOptions, Source, load
from demo.sftp_server import Faults
from tests import openssh
from tests.sftp import Served, served

NAME = "sh-hrss-insurance"
LINE = '{"sbkh": "S1", "xm": "示例甲", "ljjfys": 1.10}\n'


@pytest.fixture
def source() -> Source:
    packaged = load(NAME)
    assert isinstance(packaged.options, SftpOptions)
    quick = {"settle_seconds": 0, "backoff_seconds": 0.01, "connect_seconds": 5, "read_seconds": 5}
    return packaged.model_copy(update={"options": packaged.options.model_copy(update=quick)})


def changed(source: Source, **options: Any) -> Source:
    return source.model_copy(update={"options": source.options.model_copy(update=options)})


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path / "landing")


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


@pytest.fixture
def server(tmp_path: Path, drop: Path) -> Iterator[Served]:
    with served(tmp_path / "keys" / "host", sh_hrss=drop) as running:
        yield running


@pytest.fixture
def broken(tmp_path: Path, drop: Path) -> Iterator[Callable[..., Served]]:
    """A server with faults."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda **faults: stack.enter_context(served(tmp_path / "key", Faults(**faults), sh_hrss=drop))


def put(path: Path, data: bytes | str = LINE, age: float = 60) -> None:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    os.utime(path, (time.time() - age,) * 2)


def names(fetched: Fetched) -> list[str]:
    return [file.name for file in fetched.files]


def left_behind(landing: Landing) -> list[Path]:
    return [path for path in Path(landing.url).rglob("*") if path.is_file()]


def test_new_files_then_nothing_then_the_changed_one(
    source: Source, landing: Landing, drop: Path, server: Served
) -> None:
    put(drop / "1.jsonl")
    put(drop / "2.JSONL.gz", gzip.compress(LINE.encode()))
    first = sftp.fetch(source, server.connection(), None, landing)
    assert names(first) == ["1.jsonl", "2.JSONL.gz"]
    assert first.cursor is not None
    assert first.cursor["1.jsonl"] == [len(LINE.encode()), int((drop / "1.jsonl").stat().st_mtime)]
    assert landing.open(first.files[0]).read() == LINE.encode()

    server.faults.reads = []
    cursor = json.loads(json.dumps(first.cursor))  # as the store keeps it
    again = sftp.fetch(source, server.connection(), cursor, landing)
    assert (again.files, again.cursor, server.faults.reads) == ([], first.cursor, [])

    put(drop / "1.jsonl", LINE * 2, age=30)
    third = sftp.fetch(source, server.connection(), first.cursor, landing)
    assert names(third) == ["1.jsonl"]
    assert third.cursor is not None
    assert set(third.cursor) == {"1.jsonl", "2.JSONL.gz"}


def test_what_is_taken(source: Source, landing: Landing, drop: Path, server: Served) -> None:
    for name in ("a.jsonl.part", "b.jsonl.filepart", ".hidden.jsonl", "~lock.jsonl", "notes.txt"):
        put(drop / name)
    (drop / "folder.jsonl").mkdir()
    (drop / "link.jsonl").symlink_to(drop / "notes.txt")
    assert names(sftp.fetch(source, server.connection(), None, landing)) == []
    put(drop / "中文 名.jsonl")
    fetched = sftp.fetch(source, server.connection(), None, landing)
    assert names(fetched) == ["中文 名.jsonl"]
    assert fetched.request == {"pattern": "*.jsonl", "found": 1, "new": 1, "taken": 1}


def test_progress(source: Source, landing: Landing, drop: Path, server: Served) -> None:
    put(drop / "a.jsonl")
    put(drop / "b.jsonl", LINE * 2)
    seen: list[tuple[int, int | None]] = []
    sftp.fetch(source, server.connection(), None, landing, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_growing_file_is_left_for_the_next_run(source: Source, landing: Landing, drop: Path, server: Served) -> None:
    put(drop / "whole.jsonl")
    put(drop / "growing.jsonl", age=0)
    stop = threading.Event()

    def write() -> None:
        with (drop / "growing.jsonl").open("a") as stream:
            while not stop.wait(0.02):
                stream.write(LINE)
                stream.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        first = sftp.fetch(changed(source, settle_seconds=0.3), server.connection(), None, landing)
    finally:
        stop.set()
        writer.join()
    assert names(first) == ["whole.jsonl"]
    assert first.cursor is not None
    assert "growing.jsonl" not in first.cursor
    assert names(sftp.fetch(source, server.connection(), first.cursor, landing)) == ["growing.jsonl"]


@pytest.mark.parametrize("after", [LINE * 9, LINE])
def test_file_written_to_while_it_was_read_is_left(
    source: Source, landing: Landing, drop: Path, server: Served, after: str
) -> None:
    """It is longer, or shorter, by the time its last byte is asked for."""
    put(drop / "a.jsonl", LINE * 5)

    class Disturbed(Landing):
        def put(self, data: Any, name: str) -> Any:
            put(drop / name, after, age=0)
            return super().put(data, name)

    fetched = sftp.fetch(source, server.connection(), None, Disturbed(landing.url))
    assert (fetched.files, fetched.cursor) == ([], {})
    assert left_behind(landing) == []


def test_gzip_file_without_its_end(source: Source, landing: Landing, drop: Path, server: Served) -> None:
    packed = gzip.compress(os.urandom(100_000))
    put(drop / "a.jsonl.gz", packed[:-5])
    put(drop / "b.jsonl.gz", packed + packed + b"\0" * 512)  # two streams and padding are whole
    put(drop / "c.jsonl.gz", gzip.compress(b"\n" * 9_000_000))
    fetched = sftp.fetch(source, server.connection(), None, landing)
    assert names(fetched) == ["b.jsonl.gz", "c.jsonl.gz"]
    assert fetched.cursor is not None
    assert "a.jsonl.gz" not in fetched.cursor
    put(drop / "a.jsonl.gz", packed[:-5], age=7200)
    with pytest.raises(FatalError) as caught:
        sftp.fetch(source, server.connection(), fetched.cursor, landing)
    assert caught.value.code == "sftp-gzip-cut"
    assert "a.jsonl.gz" in caught.value.message("zh")


def test_empty_file(source: Source, landing: Landing, drop: Path, server: Served) -> None:
    put(drop / "a.jsonl", "")
    with pytest.raises(FatalError) as caught:
        sftp.fetch(source, server.connection(), None, landing)
    assert caught.value.code == "file-empty"


def test_missing_folder(source: Source, landing: Landing, server: Served) -> None:
    with pytest.raises(FatalError) as caught:
        sftp.fetch(source, server.connection(path="/absent"), None, landing)
    assert caught.value.code == "folder-missing"


def test_cut_and_resumed(source: Source, landing: Landing, drop: Path, broken: Callable[..., Served]) -> None:
    """A download that is cut goes on where it was: what had arrived is not asked for again."""
    content = os.urandom(6_000_000)
    put(drop / "a.jsonl", content)
    cut_after, ahead = 2_000_000, UNDERWAY * PIECE
    server = broken(cut_after=cut_after, cuts=2)
    fetched = sftp.fetch(source, server.connection(), None, landing)
    assert landing.open(fetched.files[0]).read() == content
    assert server.faults.cuts == 0, "the server did cut"
    reads = server.faults.reads or []
    starts = [0, *(place for place in range(1, len(reads)) if reads[place][1] < reads[place - 1][1])]
    assert len(starts) == 3
    for leg, start in enumerate(starts):
        # On the way when the connection broke was at most what is asked for ahead.
        assert reads[start][1] >= leg * (cut_after - 2 * ahead)
        assert leg == 0 or reads[start][1] > reads[starts[leg - 1]][1]
    assert sum(length for _, _, length in reads) <= len(content) + 2 * 2 * ahead


def test_cut_again_and_again(source: Source, landing: Landing, drop: Path, broken: Callable[..., Served]) -> None:
    put(drop / "a.jsonl", os.urandom(100_000))
    server = broken(cut_after=0, cuts=99)
    with pytest.raises(RetriableError) as caught:
        sftp.fetch(changed(source, attempts=3), server.connection(), None, landing)
    assert caught.value.code == "sftp-cut"
    assert 99 - server.faults.cuts == 3
    assert left_behind(landing) == []


def test_server_that_falls_silent(source: Source, landing: Landing, drop: Path, broken: Callable[..., Served]) -> None:
    put(drop / "a.jsonl", os.urandom(3_000_000))
    server = broken(hang_after=1_000_000)
    start = time.monotonic()
    with pytest.raises(RetriableError) as caught:
        sftp.fetch(changed(source, attempts=2, read_seconds=0.5), server.connection(), None, landing)
    assert caught.value.code == "sftp-slow"
    assert 1 <= time.monotonic() - start < 5
    assert left_behind(landing) == []


def test_server_that_never_says_a_word(source: Source, landing: Landing) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection("x", f"sftp://127.0.0.1:{silent.getsockname()[1]}/", "u", "p")
        start = time.monotonic()
        with pytest.raises(RetriableError) as caught:
            sftp.fetch(changed(source, attempts=2, connect_seconds=0.5), connection, None, landing)
        assert caught.value.code == "sftp-slow"
        assert time.monotonic() - start < 5


def test_unknown_or_other_host_key_is_refused(source: Source, landing: Landing, server: Served, tmp_path: Path) -> None:
    from demo.sftp_server import host_key

    other = host_key(tmp_path / "other")
    for extra, code in (
        ({"host_key": ""}, "sftp-host-key-missing"),
        ({"host_key": other}, "sftp-host-key-differs"),
        ({"host_key": "ssh-ed25519 no!"}, "sftp-host-key-unreadable"),
        ({"host_key": "", "known_hosts": str(tmp_path / "absent")}, "sftp-host-key-unreadable"),
    ):
        with pytest.raises(FatalError) as caught:
            sftp.fetch(source, server.connection(extra=extra), None, landing)
        assert caught.value.code == code
        assert caught.value.advice()
    assert (
        "SHA256:" in FatalError("sftp-host-key-differs", source="s", connection="c", fingerprint="SHA256:x").message()
    )


def test_host_key_among_others_and_in_a_file(
    source: Source, landing: Landing, drop: Path, server: Served, tmp_path: Path
) -> None:
    from demo.sftp_server import host_key

    put(drop / "a.jsonl")
    both = f"# last year's\n{host_key(tmp_path / 'old')}\nftp.example {server.host_key} a comment\n"
    assert names(sftp.fetch(source, server.connection(extra={"host_key": both}), None, landing)) == ["a.jsonl"]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    extra = {"host_key": "", "known_hosts": str(known)}
    assert names(sftp.fetch(source, server.connection(extra=extra), None, landing)) == ["a.jsonl"]


def test_wrong_password(source: Source, landing: Landing, server: Served) -> None:
    for changes in ({"password": "wrong"}, {"username": "nobody"}, {"password": None}):
        with pytest.raises(FatalError) as caught:
            sftp.fetch(source, server.connection(**changes), None, landing)
        assert caught.value.code == "sftp-login"
        assert "wrong" not in caught.value.message()


def test_address(source: Source, landing: Landing) -> None:
    for url in ("ftp://x/y", "/local", "sftp://", "sftp://x:99999/"):
        with pytest.raises(FatalError) as caught:
            sftp.fetch(source, Connection("sh-hrss", url), None, landing)
        assert caught.value.code == "sftp-address"


def test_check(source: Source, drop: Path, server: Served) -> None:
    def steps(**changes: Any) -> list[tuple[str, bool]]:
        return [(step.step, step.ok) for step in sftp.check(source, server.connection(**changes))]

    good = [(step, True) for step in ("name", "port", "host key", "login", "folder")]
    assert steps() == [*good, ("files", True)]
    record = dict.fromkeys(source.options.columns)
    put(drop / "a.jsonl.gz", gzip.compress((json.dumps(record) + "\n").encode() * 100_000), age=9)
    assert steps() == [*good, ("files", True), ("columns", True)]
    put(drop / "b.jsonl", json.dumps({**record, "phone": 1}) + "\n", age=8)
    last = sftp.check(source, server.connection())[-1]
    assert (last.step, last.ok) == ("columns", False)
    assert "phone" in last.detail and "mapping.csv" in last.advice
    put(drop / "c.jsonl", "<html>", age=7)
    assert steps()[-1] == ("content", False)
    assert steps(path="/absent") == [*good[:4], ("folder", False)]
    assert steps(password="wrong") == [*good[:3], ("login", False)]
    assert steps(extra={"host_key": ""}) == [*good[:2], ("host key", False)]
    assert all(step.advice for step in sftp.check(source, server.connection(password="x")) if not step.ok)


def test_check_without_a_server(source: Source) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    steps = sftp.check(source, Connection("x", f"sftp://127.0.0.1:{port}/"))
    assert [(step.step, step.ok) for step in steps] == [("name", True), ("port", False)]
    steps = sftp.check(source, Connection("x", "sftp://no-such-host.invalid/"))
    assert [(step.step, step.ok) for step in steps] == [("name", False)]


FETCH = """
import sys
from connectors import sftp
from connectors.connections import Connection
from connectors.landing import Landing
from connectors.source import load
print("go", flush=True)
url, host_key, password, landing = sys.argv[1:]
connection = Connection("sh-hrss", url, "sh-hrss", password, {"host_key": host_key})
source = load("sh-hrss-insurance")
quick = source.options.model_copy(update={"settle_seconds": 0})
sftp.fetch(source.model_copy(update={"options": quick}), connection, None, Landing(landing))
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def fetching(server: Served, landing: Landing) -> subprocess.Popen[str]:
    """A fetch in a process of its own, about to begin."""
    connection = server.connection()
    arguments = [connection.url, server.host_key, connection.password or "", landing.url]
    child = subprocess.Popen([sys.executable, "-c", FETCH, *arguments], stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "go\n"
    return child


def test_killed_fetch(source: Source, landing: Landing, drop: Path, broken: Callable[..., Served]) -> None:
    content = os.urandom(3_000_000)
    put(drop / "a.jsonl", content)
    server = broken(hang_after=1_000_000)
    child = fetching(server, landing)
    deadline = time.monotonic() + 20
    while server.faults.served < 1_000_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [path.parent.name for path in left_behind(landing)] == ["incoming"], "what is not whole is not landed"
    server.faults.hang_after = None
    fetched = sftp.fetch(source, server.connection(), None, landing)
    assert landing.open(fetched.files[0]).read() == content


@pytest.mark.slow
def test_memory_is_bounded(landing: Landing, drop: Path, server: Served) -> None:
    """200 MB are fetched in the memory that 1 MB needs, give or take 30 MB."""
    peaks = []
    for size in (1 << 20, 200 << 20):
        with (drop / "a.jsonl").open("wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        out, _ = fetching(server, landing).communicate(timeout=300)
        peaks.append(int(out) >> 10)
    assert peaks[1] - peaks[0] < 30


def test_openssh(source: Source, landing: Landing) -> None:
    """The server that most departments run; a private key in place of a password, a folder below the login's own."""
    content = os.urandom(3_000_000)
    with openssh.served() as server:
        put(server.folder / "a.jsonl", content)
        url = f"sftp://127.0.0.1:{server.port}{server.folder}"
        for extra in ({"private_key_file": str(server.key)}, {"private_key": server.key.read_text()}):
            connection = Connection("x", url, server.user, None, {"host_key": server.host_key, **extra})
            fetched = sftp.fetch(source, connection, None, landing)
            assert landing.open(fetched.files[0]).read() == content
        assert [step.ok for step in sftp.check(source, connection)][:6] == [True] * 6
        refused = Connection("x", url, server.user, "password", {"host_key": server.host_key})
        with pytest.raises(FatalError) as caught:
            sftp.fetch(source, refused, None, landing)
        assert caught.value.code == "sftp-login"


def test_the_whole_pipeline(
    store: sa.Engine, tmp_path: Path, drop: Path, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`yici run`: fetched over the wire, merged; again: nothing to do; a correction: that alone."""
    from hub.cli import app

    root, name = tmp_path / "sources", "sh-hrss-quick"  # the packaged folder, but for the seconds that files settle
    shutil.copytree(load(NAME).folder, root / name)
    described = root / name / "source.yml"
    text = described.read_text(encoding="utf-8").replace("settle_seconds: 5", "settle_seconds: 0.1")
    described.write_text(text.replace(f"name: {NAME}", f"name: {name}"), encoding="utf-8")
    monkeypatch.setenv("YICI_SOURCES", str(root))
    connection = server.connection()
    fields = {"url": connection.url, "username": connection.username, "password": connection.password}
    monkeypatch.setenv("YICI_CONN_SH_HRSS", json.dumps({**fields, "extra": connection.extra}))
    shutil.copy(root / name / "sample" / "input.jsonl.gz", drop / "insurance-1.jsonl.gz")

    def run() -> dict[str, Any]:
        done = CliRunner().invoke(app, ["run", name, "--json"])
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    first = run()
    assert {key: first[key] for key in ("fetched", "accepted", "quarantined", "rejected", "unchanged")} == {
        "fetched": 18, "accepted": 7, "quarantined": 7, "rejected": 4, "unchanged": 0,
    }  # fmt: skip
    again = run()
    assert (again["fetched"], again["accepted"]) == (0, 0)
    row = json.loads(gzip.decompress((drop / "insurance-1.jsonl.gz").read_bytes()).splitlines()[0])
    row |= {"ljjfys": 81, "gxsj": "2025-04-01 12:00:00"}
    (drop / "insurance-2.jsonl").write_text(json.dumps(row) + "\n")
    other = {key: value for key, value in row.items() if key != "dwmc"} | {"sbkh": "S000000099"}
    (drop / "insurance-3.jsonl").write_text(json.dumps(other) + "\n")  # a key that the files together do have
    third = run()
    assert (third["fetched"], third["accepted"]) == (2, 2)
    with store.connect() as connection_:
        months = connection_.scalar(
            sa.text(
                "SELECT document #>> '{attributes,months_paid}' FROM held WHERE material = 'social-insurance-record'"
                " AND document ->> 'certificate_number' = 'S000000001'"
                " AND document #>> '{attributes,insurance_kind}' = '职工养老保险'"
            )
        )
    assert months == "81"
