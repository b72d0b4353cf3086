"""Schedules: what three hubs do, and what happens to them meanwhile. A schedule is a function of seed and number."""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import random
from dataclasses import dataclass

from bench.exchange_faults import lies
from bench.exchange_faults.board import POINTS
from bench.exchange_faults.network import Link, Weather
from bench.exchange_faults.truth import HUBS

# How often each comes, of the faults of a round.
FAULTS = {
    "partition": 12, "silence": 5, "delay": 5, "reorder": 5, "cut": 14, "stall": 5, "trickle": 3,
    "kill-listener": 16, "kill-work": 18, "twice": 14, "skew": 6, "rotate": 8,
}  # fmt: skip
SKEWS = (-630.0, -570.0, 570.0, 630.0)  # seconds: on either side of what hubs bear with each other
LIARS = 0.3  # of all schedules
DAMAGED = 0.3  # a reader's entries are damaged after all, for reconciliation to heal


@dataclass(frozen=True)
class Work:
    """Something that ``hub`` does, with respect to ``peer``. ``fuse``: where it is killed, the how-manieth time."""

    what: str
    hub: str
    peer: str = ""
    fuse: tuple[str, int] | None = None

    def __str__(self) -> str:
        killed = f", killed at {self.fuse[0]} {self.fuse[1]}" if self.fuse else ""
        return f"{self.hub} {self.what} {self.peer}{killed}"


@dataclass(frozen=True)
class Round:
    """What is done at once, and what happens meanwhile. ``kills``: listener, point, count. ``sent``: whose messages go out
    twice, and how. ``skews``: whose clock goes wrong. ``late``: the registers change while others read."""

    works: tuple[Work, ...]
    weather: tuple[tuple[Link, Weather], ...] = ()
    kills: tuple[tuple[str, str, int], ...] = ()
    sent: tuple[tuple[str, str], ...] = ()
    skews: tuple[tuple[str, float], ...] = ()
    rotates: tuple[str, ...] = ()
    late: bool = False
    left_dead: bool = False  # a listener that was killed stays so for a round

    @property
    def happens(self) -> list[str]:
        return [
            *(f"{one}>{other}: {weather}" for (one, other), weather in self.weather),
            *(f"listener of {hub} killed at {point} {count}" for hub, point, count in self.kills),
            *(f"{hub} sends twice ({how})" for hub, how in self.sent),
            *(f"clock of {hub} {seconds:+.0f} s" for hub, seconds in self.skews),
            *(f"{hub} rotates its keys" for hub in self.rotates),
        ]


@dataclass(frozen=True)
class Schedule:
    """``givers``: whose registers change; the others read. ``acts``: steps of an agreement between two hubs, in order: kind,
    who. ``given``, ``told``: what the liar says in answers and by itself, to the hub ``deceived``."""

    number: int
    givers: tuple[str, ...]
    rounds: tuple[Round, ...]
    acts: tuple[tuple[str, str], ...] = ()
    pauses: bool = False  # an agreement that is read under is suspended for a while
    liar: str = ""
    deceived: str = ""
    given: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    damaged: bool = False

    @property
    def links(self) -> list[Link]:
        """Who reads whom."""
        return [(reader, giver) for giver in self.givers for reader in HUBS if reader != giver]


def draw(seed: int, number: int) -> Schedule:
    rng = random.Random(f"exchange {seed} {number}")
    names = rng.sample(HUBS, len(HUBS))
    givers = tuple(names[: rng.choice((1, 1, 1, 2))])
    rounds = tuple(_round(rng, givers) for _ in range(rng.choice((1, 2, 2, 3))))
    liar = rng.choice(givers) if rng.random() < LIARS else ""
    deceived = rng.choice([name for name in HUBS if name != liar]) if liar else ""
    one, other = rng.sample(HUBS, 2)
    return Schedule(
        number, givers, rounds, _acts(rng, one, other), rng.random() < 0.15, liar, deceived,
        tuple(rng.sample(sorted(lies.GIVEN), 2)) if liar else (), tuple(rng.sample(sorted(lies.TOLD), 5)) if liar else (),
        rng.random() < DAMAGED,
    )  # fmt: skip


