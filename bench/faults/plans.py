"""Plans: what departments deliver and what people decide, small, drawn from a seed, with everything that goes wrong.

Sources: licences as a slice, as changes (where the latest of two wins) and as a snapshot, over the same companies, so that
they meet in one holding; licences that halt on a conflict; households with times of their own; links between documents of
one person, which make clusters, part them again and contradict each other, and people who decide on clusters.
"""

# ruff: noqa: S311 - drawn from a seed so that it comes again, nothing is kept secret with it
from __future__ import annotations

import csv
import io
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.faults import records
from connectors import source as sources

PARTIAL, CHANGES, SNAPSHOT, HALTING = "xx-partial", "xx-changes", "xx-snapshot", "xx-halting"
HOUSEHOLDS, LINKS = "xx-households", "xx-links"
LICENCES, REGISTER, DOCUMENTS = "sh-amr-enterprises", "zj-ga-households", "cn-nia-documents"
# source -> the folder it is made from, and what is said otherwise in its source.yml
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    PARTIAL: (LICENCES, {}),
    CHANGES: (LICENCES, {"extent": "changes", "duplicates": "latest", "authority": 90}),
    SNAPSHOT: (LICENCES, {"extent": "snapshot", "authority": 80}),
    HALTING: (LICENCES, {"duplicates": "halt", "authority": 70}),
    HOUSEHOLDS: (REGISTER, {"extent": "changes"}),
    LINKS: (DOCUMENTS, {}),
}
MODIFIED = 1_700_000_000  # of every delivered file: long ago, so that nobody waits for it to settle
STEPS = 12  # or one or two more
RECORDS = {HOUSEHOLDS: records.household, LINKS: records.link}  # of all others: a licence


@dataclass(frozen=True)
class Delivery:
    """Files that appear in a source's folder, and a run of the source."""

    source: str
    files: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Decision:
    """What a person decides: ``approve`` the halted batch of a source, ``release`` or ``reject`` a row of it; or
    ``identity-merge`` two identifiers that it links, ``identity-split`` them."""

    kind: str
    source: str


Step = Delivery | Decision


def write_sources(folder: Path, made: dict[str, tuple[str, dict[str, Any]]] = SOURCES) -> None:
    """The folders of ``made``, to be named by ``YICI_SOURCES``."""
    for name, (origin, changed) in made.items():
        shutil.copytree(sources.PACKAGED / origin, folder / name, ignore=shutil.ignore_patterns("sample"))
        path = folder / name / "source.yml"
        said = yaml.safe_load(path.read_text(encoding="utf-8")) | changed | {"name": name, "connection": name}
        said["options"]["settle_seconds"] = 0
        path.write_text(yaml.safe_dump(said, allow_unicode=True, sort_keys=False), encoding="utf-8")


def draw(seed: int, number: int) -> list[Step]:
    """The ``number``-th plan of a seed: the first deliveries of some sources, then what happens afterwards."""
    rng = random.Random(f"plan {seed} {number}")
    others = rng.sample([CHANGES, HALTING, HOUSEHOLDS, LINKS], 2)
    registers = {name: Register(name, rng) for name in (PARTIAL, SNAPSHOT, *others)}
    steps: list[Step] = [registers[name].first() for name in rng.sample(sorted(registers), len(registers))]
    while len(steps) < STEPS:
        steps += _happening(registers, rng)
    return steps


def first(source: str) -> Delivery:
    """A first delivery of a source, always the same."""
    return Register(source, random.Random(source)).first()


def _happening(registers: dict[str, Register], rng: random.Random) -> list[Step]:
    """One thing that happens, in one to three steps."""
    what = rng.choice(
        (
            "update",
            "update",
            "update",
            "good-bad-good",
            "release",
            "reject",
            "cut",
            "late",
            "again",
            "conflict",
            "who",
            "who",
            "who",
        )
    )
    register = registers[rng.choice(sorted(registers))]
    match what:
        case "good-bad-good":
            return list(register.good_bad_good())
        case "release" | "reject":
            dirty = registers[PARTIAL]
            return [dirty.update(wrong=3), Decision(what, PARTIAL)]
        case "cut":  # a snapshot that lost a third halts: approved, or followed by a whole one
            cut = registers[SNAPSHOT].cut()
            return [cut, Decision("approve", SNAPSHOT) if rng.random() < 0.6 else registers[SNAPSHOT].whole()]
        case "conflict" if HALTING in registers:  # halts; a person says that the rest may pass
            return [registers[HALTING].update(conflict=True), Decision("approve", HALTING)]
        case "who" if LINKS in registers:
            kinds = rng.choice((("merge", "split"), ("split", "merge"), ("split",), ("merge",)))
            return [Decision(f"identity-{kind}", LINKS) for kind in kinds]
        case "late":
            return [register.late()]
        case "again":
            return [register.again()]
    return [register.update()]


