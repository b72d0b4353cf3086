"""Evidence requests a second, signed and recorded, beside the same endpoint without (``yici bench exchange --only evidence``).

The same requests over the same number of connections of mutual TLS; every listener is a process of the same hub, on the same store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from bench import evidence_hub, measuring
from bench.evidence_hub import Asked

CONNECTIONS = 16
LESS = {"plain": "trust", "reading": "writes"}
WARM = 400


def measure(asked: Asked, count: int, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("signed", *LESS)}
    with evidence_hub.without(asked, LESS["plain"]) as plain, evidence_hub.without(asked, LESS["reading"]) as reading:
        ports = {"signed": asked.port, "plain": plain, "reading": reading}
        seed = 0
        for number in range(-1, rounds):
            turn = list(ports) if number % 2 else list(ports)[::-1]
            for name in turn:
                seed += 1
                requests = asked.messages(count if number >= 0 else WARM, seed)
                before, used = (asked.given(), asked.recorded()), asked.processor()
                done = asked.drive(ports[name], requests, CONNECTIONS)
                done["used"] = (asked.processor() - used) / done["requests"]
                _require_done(asked, name, done, before)
                requests.unlink()
                if number >= 0:
                    found[name].append(done)
                    measuring.say(f"round {number + 1}: {name}: {done['requests'] / done['seconds']:,.0f}/s, p50 {done['p50']:.1f} ms, "
                                  f"p99 {done['p99']:.1f} ms, generator {done['processor']:.0%}")  # fmt: skip
        idle = _idle(asked, count)
    rates = {name: measuring.median([one["requests"] / one["seconds"] for one in each]) for name, each in found.items()}
    return {
        "per_second": {**{f"evidence_{name}": round(rate) for name, rate in rates.items()},
                       "evidence_generator": round(idle["requests"] / idle["seconds"])},
        "seconds": {
            f"evidence_{name}_{point}": round(measuring.median([one[point] for one in each]) / 1000, 5)
            for name, each in found.items() for point in ("p50", "p99")
        },
        "processor_ms": {f"evidence_{name}": round(measuring.median([one["used"] for one in each]) * 1000, 2)
                         for name, each in found.items()},
        "generator_processor": {name: round(measuring.median([one["processor"] for one in each]), 3)
                                for name, each in found.items()},
        "ratios": {
            "evidence_signed_vs_plain": measuring.ratio(rates["signed"], rates["plain"]),
            "evidence_signed_vs_reading": measuring.ratio(rates["signed"], rates["reading"]),
        },
    }  # fmt: skip


def _idle(asked: Asked, count: int) -> dict[str, Any]:
    """How many requests the generator makes when they are answered at once: ``GET /healthz`` of the same listener."""
    from bench import exchange_load

    path = Path(asked.folder) / "healthz"
    exchange_load.write(path, [b"GET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n"] * count)
    return asked.drive(asked.port, path, CONNECTIONS)


def _require_done(asked: Asked, name: str, done: dict[str, Any], before: tuple[int, int]) -> None:
    """Every request was answered with a certificate, and written down as it has to be."""
    from connectors import envelope

    wanted = {"signed": (1, 1), "plain": (1, 0), "reading": (0, 0)}[name]
    written = asked.given() - before[0], asked.recorded() - before[1]
    if written != tuple(done["requests"] * each for each in wanted):
        raise SystemExit(f"{name}: {done['requests']:,} requests, {written[0]:,} disclosures, {written[1]:,} records")
    for answer in done["answers"]:
        body = answer.encode()
        if name == "signed":
            message = envelope.read(body)
            assert message.intact and message.envelope.status == envelope.OK, message.envelope.status
            body = message.body
        told = orjson.loads(body)
        assert told["certificate"]["holders"] and told["material"] == evidence_hub.MATERIAL, told
