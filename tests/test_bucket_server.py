"""The health department's bucket of the demo, as a process of its own, asked over the S3 protocol."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from tests import buckets
from tests.buckets import BUCKET

BIG = os.urandom(9_000_000)  # larger than one part of a multipart upload


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nhc")
    (folder / "a.parquet").write_bytes(b"first")
    (folder / "big.parquet").write_bytes(BIG)
    (folder / "half.parquet.part").write_bytes(b"unfinished")
    (folder / ".hidden").write_bytes(b"hidden")
    return folder


@pytest.fixture(scope="module")
def server(data: Path) -> Iterator[str]:
    with buckets.running(data) as url:
        yield url


def keys(store: Any) -> set[str]:
    return {item["Key"] for item in store.list_objects_v2(Bucket=BUCKET).get("Contents", ())}


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


def test_the_folder_is_in_the_bucket(server: str) -> None:
    assert server.startswith("http://127.0.0.1:")
    assert requests.get(f"{server}/healthz", timeout=5).json() == {"status": "ok"}
    store = buckets.client(server)
    assert keys(store) == {"certificates/a.parquet", "certificates/big.parquet"}
    assert store.get_object(Bucket=BUCKET, Key="certificates/big.parquet")["Body"].read() == BIG


def test_what_appears_changes_or_goes_does_so_in_the_bucket(server: str, data: Path) -> None:
    store, path = buckets.client(server), data / "new.parquet"

    def until(expected: bytes | None) -> bool:
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            found = "certificates/new.parquet" in keys(store)
            if found == (expected is not None) and (
                not found or store.get_object(Bucket=BUCKET, Key="certificates/new.parquet")["Body"].read() == expected
            ):
                return True
            time.sleep(0.1)
        return False

    path.write_bytes(b"one")
    assert until(b"one")
    path.write_bytes(b"two!")
    assert until(b"two!")
    path.unlink()
    assert until(None)


@pytest.mark.parametrize(
    ("access", "secret", "expected"),
    [("nobody", buckets.SECRET, "InvalidAccessKeyId"), (buckets.ACCESS, "wrong", "SignatureDoesNotMatch")],
)
def test_wrong_credentials_are_refused(server: str, access: str, secret: str, expected: str) -> None:
    store = buckets.client(server, access, secret)
    for action in (
        lambda: store.list_objects_v2(Bucket=BUCKET),
        lambda: store.get_object(Bucket=BUCKET, Key="certificates/a.parquet"),
        lambda: store.put_object(Bucket=BUCKET, Key="x", Body=b""),
    ):
        with pytest.raises(ClientError) as caught:
            action()
        assert code(caught) == expected


def test_the_key_given_out_may_only_read_its_bucket(server: str) -> None:
    store = buckets.client(server)
    for action in (
        lambda: store.put_object(Bucket=BUCKET, Key="certificates/x.parquet", Body=b"x"),
        lambda: store.delete_object(Bucket=BUCKET, Key="certificates/a.parquet"),
        lambda: store.list_buckets(),
        lambda: store.list_objects_v2(Bucket="another"),
    ):
        with pytest.raises(ClientError) as caught:
            action()
        assert code(caught) == "AccessDenied"


@pytest.mark.parametrize(
    "path",
    [f"/{BUCKET}", f"/{BUCKET}/certificates/a.parquet", "/moto-api/data.json", f"/{BUCKET}?X-Amz-Credential=a%2Fb"],
)
def test_unsigned_requests_reach_nothing(server: str, path: str) -> None:
    assert requests.get(server + path, timeout=5).status_code == 403
    reset = {"authorization": "AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request, Signature=d"}
    assert requests.post(f"{server}/moto-api/reset", headers=reset, timeout=5).status_code == 403


def test_it_does_not_start_without_credentials_data_or_port(tmp_path: Path) -> None:
    words = ("--bucket", BUCKET)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cases = [
            (tmp_path, ("--port", "0", *words), {"YICI_DEMO_CLIENT_SECRET": ""}, 2, "YICI_DEMO_CLIENT_SECRET"),
            (tmp_path / "absent", ("--port", "0", *words), {}, 1, "absent"),
            (tmp_path, ("--port", str(taken.getsockname()[1]), *words), {}, 1, "in use"),
        ]
        started = [(buckets.launch(data, *line, **env), status, text) for data, line, env, status, text in cases]
        for process, status, text in started:
            _, errors = process.communicate(timeout=20)
            assert (process.returncode, text in errors) == (status, True), errors
            assert buckets.SECRET not in errors
