"""``yici bench lookup``: full lookups a second, beside a bare FastAPI + asyncpg endpoint, on one store in one run.

    .venv/bin/python bench/lookup.py [--holdings N] [--scale] [--seconds N] [--rounds N] [--lookups N] [--json]

One worker each. Yici's answer is authenticated, the agreement checked, six requirements resolved and the answer stored
before it is given; the bare endpoint fetches the subject's holdings and does nothing else. See bench/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

import requests

from bench import measuring, store

HERE = Path(__file__).parent
CLIENT, PURPOSE, ITEM = "bench", "measure", "demo-food-permit"
BODIES = 20_000
CONNECTIONS = 64
BATCH = 1000
FEW, MANY = 10_000, 1_000_000  # lookups after which memory is compared
WARM_SECONDS = 3.0
READY_SECONDS = 60.0
YICI = [sys.executable, "-m", "hub", "serve", "--port"]


def measure(holdings: int, seconds: float, rounds: int, lookups: int = MANY, *, scale: bool = False) -> dict[str, Any]:
    """``lookups``: after how many memory is looked at, 0 for not at all; ``scale``: ten times the holdings too."""
    found = _measured(holdings, seconds, rounds, lookups)
    if scale:
        more = _measured(10 * holdings, seconds, rounds, 0, alone=True)
        rates = [one["per_second"]["yici_full"] for one in (more, found)]
        found["ratios"]["throughput_10m_vs_1m"] = measuring.ratio(*rates)
        found["per_second"]["yici_full_10m"] = rates[0]
    return found


def _measured(holdings: int, seconds: float, rounds: int, lookups: int, *, alone: bool = False) -> dict[str, Any]:
    with measuring.home() as here, measuring.database(here, "lookup") as url, tempfile.TemporaryDirectory() as folder:
        os.environ["YICI_DATABASE_URL"] = url.replace("+psycopg", "")
        secret = _fill(holdings)
        bodies = Path(folder) / "bodies"
        store.bodies(bodies, BODIES, holdings)
        bare = [
            sys.executable,
            "-m",
            "uvicorn",
            "bench.bare:app",
            "--no-access-log",
            "--log-level",
            "warning",
            "--port",
        ]
        found: dict[str, list[dict[str, float]]] = {}
        memory = {}
        with Server(YICI, "/readyz") as ours, Server(bare, "/docs") as theirs:
            token = token_of(ours.address, secret)
            _agrees(ours.address, theirs.address, token, bodies)
            if lookups:
                memory = _memory(ours, bodies, token, lookups)
            for number in range(rounds):
                for name, server, key in (("yici", ours, token), ("bare", theirs, None))[: 1 if alone else 2]:
                    for load, connections in (("full", CONNECTIONS), ("lone", 1)):
                        drive(server.address, bodies, connections, WARM_SECONDS, key)
                        done = drive(server.address, bodies, connections, seconds, key)
                        if done["errors"]:
                            raise SystemExit(f"{name} refused {done['errors']:.0f} of {done['requests']:.0f} requests")
                        found.setdefault(f"{name}_{load}", []).append(done)
                        rate = done["requests"] / done["seconds"]
                        measuring.say(f"round {number + 1}: {name}, {connections} connections: {rate:,.0f}/s, "
                                      f"p50 {done['p50']:.1f} ms, p99 {done['p99']:.1f} ms")  # fmt: skip
                done = _batches(ours.address, bodies, seconds, token)
                found.setdefault("yici_batch", []).append(done)
                measuring.say(
                    f"round {number + 1}: yici, batches of {BATCH}: {done['requests'] / done['seconds']:,.0f} subjects/s"
                )
            _all_kept(
                round(sum(one["requests"] for name, all_ in found.items() if name.startswith("yici") for one in all_))
            )
    middle = {name: _middle(values) for name, values in found.items()}
    ratios = {"batch_vs_single": measuring.ratio(middle["yici_batch"]["rate"], middle["yici_lone"]["rate"])}
    if not alone:
        ratios = {
            "throughput_vs_bare": measuring.ratio(middle["yici_full"]["rate"], middle["bare_full"]["rate"]),
            "p99_vs_bare": measuring.ratio(middle["yici_full"]["p99"], middle["bare_full"]["p99"]),
            "lone_vs_bare": measuring.ratio(middle["yici_lone"]["p50"], middle["bare_lone"]["p50"]),
            **ratios,
        }
    if memory:
        ratios["memory_1m_vs_10k"] = measuring.ratio(memory["many"], memory["few"])
    return {
        "machine": measuring.machine(),
        "holdings": holdings,
        "rounds": rounds,
        "client": "wrk" if shutil.which("wrk") else "bundled",
        "per_second": {name: round(value["rate"]) for name, value in middle.items()},
        "seconds": {
            f"{name}_{point}": round(value[point] / 1000, 5)
            for name, value in middle.items()
            for point in ("p50", "p99")
        },
        "memory_mb": {name: round(value / 1e6) for name, value in memory.items()},
        "ratios": ratios,
    }


def _memory(server: Server, bodies: Path, token: str, lookups: int) -> dict[str, float]:
    """Resident bytes after few and after ``lookups`` lookups."""
    import psutil

    process, done, found = psutil.Process(server.process.pid), 0.0, {}
    for name, wanted in (("few", FEW), ("many", lookups)):
        while done < wanted:
            done += drive(server.address, bodies, CONNECTIONS, 3 if name == "few" else 20, token)["requests"]
        found[name] = process.memory_info().rss
        measuring.say(f"after {done:,.0f} lookups {found[name] / 1e6:.0f} MB")
    return found


def _batches(address: str, bodies: Path, seconds: float, token: str) -> dict[str, float]:
    """Subjects asked about in batches over one connection, each line read."""
    asked = [json.loads(line) for line in bodies.read_text().split("\n")[: 20 * BATCH] if line]
    parts = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
    prepared = [
        json.dumps(
            {
                "items": [ITEM],
                "subjects": [{"id": one["id"], "facts": one["facts"], "roles": one["roles"]} for one in part],
            }
        ).encode()
        for part in parts
    ]
    target = urlsplit(address)
    connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    subjects, times = 0, []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or not times:
        began = time.perf_counter()
        which = len(times) % len(prepared)
        connection.request("POST", "/v1/lookups/batch", prepared[which], headers)
        answer = connection.getresponse()
        lines = answer.read().splitlines()
        if answer.status != 200 or len(lines) != len(parts[which]) or b'"problem"' in lines[-1]:
            raise SystemExit(f"a batch was refused: {answer.status} {len(lines)} of {len(parts[which])} {lines[-1:]}")
        subjects += len(lines)
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    return {
        "requests": subjects, "seconds": time.perf_counter() - start, "p50": times[len(times) // 2],
        "p99": times[int(len(times) * 0.99)], "errors": 0,
    }  # fmt: skip


def _all_kept(given: int) -> None:
    """Every answer that was given is in the store."""
    from hub import database

    with database.engine().connect() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM answer").scalar_one()
    database.engine().dispose()
    measuring.say(f"{kept:,} answers kept")
    if kept < given:
        raise SystemExit(f"{given:,} answers were given, {kept:,} are kept")


def drive(address: str, bodies: Path, connections: int, seconds: float, token: str | None) -> dict[str, float]:
    """Requests, seconds, p50 and p99 in milliseconds, errors."""
    if shutil.which("wrk") is None:
        return asyncio.run(_drive(address, bodies, connections, seconds, token))
    environment = {**os.environ, "BODIES": str(bodies), **({"TOKEN": token} if token else {})}
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--latency",
        "-s",
        str(HERE / "load.lua"),
    ]
    done = subprocess.run(
        [*command, f"{address}/v1/lookups"], capture_output=True, text=True, check=True, env=environment
    )
    return dict(json.loads(done.stderr.strip().splitlines()[-1]))


async def _drive(address: str, bodies: Path, connections: int, seconds: float, token: str | None) -> dict[str, float]:
    """The bundled client: HTTP/1.1 over sockets kept open, requests made beforehand."""
    host, port = urlsplit(address).hostname, urlsplit(address).port
    head = f"POST /v1/lookups HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {token}\r\n" if token else ""
    requests_ = [
        f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode() for body in bodies.read_text().split("\n")[:-1]
    ]
    times: list[float] = []
    errors = 0
    ends = time.perf_counter() + seconds

    async def one(place: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(host, port)
        while time.perf_counter() < ends:
            place = (place + 1) % len(requests_)
            start = time.perf_counter()
            writer.write(requests_[place])
            header = await reader.readuntil(b"\r\n\r\n")
            length = int(header.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            times.append(time.perf_counter() - start)
            errors += not header.startswith(b"HTTP/1.1 200")
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(one(number * len(requests_) // connections) for number in range(connections)))
    times.sort()
    return {
        "requests": len(times), "seconds": time.perf_counter() - start, "p50": times[len(times) // 2] * 1000,
        "p99": times[int(len(times) * 0.99)] * 1000, "errors": errors,
    }  # fmt: skip


class Server:
    """One server process on a free port."""

    def __init__(self, command: list[str], ready: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = os.environ["YICI_DATABASE_URL"]
        environment = {**os.environ, "BENCH_DATABASE_URL": url, "PYTHONPATH": str(HERE.parent)}
        self.address = f"http://127.0.0.1:{port}"
        self.ready = self.address + ready
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [*command, str(port)], env=environment, stdout=subprocess.DEVNULL, stderr=self.errors
        )

    def __enter__(self) -> Server:
        ends = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends and self.process.poll() is None:
            try:
                if requests.get(self.ready, timeout=5).ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.1)
        self.__exit__()
        self.errors.seek(0)
        raise SystemExit(f"a server did not start:\n{self.errors.read().decode()[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


def _fill(holdings: int) -> str:
    from hub import database

    database.upgrade()
    measuring.say(f"making {holdings:,} holdings")
    store.fill(database.engine(), holdings)
    secret = client()
    database.engine().dispose()
    return secret


def client() -> str:
    """The secret of a client that may ask."""
    from hub import agreements

    return agreements.add(CLIENT, None, "Measurements", [ITEM], [PURPOSE], rate=1_000_000)


def token_of(address: str, secret: str) -> str:
    form = {"grant_type": "client_credentials"}
    answer = requests.post(f"{address}/oauth2/token", data=form, auth=(CLIENT, secret), timeout=30)
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def _agrees(ours: str, theirs: str, token: str, bodies: Path) -> None:
    """Both find the same subjects held: else one of them would be measured doing nothing."""
    headers = {"Authorization": f"Bearer {token}"}
    for body in bodies.read_text().split("\n")[:20]:
        asked = json.loads(body)
        full = requests.post(f"{ours}/v1/lookups", json=asked, headers=headers, timeout=30)
        bare = requests.post(f"{theirs}/v1/lookups", json=asked, timeout=30)
        (answer,) = full.json()["answers"]
        held = answer["requirements"][0]["disposition"] == "held"
        if held != bool(bare.json()["holdings"]) or len(answer["requirements"]) < 6:
            raise SystemExit("the two endpoints do not find the same")


def _middle(values: list[dict[str, float]]) -> dict[str, float]:
    rates = [value["requests"] / value["seconds"] for value in values]
    return {
        "rate": measuring.median(rates),
        **{point: measuring.median([value[point] for value in values]) for point in ("p50", "p99")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="yici bench lookup", description=__doc__)
    parser.add_argument("--holdings", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lookups", type=int, default=MANY, help="after which memory is looked at; 0: not at all")
    parser.add_argument("--scale", action="store_true", help="ten times the holdings too")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = measure(given.holdings, given.seconds, given.rounds, given.lookups, scale=given.scale)
    if given.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{result['holdings']:,} holdings, medians of {result['rounds']}, client {result['client']}")
    for name, value in result["per_second"].items():
        print(f"  {name:24} {value:10,} /s")
    for name, value in result["seconds"].items():
        print(f"  {name:24} {value * 1000:10.2f} ms")
    for name, value in result["ratios"].items():
        print(f"  {name:24} × {value}")


if __name__ == "__main__":
    main()
