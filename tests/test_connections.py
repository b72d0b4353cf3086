"""connectors/connections.py: where a connection is looked up, and that it shows no secret."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from connectors import connections
from connectors.errors import FatalError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YICI_HOME", str(tmp_path))
    return tmp_path


def write(home: Path, content: object, mode: int = 0o600) -> None:
    path = home / "connections.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)


@pytest.mark.parametrize(
    ("text", "url", "user", "secret"),
    [
        ("https://me:p%40ss@host:8443/base", "https://host:8443/base", "me", "p@ss"),
        ("postgresql://reader:x@/db?host=/run/pg", "postgresql:///db?host=/run/pg", "reader", "x"),
        ("postgresql://h/db?password=x&sslmode=require", "postgresql://h/db?sslmode=require", None, "x"),
        ("postgresql://reader@[::1]:5432/db", "postgresql://[::1]:5432/db", "reader", None),
        ("/data/drop", "/data/drop", None, None),
        ("file:///data/drop", "file:///data/drop", None, None),
        ('{"url": "https://h", "username": "me", "password": "s"}', "https://h", "me", "s"),
        ('{"url": "https://you:t@h", "extra": {"ca_file": "/c"}}', "https://h", "you", "t"),
    ],
)
def test_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, url: str, user: str | None, secret: str | None
) -> None:
    monkeypatch.setenv("YICI_CONN_SH_GA", text)
    found = connections.resolve("sh-ga")
    assert (found.name, found.url, found.username, found.password) == ("sh-ga", url, user, secret)


def test_file_comes_after_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, {"sh-ga": {"url": "https://file", "password": "s"}, "sh-amr": "/drop"})
    assert connections.resolve("sh-ga").url == "https://file"
    assert connections.resolve("sh-amr").url == "/drop"
    monkeypatch.setenv("YICI_CONN_SH_GA", "https://environment")
    assert connections.resolve("sh-ga").url == "https://environment"


def test_nothing_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_CONN_A", '{"url": "https://me:hush@h", "extra": {"token": "hush"}}')
    found = connections.resolve("a")
    assert found.password == "hush"
    assert "hush" not in repr(found) + str(found) + f"{found}"
    assert pickle.loads(pickle.dumps(found)) == found


def test_missing_names_the_places(home: Path) -> None:
    with pytest.raises(FatalError) as caught:
        connections.resolve("sh-ga")
    assert caught.value.code == "connection-missing"
    for words in ("YICI_CONN_SH_GA", str(home / "connections.json"), "Airflow"):
        assert words in caught.value.advice("en")
        assert words in caught.value.advice("zh")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_open_file_is_refused(home: Path, mode: int) -> None:
    write(home, {"a": "https://h"}, mode)
    with pytest.raises(FatalError) as caught:
        connections.resolve("a")
    assert caught.value.code == "connections-file-open"
    assert "chmod 600" in caught.value.advice("en")


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 5}', '{"a": {"url": "x", "pasword": "hush"}}', '{"a": {}}'])
def test_broken_entries(home: Path, content: str) -> None:
    write(home, content)
    with pytest.raises(FatalError) as caught:
        connections.resolve("a")
    assert caught.value.code in ("connections-file-invalid", "connection-invalid")
    assert "hush" not in str(caught.value)


def test_broken_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YICI_CONN_A", '{"password": "hush"')
    with pytest.raises(FatalError) as caught:
        connections.resolve("a")
    assert caught.value.code == "connection-invalid"
    assert "hush" not in str(caught.value)


def test_airflow_comes_last_and_only_inside_airflow(tmp_path: Path) -> None:
    """A process of its own: importing airflow.sdk is slow and stays."""
    code = """
import sys
from connectors import connections
from connectors.errors import FatalError
try:
    connections.resolve("sh-ga"); raise SystemExit("found without airflow.sdk")
except FatalError: pass
import airflow.sdk
found = connections.resolve("sh-ga")
assert (found.url, found.username, found.password) == ("postgresql://db.example:5433/people", "me", "hush"), found.url
try:
    connections.resolve("absent"); raise SystemExit("found an absent one")
except FatalError as error: assert error.code == "connection-missing"
print("as expected")
"""
    address = "postgresql://me:hush@db.example:5433/people"
    environment = {"AIRFLOW_CONN_SH-GA": address, "PATH": "/usr/bin:/bin", "YICI_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path(__file__).parent.parent
    )
    assert "as expected" in done.stdout, done.stderr[-2000:]