@dataclass
class Register:
    """What one source knows: record numbers with their present version, and the day it is there. ``origin``: added to all
    numbers, so that two sources have nothing in common."""

    source: str
    rng: random.Random
    origin: int = 0
    day: int = 400
    files: int = 0
    known: dict[int, int] = field(default_factory=dict)

    def first(self) -> Delivery:
        start = self.rng.randrange(0, 30)
        for number in range(start, start + self.rng.randint(40, 70)):
            self.known[number] = 0
        return self._delivery(sorted(self.known), parts=self.rng.choice((1, 1, 2, 3)), dirt=4)

    def update(self, wrong: int = 0, conflict: bool = False) -> Delivery:
        """Some changed, some new, some dirt; a snapshot says the rest again and lacks one or two."""
        numbers = self.rng.sample(sorted(self.known), min(len(self.known), self.rng.randint(2, 12)))
        for number in numbers:
            self.known[number] += 1
        new = [max(self.known) + 1 + place for place in range(self.rng.randint(1, 6))]
        self.known.update(dict.fromkeys(new, 0))
        if self.source == SNAPSHOT:
            for number in self.rng.sample(sorted(set(self.known) - set(new)), self.rng.randint(0, 2)):
                del self.known[number]
            numbers = sorted(self.known)
        else:
            numbers += new
        return self._delivery(
            numbers, parts=self.rng.choice((1, 1, 1, 2)), dirt=wrong or self.rng.randint(0, 3), conflict=conflict
        )

    def good_bad_good(self) -> Iterator[Delivery]:
        numbers = sorted(self.known) if self.source == SNAPSHOT else self.rng.sample(sorted(self.known), 6)
        yield self._delivery(numbers)
        yield self._delivery(numbers, spoilt=set(self.rng.sample(numbers, 3)))
        yield self._delivery(numbers)

    def cut(self) -> Delivery:
        numbers = sorted(self.known)
        return self._delivery(numbers[: len(numbers) * 2 // 3])

    def whole(self) -> Delivery:
        return self._delivery(sorted(self.known))

    def late(self) -> Delivery:
        """An older delivery that arrives now."""
        today, self.day = self.day, self.day - self.rng.randint(1, 60)
        numbers = self.rng.sample(sorted(self.known), min(len(self.known), 15))
        for number in numbers[:5]:
            self.known[number] += 1
        made = self._delivery(numbers)
        self.day = today
        return made

    def again(self) -> Delivery:
        """Nothing new, in another order."""
        numbers = sorted(self.known)
        self.rng.shuffle(numbers)
        return self._delivery(numbers, parts=self.rng.choice((1, 1, 2)))

    def _delivery(self, numbers: list[int], *, parts: int = 1, dirt: int = 0, spoilt: frozenset[int] | set[int] = frozenset(),
                  conflict: bool = False) -> Delivery:  # fmt: skip
        self.day += self.rng.randint(1, 20)
        write = RECORDS.get(self.source, records.licence)

        def make(number: int, *given: Any, **more: Any) -> dict[str, str]:
            return write(self.origin + number, *given, **more)

        rows = [make(number, self.known[number], self.day, spoilt=number in spoilt) for number in numbers]
        # The day of the delivery stands in one row of it: the latest registration inside.
        rows.append(make(5000 + self.day, 0, self.day, newest=True))
        for place in range(dirt):
            rows.insert(self.rng.randrange(len(rows)), self._dirt(make, place, numbers))
        if conflict:
            rows.append(make(numbers[0], self.known[numbers[0]] + 100, self.day))
        size = -(-len(rows) // (1 if self.source == SNAPSHOT else parts))  # a snapshot in parts would be several
        pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
        files = []
        for piece in pieces:
            self.files += 1
            text = _csv(piece)
            if dirt and self.rng.random() < 0.4:
                text += "只有,两列\n"
            files.append((f"{self.source}-{self.files:04d}.csv", text.encode()))
        return Delivery(self.source, tuple(files))

    def _dirt(self, make: Any, place: int, numbers: list[int]) -> dict[str, str]:
        number = self.rng.choice(numbers)
        what = self.rng.choice(("digit", "ruined", "spoilt", "repeated", "conflicting"))
        match what:
            case "repeated":
                return make(number, self.known[number], self.day)
            case "conflicting" if self.source != HALTING:
                return make(number, self.known[number] + 100, self.day)
            case "ruined":
                return make(7000 + self.day * 10 + place, 0, self.day, key="9.13E+17")
            case "digit":
                return make(8000 + self.day * 10 + place, 0, self.day, broken=True)
        return make(9000 + self.day * 10 + place, 0, self.day, spoilt=True)


def _csv(rows: list[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
