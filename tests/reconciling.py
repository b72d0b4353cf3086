"""Two hubs under an agreement: Zhejiang announces its index, Shanghai reads it over HTTP and merges it, then they reconcile."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from connectors.signature import base64url
from hub import peers, pipeline, signing
from hub.exchange import reconciliation
from hub.exchange.agreements import Agreement
from hub.exchange.reconciliation import Result
from tests import stored
from tests.peering import STORE, announce, connect
from tests.twohubs import Hub, Pair

SOURCE = "zj-hub-index"
REGISTER = "zj-ga-households"
MATERIAL = "household-register"
INDEX = "index_entry, index_key, index_scope, reconciliation, correction, landed_file, decision"


class Reading:
    """Two hubs, and what either does."""

    def __init__(self, zj: Any, sh: Any, base: str) -> None:
        self.zj, self.sh, self.base = zj, sh, base
        self.named = uuid.UUID(int=0)

    def clear(self) -> None:
        """Empty stores."""
        for hub in (self.zj, self.sh):
            with hub.acting() as engine, engine.begin() as connection:
                connection.execute(sa.text(f"TRUNCATE {STORE}, {INDEX}, peer, index_read RESTART IDENTITY CASCADE"))
                connection.execute(sa.text("UPDATE feed_head SET position = 0, recorded_at = '-infinity'"))
            for folder in ("landing", "work"):
                shutil.rmtree(Path(hub.variables["YICI_HOME"]) / folder, ignore_errors=True)
            (Path(hub.variables["YICI_HOME"]) / "work").mkdir()

    def let_in(self) -> None:
        """Shanghai may read Zhejiang's feed."""
        with self.zj.acting() as engine:
            stored.source(engine, REGISTER, MATERIAL, region="330000")
            made = peers.grant("sh", "sh", [MATERIAL, "business-licence"], replace=True)
            extra = {"public_key": signing.public_key(), "index_key": base64url(made.key), "hub": "zj"}
        entry = {"url": self.base, "username": "sh", "password": made.secret, "extra": extra}
        connect(Path(self.sh.variables["YICI_HOME"]), entry)

    def hold(self, count: int = 1, **more: Any) -> list[str]:
        """So many certificates held and announced in Zhejiang; their keys."""
        holders = more.pop("holders", None) or [("holder", "cn.ric", stored.RESIDENT)]
        with self.zj.acting() as engine:
            keys = []
            for _ in range(count):
                keys.append(stored.holding(engine, REGISTER, MATERIAL, *holders, **{"region": "330106", **more}))
                announce(engine, keys[-1])
            return keys

    def read(self) -> dict[str, Any]:
        with self.sh.acting():
            return pipeline.run(SOURCE)

    def reconcile(self, by: Any = None, *, heal: bool = False) -> Result:
        by = by or self.sh
        with by.acting():
            [result] = reconciliation.reconcile("sh" if by is self.zj else "zj", heal=heal)
        return result

    def sql(self, hub: Any, statement: str, **bind: Any) -> list[Any]:
        with hub.acting() as engine, engine.begin() as connection:
            done = connection.execute(sa.text(statement), bind)
            return list(done) if done.returns_rows else []

    def handles(self) -> list[str]:
        """What Shanghai was told of, in the order of Zhejiang's feed."""
        query = """SELECT document ->> 'certificate_number' FROM observation
          ORDER BY (document -> 'attributes' ->> 'position')::bigint"""
        return [row[0] for row in self.sql(self.sh, query)]


class Exchange(Reading):
    """Both in one process, their messages carried by the test."""

    def __init__(self, pair: Pair, base: str) -> None:
        super().__init__(pair.zj, pair.sh, base)
        self.pair = pair

    def begin(self, **terms: Any) -> None:
        """Empty stores, an agreement, and a reader that may read."""
        self.pair.forget()
        self.clear()
        self.named = self.pair.agree(**terms)
        self.let_in()

    def agreement(self, hub: Hub) -> Agreement:
        return self.pair.agreement(hub, self.named)


@contextlib.contextmanager
def exchanging(pair: Pair) -> Iterator[Exchange]:
    with announcing(pair.zj) as base:
        yield Exchange(pair, base)


@contextlib.contextmanager
def announcing(hub: Any) -> Iterator[str]:
    """The address of the hub's API, a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Path(hub.variables["YICI_HOME"])
    with open(home / "api.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hub", "serve", "--port", str(port)],
            env={**os.environ, **hub.variables}, stdout=log, stderr=log,
        )  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while not _ready(base):
            assert process.poll() is None and time.monotonic() < deadline, (home / "api.log").read_text()
            time.sleep(0.05)
        yield base
    finally:
        process.terminate()
        process.wait(20)


def _ready(base: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{base}/readyz", timeout=5).ok
    return False
