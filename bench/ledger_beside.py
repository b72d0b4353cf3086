"""What the ledger costs the lookups of an intake system (``yici bench exchange --only ledger``).

A lookup writes nothing into the ledger of the exchange: it is answered by another process, from tables of its own. What the two
share is the machine and PostgreSQL: its processors, its log on disk, its memory. So lookups are measured while the same hub
answers evidence requests of a partner, so many a second, once recorded, chained and sealed, once the same without (``ledger`` of
:mod:`bench.exchange_listener`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import evidence_hub, lookup, measuring, neighbours, store
from bench.evidence_hub import Asked

RATE = 50  # evidence requests a second: four million a day
CONNECTIONS = 8  # of who asks for evidence
LOOKUPS = 16  # connections of lookups: few enough for a lookup to wait for its turn hardly at all
SLOW = 0.8  # of the rate that must have been reached


def measure(asked: Asked, seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {"on": [], "off": []}
    rates: dict[str, list[float]] = {"on": [], "off": []}
    bodies = asked.folder / "bodies"
    store.bodies(bodies, lookup.BODIES, len(asked.codes))
    with neighbours.acting(asked.owner), evidence_hub.without(asked, "ledger") as silent:
        secret = lookup.client()
        with lookup.Server(lookup.YICI, "/readyz") as server:
            token = lookup.token_of(server.address, secret)
            for number in range(rounds):
                for which in ("on", "off") if number % 2 else ("off", "on"):
                    port = asked.port if which == "on" else silent
                    _chained(asked)
                    done, rate = _beside(
                        asked, port, server.address, bodies, seconds, token, 1000 + 2 * number + (which == "on")
                    )
                    found[which].append(done)
                    rates[which].append(rate)
                    measuring.say(f"round {number + 1}: ledger {which}: {done['requests'] / done['seconds']:,.0f} lookups/s, "
                                  f"p50 {done['p50']:.1f} ms, p99 {done['p99']:.1f} ms beside {rate:.0f} evidence requests/s")  # fmt: skip
    middle = {which: measuring.median([one["p99"] for one in each]) for which, each in found.items()}
    return {
        "per_second": {
            **{f"lookups_ledger_{which}": round(measuring.median([one["requests"] / one["seconds"] for one in each]))
               for which, each in found.items()},
            **{f"evidence_ledger_{which}": round(measuring.median(each)) for which, each in rates.items()},
        },
        "seconds": {f"lookup_p99_ledger_{which}": round(value / 1000, 5) for which, value in middle.items()},
        "spread": {f"lookup_p99_ledger_{which}": [round(min(each) / 1000, 5), round(max(each) / 1000, 5)]
                   for which, each in ((which, [one["p99"] for one in all_]) for which, all_ in found.items())},
        "ratios": {"ledger_p99": measuring.ratio(middle["on"], middle["off"])},
    }  # fmt: skip


def _beside(
    asked: Asked, port: int, address: str, bodies: Path, seconds: float, token: str, seed: int
) -> tuple[dict[str, float], float]:
    """Lookups for so many seconds in the middle of the traffic, and evidence requests a second."""
    requests = asked.messages(round(RATE * (seconds + 2 * lookup.WARM_SECONDS)), seed)
    before = asked.recorded()
    load = asked.begin(port, requests, CONNECTIONS, RATE)
    lookup.drive(address, bodies, LOOKUPS, lookup.WARM_SECONDS, token)
    done = lookup.drive(address, bodies, LOOKUPS, seconds, token)
    traffic = evidence_hub.ended(load)
    rate = traffic["requests"] / traffic["seconds"]
    if done["errors"]:
        raise SystemExit(f"{done['errors']:.0f} of {done['requests']:.0f} lookups were refused")
    if rate < SLOW * RATE:
        raise SystemExit(f"{rate:.0f} evidence requests a second of {RATE}")
    recorded = asked.recorded() - before
    if recorded != (traffic["requests"] if port == asked.port else 0):
        raise SystemExit(f"{recorded:,} records of {traffic['requests']:,} requests")
    requests.unlink()
    return done, rate


def _chained(asked: Asked) -> None:
    """Nothing is left for the chain of what was before."""
    from hub.exchange import ledger

    with neighbours.acting(asked.owner):
        ledger.chain(neighbours.store(asked.owner))