def _acts(rng: random.Random, one: str, other: str) -> tuple[tuple[str, str], ...]:
    """The life of an agreement, or a part of it."""
    whole: list[tuple[str, str]] = [("propose", one), ("accept", other)]
    for _ in range(rng.randint(0, 2)):
        who = rng.choice((one, other))
        whole += [("suspend", who), ("resume", who)]
    whole += rng.choice(([], [("suspend", one)], [("end", one), ("end", other)], [("end", other)]))
    if rng.random() < 0.2:
        whole = [("propose", one), ("decline", rng.choice((one, other)))]
    return tuple(whole) if rng.random() < 0.7 else ()


def _round(rng: random.Random, givers: tuple[str, ...]) -> Round:
    works = []
    for giver in givers:
        readers = [name for name in HUBS if name != giver]
        works += [Work("read", reader, giver) for reader in readers if rng.random() < 0.8]
        for _ in range(rng.randint(0, 2)):
            works.append(Work("evidence", rng.choice(readers), giver))
        if rng.random() < 0.4:
            works.append(Work("correct", rng.choice(readers), giver))
        if rng.random() < 0.25:
            works.append(Work("reconcile", rng.choice(readers), giver))
        if rng.random() < 0.1:
            works.append(Work("renew", giver, rng.choice(readers)))
    if rng.random() < 0.6:
        works.append(Work("act", ""))
    if rng.random() < 0.4:
        works.append(Work("repeat", rng.choice(HUBS)))
    works = works or [Work("read", next(name for name in HUBS if name != givers[0]), givers[0])]
    kinds = rng.choices(list(FAULTS), list(FAULTS.values()), k=rng.choice((1, 1, 2, 2, 3)))
    weather: dict[Link, Weather] = {}
    kills: list[tuple[str, str, int]] = []
    sent: dict[str, str] = {}
    skews: dict[str, float] = {}
    rotates: list[str] = []
    for kind in kinds:
        link = _link(rng, works, givers)
        match kind:
            case "kill-listener":
                point = rng.choices(POINTS, (5, 2, 3, 1))[0]
                most = {"statement": 60, "commit": 10, "reply": 6, "chain": 4}[point]
                kills.append((rng.choice((*givers, rng.choice(HUBS))), point, rng.randint(1, most)))
            case "kill-work":
                place = rng.randrange(len(works))
                stage = 4 if works[place].what == "read" else 0
                at = rng.choices(("statement", "commit", "post", "stage"), (5, 3, 3, stage))[0]
                most = {"statement": 90, "commit": 18, "post": 4, "stage": 10}[at]
                works[place] = Work(works[place].what, works[place].hub, works[place].peer, (at, rng.randint(1, most)))
            case "twice":
                sent[rng.choice(HUBS)] = rng.choice(("again", "beside"))
            case "skew":
                skews[rng.choice(HUBS)] = rng.choice(SKEWS)
            case "rotate":
                rotates.append(rng.choice(HUBS))
            case _:
                weather[link] = _weather(rng, kind)
                if kind == "partition" and rng.random() < 0.5:
                    weather[link[1], link[0]] = _weather(rng, kind)
    # Not by a wrong clock: the overlap here is so short that the old keys would end at once.
    rotating = [hub for hub in dict.fromkeys(rotates) if hub not in skews]
    return Round(
        tuple(works), tuple(weather.items()), tuple(kills), tuple(sent.items()), tuple(skews.items()), tuple(rotating),
        rng.random() < 0.4, rng.random() < 0.3,
    )  # fmt: skip


def _link(rng: random.Random, works: list[Work], givers: tuple[str, ...]) -> Link:
    """Mostly one that is used."""
    used = [(work.hub, work.peer) for work in works if work.hub and work.peer and work.what != "renew"]
    if used and rng.random() < 0.85:
        return rng.choice(used)
    one, other = rng.sample(HUBS, 2)
    return one, other


def _weather(rng: random.Random, kind: str) -> Weather:
    match kind:
        case "delay":
            return Weather(kind, seconds=rng.uniform(0.01, 0.12))
        case "reorder":
            return Weather(kind, seconds=rng.uniform(0.1, 0.4))
        case "cut" | "stall":
            # The first two thousand bytes or so are those of TLS.
            count = rng.choice((rng.randint(0, 2500), rng.randint(2000, 9000)))
            return Weather(kind, count=count, back=rng.random() < 0.6, times=rng.randint(1, 3))
        case "trickle":
            return Weather(kind, count=rng.randint(20, 200))
    return Weather(kind)
