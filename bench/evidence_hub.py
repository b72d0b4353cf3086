"""A hub that holds business licences and answers for them, and messages of another that asks for evidence: what the measurements
of evidence and of the ledger begin with.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import sqlalchemy as sa

from bench import exchange_load, measuring, neighbours, store
from bench.neighbours import Variables
from hub.home import Home

MATERIAL, ITEM, CASE, PURPOSE = "business-licence", "demo-food-permit", "bench-1", "measurement"
KIND = "evidence.request"
DEADLINE = dt.timedelta(seconds=20)  # that who asks would wait


@dataclass(frozen=True)
class Asked:
    """``owner`` holds, ``asker`` asks; ``port`` is that of the owner's listener. ``codes``: whose licences are held."""

    owner: Variables
    asker: Variables
    agreement: str
    codes: pa.StringArray
    port: int
    folder: Path
    here: Home

    def messages(self, count: int, seed: int) -> Path:
        """A file of ``count`` requests, each signed now, for one certificate each as the index announced it."""
        from connectors import envelope
        from hub import home
        from hub.exchange import agreements, announced, caller, ledger

        named = agreements.parsed(self.agreement)
        assert named is not None
        with neighbours.acting(self.owner), neighbours.store(self.owner).begin() as connection:
            given = announced.given(connection, agreements.opened(agreements.versions(connection, named[0])[0]))
            own = home.keyed_hash()
        places = np.random.default_rng(seed).integers(0, len(self.codes), count)
        requests = []
        with neighbours.acting(self.asker):
            with neighbours.store(self.asker).connect() as connection:
                head = ledger.head(connection)
            members = {"kind": KIND, "sender": self.asker["YICI_HUB"], "receiver": self.owner["YICI_HUB"],
                       "type": "application/json", "agreement": self.agreement, "purpose": PURPOSE, "case": CASE, "head": head}  # fmt: skip
            for code in self.codes.take(pa.array(places)).to_pylist():
                key = own.of(f"{MATERIAL}\x1f{code}").hex()
                body = {"material": MATERIAL, "holders": [{"scheme": "cn.uscc", "value": code}], "item": ITEM,
                        "handle": given.key.of(f"holding:{key}").hex(), "epoch": given.epoch}  # fmt: skip
                until = dt.datetime.now(dt.UTC) + DEADLINE
                signed = caller.signed({**members, "deadline": until}, orjson.dumps(body))
                requests.append(exchange_load.request(signed.wire, envelope.MEDIA_TYPE))
        path = self.folder / f"requests-{seed}"
        exchange_load.write(path, requests)
        return path

    def begin(self, port: int, requests: Path, connections: int, rate: float = 0) -> subprocess.Popen[str]:
        """The load generator, under way."""
        from hub.exchange import keys

        now = dt.datetime.now(dt.UTC)
        with neighbours.acting(self.asker):
            own = str(keys.own().certificate(now))
        with neighbours.acting(self.owner):
            pems = [entry.public for entry in keys.own().certificates]
        plan = {
            "port": port,
            "own": own,
            "pems": pems,
            "requests": str(requests),
            "connections": connections,
            "rate": rate,
        }
        command = [sys.executable, str(Path(exchange_load.__file__)), json.dumps(plan)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def drive(self, port: int, requests: Path, connections: int) -> dict[str, Any]:
        return ended(self.begin(port, requests, connections))

    def processor(self) -> float:
        """Seconds of processors that listeners and store have used so far."""
        import psutil

        listeners = psutil.Process().children(recursive=True)
        server = psutil.Process(measuring.server(self.here))
        used = 0.0
        for one in (*listeners, server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # what tidies up comes and goes
                used += sum(one.cpu_times()[:2])
        return used

    def given(self) -> int:
        """Disclosures written down by the owner."""
        return self._count("evidence")

    def recorded(self) -> int:
        """Records of evidence in the owner's ledger that were answered ``ok``."""
        return self._count(f"exchange_record WHERE kind = '{KIND}' AND outcome = 'ok'")

    def _count(self, rows: str) -> int:
        with neighbours.store(self.owner).connect() as connection:
            return int(connection.scalar(sa.text(f"SELECT count(*) FROM {rows}")) or 0)


def ended(load: subprocess.Popen[str]) -> dict[str, Any]:
    """What it found. SystemExit when anything was not answered."""
    out, _ = load.communicate()
    if load.returncode:
        raise SystemExit("the load generator failed")
    found: dict[str, Any] = json.loads(out)
    if found["errors"]:
        raise SystemExit(f"{found['errors']:,} of {found['requests']:,} requests were refused: {found['answers'][:1]}")
    return found


@contextlib.contextmanager
def asked(here: Home, holdings: int, folder: Path) -> Iterator[Asked]:
    with (
        neighbours.hub(here, "owner", "sh", "310000") as owner,
        neighbours.hub(here, "asker", "zj", "330000") as asker,
        neighbours.exchanging(owner, asker, [MATERIAL]) as agreement,
    ):
        measuring.say(f"making {holdings:,} holdings")
        with neighbours.acting(owner):
            store.fill(neighbours.store(owner), holdings)
            port = int(Home(Path(owner["YICI_HOME"])).identity("exchange_port") or 0)
        yield Asked(owner, asker, agreement, store.codes(0, holdings), port, folder, here)


@contextlib.contextmanager
def without(asked: Asked, less: str) -> Iterator[int]:
    """The port of a listener of the owner that does without ``less`` (:mod:`bench.exchange_listener`)."""
    port = neighbours.free_port()
    with neighbours.listening(asked.owner, ["-m", "bench.exchange_listener", less, str(port)], port):
        yield port
