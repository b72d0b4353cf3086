"""The S3-compatible store of the demo's health department 卫健: moto's S3 server over the files of ``yici synth``.

One bucket on 127.0.0.1, filled from a folder and kept like it: what appears there is uploaded, what goes is deleted. Every
request must be signed (Signature Version 4) with the one key that the department gave out, which may list and read and
nothing else; moto's own simulation of IAM verifies the signature and the rights, unsigned requests never reach it.
Run: ``python -m demo.bucket_server --data DIR --port P --bucket nhc-births --prefix certificates``; the key comes from
the environment only. ``/healthz`` answers once everything in the folder is in the bucket.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from connectors.errors import FatalError, UsageError, YiciError

ACCOUNT = "123456789012"
UNFINISHED = (".part", ".tmp")
WATCH_SECONDS = 0.5
Stamp = tuple[int, int]


class Guard:
    """WSGI: ``/healthz``, then signed S3 requests only. Nothing of moto's control interface is reachable."""

    def __init__(self, application: Callable[..., Iterable[bytes]], ready: threading.Event) -> None:
        self._application, self._ready = application, ready

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == "/healthz":
            ready = self._ready.is_set()
            start("200 OK" if ready else "503 Service Unavailable", [("Content-Type", "application/json")])
            return [b'{"status":"ok"}' if ready else b'{"status":"starting"}']
        scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition(",")[0].split("/")
        signed = environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4-HMAC-SHA256 ") and len(scope) == 5
        if not signed or scope[3] != "s3" or environ.get("PATH_INFO", "").startswith("/moto-api"):
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return self._application(environ, start)


class Bucket:
    """The bucket, written to over the wire like any other S3 store, with a key that only this process knows."""

    def __init__(self, folder: Path, name: str, prefix: str, region: str) -> None:
        self._folder, self._name, self._region = folder, name, region
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._known: dict[str, Stamp] = {}
        self._seen: dict[str, Stamp] | None = None
        self._client: Any = None

    def allow(self, access_key: str, secret_key: str) -> None:
        """Creates the department's own user and the one that reads; from now on every request needs a valid signature."""
        from moto import settings
        from moto.iam.models import iam_backends
        from moto.utilities.utils import get_partition

        os.environ["MOTO_ACCOUNT_ID"] = ACCOUNT  # else a client could name another account in a header
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        partition = get_partition(self._region)
        backend = iam_backends[ACCOUNT][partition]
        arn = f"arn:{partition}:s3:::{self._name}"
        self._own = (f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30))
        for user, key, actions, resources in (
            ("department", self._own, ["s3:*"], ["*"]),
            ("reader", (access_key, secret_key), ["s3:ListBucket", "s3:GetObject"], [arn, f"{arn}/*"]),
        ):
            statement = {"Effect": "Allow", "Action": actions, "Resource": resources}
            backend.create_user(self._region, user)
            backend.put_user_policy(user, user, json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
            made = backend.create_access_key(user)
            made.access_key_id, made.secret_access_key = key

    def create(self, endpoint: str) -> None:
        import boto3
        from botocore.config import Config

        self._client = boto3.client(
            "s3", endpoint_url=endpoint, region_name=self._region, aws_access_key_id=self._own[0],
            aws_secret_access_key=self._own[1], config=Config(proxies={}, s3={"addressing_style": "path"}),
        )  # fmt: skip
        place = {} if self._region == "us-east-1" else {"LocationConstraint": self._region}
        self._client.create_bucket(Bucket=self._name, **({"CreateBucketConfiguration": place} if place else {}))

    def follow(self) -> None:
        """Makes the bucket like the folder. What appeared or changed since the last look may still be written to, and
        has to look the same twice."""
        present = self._listing()
        before, self._seen = present if self._seen is None else self._seen, present
        for name in self._known.keys() - present.keys():
            self._client.delete_object(Bucket=self._name, Key=self._prefix + name)
            del self._known[name]
        for name, stamp in present.items():
            if self._known.get(name) == stamp or before.get(name) != stamp:
                continue
            with contextlib.suppress(FileNotFoundError):  # gone again: the next look finds that out
                self._client.upload_file(str(self._folder / name), self._name, self._prefix + name)
                self._known[name] = stamp

    def _listing(self) -> dict[str, Stamp]:
        found = {}
        for path in self._folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.name.startswith(".") and not path.name.endswith(UNFINISHED):
                    about = path.stat()
                    found[path.relative_to(self._folder).as_posix()] = (about.st_size, about.st_mtime_ns)
        return found


def serve(folder: Path, port: int, bucket: str, prefix: str, region: str, access_key: str, secret_key: str) -> None:
    """Serve on 127.0.0.1 until told to stop; prints the address once the bucket is filled. ``port`` 0 takes a free one."""
    if not folder.is_dir():
        raise FatalError("demo-data-missing", file=folder)
    # imported here: moto takes a second, and --help should not
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class Quiet(MotoRequestHandler):
        """No access log: keys are nobody's business."""

        def log_request(self, *_: object) -> None:
            pass

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store, ready, stopped = Bucket(folder, bucket, prefix, region), threading.Event(), threading.Event()
    store.allow(access_key, secret_key)
    application = Guard(DomainDispatcherApplication(create_backend_app), ready)
    try:
        server = make_server("127.0.0.1", port, application, threaded=True, request_handler=Quiet)
    except (OSError, SystemExit) as error:  # werkzeug leaves when the port is taken
        raise FatalError("demo-port-in-use", port=port) from error
    endpoint = f"http://127.0.0.1:{server.server_port}"

    def fill() -> None:
        try:
            store.create(endpoint)
            while not stopped.is_set():
                store.follow()
                if not ready.is_set():
                    ready.set()
                    print(endpoint, flush=True)
                stopped.wait(WATCH_SECONDS)
        except Exception as error:
            if not stopped.is_set():
                print(f"{type(error).__name__}", file=sys.stderr, flush=True)
                os._exit(1)  # a bucket that is not filled any more must not look alive

    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    threading.Thread(target=fill, daemon=True).start()
    try:
        server.serve_forever()
    finally:
        stopped.set()
        server.server_close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.bucket_server", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files to offer")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1; 0 for any free one")
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--prefix", default="", help="before the name of every file")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--access-key-env", default="YICI_DEMO_CLIENT_ID", metavar="NAME")
    parser.add_argument("--secret-key-env", default="YICI_DEMO_CLIENT_SECRET", metavar="NAME")
    given = parser.parse_args(arguments)
    try:
        access_key, secret_key = _from_environment(given.access_key_env), _from_environment(given.secret_key_env)
        serve(given.data, given.port, given.bucket, given.prefix, given.region, access_key, secret_key)
    except YiciError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _from_environment(name: str) -> str:
    if value := os.environ.get(name):
        return value
    raise UsageError("demo-credentials-missing", name=name)


if __name__ == "__main__":
    raise SystemExit(main())
