"""``yici bench answers``: every answer beside what an independent oracle reads off the requirement text and the truth.

    .venv/bin/python bench/answers.py [--people N] [--seed S] [--defect NAME] [--json]

The synthetic departments' files go through the whole pipeline, in two deliveries, one of them at a partner hub that
announces what it holds. Then every person and company of the
truth asks about every item that is in force on a day: with facts and roles that are given or left out, under any of their
identifiers, on any day, with any sources behind their promise; and about some of it again as it was known before, between
and after the deliveries. See bench/README.md.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import pyarrow.parquet as pq
import sqlalchemy as sa

from bench import defective_answers, measuring, neighbours, oracle
from bench.oracle import CHINA, HELD, SUBMIT, Party, Scenario, Truth
from hub.home import Home

CLIENT, PURPOSE = "bench", "measure"
GROUPS = 20  # of persons and of companies, at least: each has its own day, and its own sources late
TOGETHER = 100  # people who ask on one day, while the same sources are late
RECORDED = 4  # one person in so many also asks about the past
BUNDLED = 2  # one in so many also asks about several items together
REPLAYED = 10  # one of so many of these answers is made again from what was kept of it
DIRT = 0.01
# Files of the second delivery, beside the third part of what comes in parts.
SECOND = ("moe/", "nia/", "samr/", "mca/dibao-next")
# Departments that answer in pages, and what these call their records.
PAGED = {"ga/": "data", "moe/": "items"}
PAGE = 2000
CITIES = ("3301", "3304", "331002")  # of an agreement for a part of the province: that of every other seed
# From the day after the last document on, to when identity cards of today have ended.
FIRST_DAY, LAST_DAY = dt.date(2025, 7, 2), dt.date(2034, 12, 31)
FRESH = 0.4  # of all groups: nothing late, all facts and roles given
SHOWN = 3  # disagreements of one kind told in full


@dataclass
class Count:
    """What came of the comparison."""

    answers: int = 0
    wrong_held: int = 0
    wrong_submit: int = 0
    other: int = 0  # neither, and still not what the oracle says
    explained: int = 0  # by records that the truth lists under somebody else's number
    whole: int = 0  # requirements answered with everything fresh and given
    open: int = 0  # of these, undetermined
    doubted: int = 0  # of these, where a party is contradictory in the truth
    replays: int = 0
    bundles: int = 0  # questions about several items
    by_disposition: collections.Counter[str] = field(default_factory=collections.Counter)
    examples: list[str] = field(default_factory=list)
    shown: collections.Counter[str] = field(default_factory=collections.Counter)

    def result(self) -> dict[str, Any]:
        return {
            "answers": self.answers,
            "wrong_held": self.wrong_held,
            "wrong_submit": self.wrong_submit,
            "undetermined_share": round(self.open / self.whole, 6) if self.whole else 0.0,
            "by_disposition": dict(sorted(self.by_disposition.items())),
        }

    @property
    def right(self) -> bool:
        """No answer is wrong in any way, and no more is left open than the truth's contradictions explain."""
        return not (self.wrong_held or self.wrong_submit or self.other) and self.open <= self.doubted


def main() -> None:
    parser = argparse.ArgumentParser(prog="yici bench answers", description=__doc__)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--defect", choices=sorted(defective_answers.DEFECTS), help="a deliberate one: must be caught")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with measuring.home() as here:
        loaded = load(here.path, given.people, given.seed)
        if given.defect:
            defective_answers.DEFECTS[given.defect]()
        count = judge(loaded, given.seed)
    for example in count.examples:
        measuring.say(example)
    measuring.say(
        f"{count.other} other disagreements, {count.explained} explained by misfiled records of the truth, {count.replays} answers"
        f" made again, {count.bundles} questions about several items; with everything fresh and given {count.open} of {count.whole} undetermined, {count.doubted} of them about"
        " parties who are contradictory in the truth"
    )
    if given.json:
        print(json.dumps(count.result()))
    else:
        for name, value in count.result().items():
            print(f"{name:>20} {value}")
    raise SystemExit(0 if count.right else 1)


@dataclass
class Loaded:
    """A store filled from a folder of the generator. ``moments``: of the deliveries, before the first at 0."""

    truth: Truth
    moments: tuple[dt.datetime, ...]


def load(here: Path, people: int, seed: int) -> Loaded:
    """Generate the folder and take it through the pipeline, in the home ``here`` with its database running."""
    from demo.synthesis import Parameters, synthesise
    from hub import database, pipeline

    measuring.say("generating")
    told = ("33",) if seed % 2 else CITIES
    folder = synthesise(Parameters(people, max(people // 4, 400), seed, DIRT), here / "synthetic").folder
    deliveries = {
        path.relative_to(folder).as_posix(): _delivery(path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "synth.json" and "truth" not in path.parts
    }
    database.upgrade()
    started = time.perf_counter()
    moments = [dt.datetime.now(dt.UTC)]
    for number in (1, 2):
        for file in sorted(file for file, when in deliveries.items() if when == number):
            source, given = oracle.source_of(file), _input(folder, file, here / "pages")
            done = _announced(here, given, told) if source == oracle.PARTNER else pipeline.run(source, input=given)
            measuring.say(f"delivery {number}: {file}: {done['accepted']:,} rows accepted")
        moments.append(dt.datetime.now(dt.UTC))
    measuring.say(f"loaded in {time.perf_counter() - started:.0f} s")
    return Loaded(Truth(folder, deliveries, told), tuple(moments))


def _announced(here: Path, file: Path, regions: tuple[str, ...]) -> dict[str, Any]:
    """Zhejiang's hub takes in ``file`` and this one reads its index, of ``regions``; what became of that run."""
    from hub import database, pipeline

    own = {"YICI_HOME": str(here), "YICI_HUB": "sh", "YICI_REGION": "310000"}
    own |= {name: os.environ[name] for name in ("YICI_DATABASE_URL",) if name in os.environ}
    with measuring.database(Home(here), "partner") as url:
        partner = {
            "YICI_HOME": str(here / "partner"),
            "YICI_DATABASE_URL": url,
            "YICI_HUB": "zj",
            "YICI_REGION": "330000",
        }
        with mock.patch.dict(os.environ, partner):
            database.upgrade()
            pipeline.run("zj-ga-households", input=file)
        with neighbours.exchanging(partner, own, ["household-register"], regions), mock.patch.dict(os.environ, own):
            done = pipeline.run(oracle.PARTNER)
        with mock.patch.dict(os.environ, partner):
            database.engine().dispose()
    return done


def _input(folder: Path, file: str, pages: Path) -> Path:
    """What stands in for the source: the file itself, or for an interface the pages that it would answer with."""
    records = next((name for prefix, name in PAGED.items() if file.startswith(prefix)), None)
    if records is None:
        return folder / file
    place = pages / Path(file).stem
    place.mkdir(parents=True)
    lines = (folder / file).read_bytes().splitlines()
    for start in range(0, len(lines), PAGE):
        body = b'{"%s":[%s]}' % (records.encode(), b",".join(lines[start : start + PAGE]))
        (place / f"{start:09}.json").write_bytes(body)
    return place


def _delivery(file: str) -> int:
    """A third of what comes in parts, and some sources as a whole, come later."""
    number = file.partition(".")[0].rpartition("-")[2]
    return 2 if file.startswith(SECOND) or (number.isdecimal() and len(number) == 4 and int(number) % 3 == 0) else 1


def judge(loaded: Loaded, seed: int) -> Count:
    """Ask everything and compare."""
    people = _Population(loaded.truth, random.Random(seed))  # noqa: S311 - scenarios, no secret
    count = Count()
    groups = list(people.groups())
    started = told = time.perf_counter()
    for number, group in enumerate(groups, start=1):
        _now(loaded, people, group, count)
        _then(loaded, people, group, count)
        if time.perf_counter() - told > 20:
            told = time.perf_counter()
            measuring.say(f"{number}/{len(groups)} groups, {count.answers:,} answers, {told - started:.0f} s")
    return count


def _now(loaded: Loaded, people: _Population, group: Sequence[Party], count: Count) -> None:
    """A group asks about every item on a day of its own: the way of the API, many people in one statement."""
    from hub import answers, database, knowledge
    from hub.answers import Question
    from hub.home import keyed_hash

    truth, chance, hashing = loaded.truth, people.chance, keyed_hash()
    whole = chance.random() < FRESH
    day = people.day(group)
    asked_at = dt.datetime.combine(day, dt.time(chance.randrange(24), chance.randrange(60)), CHINA)
    late = frozenset() if whole else frozenset(name for name in truth.sources if chance.random() < 0.25)
    _make_late(truth, asked_at, late)
    asked = []
    for applicant in group:
        kind = "organisation" if applicant.subject.startswith("company:") else "person"
        items = [
            item for code in truth.items if (item := truth.version(code, day)) and item["applicant"]["kind"] == kind
        ]
        questions = [[item] for item in items]
        if len(items) > 1 and not chance.randrange(BUNDLED):
            questions.append(chance.sample(items, min(len(items), chance.choice((2, 3, 4)))))
        for several in questions:
            parties, facts = people.parties(several, applicant, whole), people.facts(several, whole)
            scenarios = [
                Scenario(
                    item, {role: party for role, party in parties.items() if role == "applicant" or role in item["roles"]},
                    {name: value for name, value in facts.items() if name in item["facts"]}, day, 2, late,
                )
                for item in several
            ]  # fmt: skip
            question = Question(
                tuple(item["code"] for item in several), people.written(applicant), CLIENT, PURPOSE, facts,
                {role: people.written(party) for role, party in parties.items() if role != "applicant"},
            )  # fmt: skip
            asked.append((scenarios, answers.prepare(question, asked_at, _in_force, hashing)))
    holders = {digest: who for _, one in asked for digest, who in one.holders.items()}
    materials = sorted({code for _, one in asked for code in one.materials()})
    with database.engine().connect() as connection:
        known, snapshot = knowledge.current(connection, holders, materials)
    moment = answers.at(snapshot, asked_at)
    for scenarios, one in asked:
        subjects = {role: known.subject(digest) for role, digest in one.digests.items()}
        given = answers.complete(one, subjects, moment, asked_at, PURPOSE)
        count.bundles += len(scenarios) > 1
        for scenario, answered in zip(scenarios, given, strict=True):
            # Facts and roles that only some of several items could take are left out: only of one alone all is given.
            _compare(truth, scenario, answered, count, whole and len(scenarios) == 1)
        _compare_asked(truth, scenarios, given, count)


def _in_force(code: str, day: dt.date) -> Any:
    from hub import catalogue

    return catalogue.in_force(code, day)


def _then(loaded: Loaded, people: _Population, group: Sequence[Party], count: Count) -> None:
    """Some ask about one item as it was known at a time: the way of ``--as-of``, stored, and made again."""
    from hub import answers, database, records
    from hub.answers import Question

    truth, chance = loaded.truth, people.chance
    today = dt.datetime.now(CHINA).date()
    _make_late(truth, dt.datetime.now(dt.UTC), frozenset())
    for applicant in group:
        if chance.randrange(RECORDED):
            continue
        kind = "organisation" if applicant.subject.startswith("company:") else "person"
        items = [
            found
            for code in truth.items
            if (found := truth.version(code, today)) and found["applicant"]["kind"] == kind
        ]
        item, delivery = chance.choice(items), chance.randrange(3)
        parties, facts = people.parties([item], applicant, False), people.facts([item], False)
        question = Question(
            (item["code"],), people.written(applicant), CLIENT, PURPOSE, facts,
            {role: people.written(party) for role, party in parties.items() if role != "applicant"},
            as_of=loaded.moments[delivery],
        )  # fmt: skip
        [answered] = answers.answered_now(database.engine(), question)
        scenario = Scenario(item, parties, facts, today, delivery)
        _compare(truth, scenario, answered, count, False)
        _compare_asked(truth, [scenario], [answered], count)
        if not chance.randrange(REPLAYED):
            count.replays += 1
            replay = records.explain(database.engine(), str(uuid.UUID(bytes=answered.record.id)))["replay"]
            if replay != "same":
                count.other += 1
                count.examples.append(f"made again, {item['code']} comes out {replay}")


def _compare(truth: Truth, scenario: Scenario, answered: Any, count: Count, whole: bool) -> None:
    """Put one answer (:class:`hub.answers.Answered`) beside the oracle's."""
    said = answered.dispositions
    count.answers += 1
    count.by_disposition.update(said)
    doubtful = truth.doubtful(scenario)
    rights = truth.answer(scenario)
    requirements = scenario.item["requirements"]
    told = json.loads(answered.body)["requirements"]
    for requirement, verdict, got, words in zip(requirements, rights, said, told, strict=True):
        right = verdict.disposition
        if whole:
            count.whole += 1
            count.open += got == "undetermined"
            count.doubted += got == "undetermined" and doubtful
        lacks = frozenset((one["material"], one["holder"], one["region"]) for one in words.get("lacking", ()))
        if got == right and lacks == verdict.lacks:
            continue
        if truth.filed_wrong(scenario, requirement):
            count.explained += 1
            continue
        if got == right:  # the right answer, about the wrong papers
            count.wrong_submit += len(lacks - verdict.lacks)
            count.other += len(verdict.lacks - lacks)
        elif got in HELD and right not in HELD:
            count.wrong_held += 1
        elif got in SUBMIT and right not in SUBMIT:
            count.wrong_submit += 1
        else:
            count.other += 1
        what, wanted = (f"{right} {sorted(verdict.lacks, key=str)}", f"{got} {sorted(lacks, key=str)}")
        _show(count, f"{got} for {right}", lambda: _example(truth, scenario, requirement, what, wanted))  # noqa: B023


def _compare_asked(truth: Truth, scenarios: Sequence[Scenario], given: Sequence[Any], count: Count) -> None:
    """The materials that each of the answers to one question asks for: each that it should not is one wrong submit, also one that
    an answer before it has asked for."""
    asked = [frozenset(answered.record.must_submit.split()) for answered in given]
    rights = truth.asked(scenarios)
    if asked == rights or any(
        truth.filed_wrong(scenario, each) for scenario in scenarios for each in scenario.item["requirements"]
    ):
        return
    for scenario, got, right in zip(scenarios, asked, rights, strict=True):
        count.wrong_submit += len(got - right)
        count.other += len(right - got)
        if got != right:
            several = " and ".join(each.item["code"] for each in scenarios)
            text = (
                f"{scenario.item['code']} of {several} asks for {sorted(got)}, should for {sorted(right)}: {scenario}"
            )
            _show(count, "asked", lambda: text)  # noqa: B023


def _show(count: Count, kind: str, example: Callable[[], str]) -> None:
    if count.shown[kind] < SHOWN:
        count.shown[kind] += 1
        count.examples.append(example())


def _example(truth: Truth, scenario: Scenario, requirement: Mapping[str, Any], right: str, got: str) -> str:
    """A disagreement in full: everybody in it is invented."""
    wanted = {use["material"] for option in requirement["options"] for use in option["materials"]}
    held = [
        each
        for party in scenario.parties.values()
        for each in truth.of.get(party.subject, ())
        if each.material in wanted
    ]
    return (
        f"{scenario.item['code']} v{scenario.item['version']} {requirement['code']}: {got}, should be {right}; day {scenario.day},"
        f" delivery {scenario.delivery}, late {sorted(scenario.late)}, facts {dict(scenario.facts)}, parties"
        f" { {role: (party.subject, party.identifier) for role, party in scenario.parties.items()} }, certificates {held}"
    )


def _make_late(truth: Truth, now: dt.datetime, late: frozenset[str]) -> None:
    """Each source ran to its end within its promise, or just not."""
    from hub import database

    runs = [
        {"name": source.name, "at": now - source.promise - dt.timedelta(seconds=1) if source.name in late else now - source.promise / 2}
        for source in truth.sources.values()
    ]  # fmt: skip
    with database.engine().begin() as connection:
        connection.execute(
            sa.text("UPDATE source SET last_success_at = :at WHERE name = :name AND last_success_at IS NOT NULL"), runs
        )


class _Population:
    """Who asks, for whom, under which identifiers, on which days."""

    def __init__(self, truth: Truth, chance: random.Random) -> None:
        def table(name: str) -> list[dict[str, Any]]:
            return pq.read_table(truth.folder / f"truth/{name}.parquet").to_pylist()

        self.truth, self.chance = truth, chance
        self.identifiers: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
        for row in table("links"):
            text = f"{row['scheme']}:{row['value']}"
            self.identifiers[row["subject"]].append((text, f"{row['scheme']}:{row['written']}"))
        self.spouse: dict[str, str] = {}
        self.children: dict[str, list[str]] = collections.defaultdict(list)
        households: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
        for row in table("people"):
            households[row["household"]].append(row)
            if row["spouse"] is not None:
                self.spouse[f"person:{row['person']}"] = f"person:{row['spouse']}"
        for members in households.values():
            for one in members:
                younger = [each for each in members if (each["born_on"] - one["born_on"]).days > 16 * 365]
                self.children[f"person:{one['person']}"] = [f"person:{each['person']}" for each in younger]
        self.directs: dict[str, list[str]] = collections.defaultdict(list)
        self.directed: dict[str, str] = {}
        for row in table("companies"):
            company, person = f"company:{row['company']}", f"person:{row['representative']}"
            self.directed[company] = person
            self.directs[person].append(company)
        subjects = list(self.identifiers)
        self.everybody = {
            "organisation": [subject for subject in subjects if subject.startswith("company:")],
            "person": [subject for subject in subjects if not subject.startswith("company:")],
        }

    def groups(self) -> Iterator[list[Party]]:
        """Everybody once, in no order, together with so many others of the kind."""
        for kind in ("person", "organisation"):
            subjects = list(self.everybody[kind])
            self.chance.shuffle(subjects)
            size = max(1, min(TOGETHER, len(subjects) // GROUPS))
            for start in range(0, len(subjects), size):
                yield [self.party(subject) for subject in subjects[start : start + size]]

    def party(self, subject: str) -> Party:
        """The subject under any identifier that it has or had."""
        return Party(subject, self.chance.choice(self.identifiers[subject])[0])

    def written(self, party: Party) -> str:
        """The identifier as somebody may type it: as documents of the time have it, in small letters, without its scheme."""
        text = next(
            written if self.chance.random() < 0.3 else text
            for text, written in sorted(self.identifiers[party.subject], key=lambda _: self.chance.random())
            if text == party.identifier
        )
        return text.lower() if text.startswith("cn.ric:") and self.chance.random() < 0.2 else text

    def day(self, group: Sequence[Party]) -> dt.date:
        """Any day, or one at the edge of somebody's certificate."""
        ends = [each.ends for party in group for each in self.truth.of.get(party.subject, ()) if each.ends]
        ends += [
            each.begins + dt.timedelta(days=365) for party in group for each in self.truth.of.get(party.subject, ())
            if each.material == "subsistence-allowance" and each.begins
        ]  # fmt: skip
        if ends and self.chance.random() < 0.6:
            edge = self.chance.choice(ends) - dt.timedelta(days=self.chance.choice((-1, 0, 1, 29, 30, 31)))
            if FIRST_DAY <= edge <= LAST_DAY:
                return edge
        return FIRST_DAY + dt.timedelta(days=self.chance.randrange((LAST_DAY - FIRST_DAY).days))

    def facts(self, items: Sequence[Mapping[str, Any]], whole: bool) -> dict[str, Any]:
        """Facts of the case, each of a value that all of ``items`` understand; some are left out unless it is ``whole``."""
        said: dict[str, Any] = {}
        for name, fact in ((name, fact) for item in items for name, fact in item["facts"].items()):
            meant = [item["facts"][name] for item in items if name in item["facts"]]
            if any((one["type"], one.get("values")) != (fact["type"], fact.get("values")) for one in meant):
                continue
            if name not in said and (whole or self.chance.random() < 0.8):
                if fact["type"] == "boolean":
                    said[name] = self.chance.random() < 0.5
                elif fact["type"] == "string":
                    said[name] = self.chance.choice(fact["values"])
                else:
                    said[name] = self.chance.choice((0, 4, 5, 6, 39, 40, 41, 49, 50, 51, 80))
        return said

    def parties(self, items: Sequence[Mapping[str, Any]], applicant: Party, whole: bool) -> dict[str, Party]:
        """The applicant and the roles of ``items`` as they are true, else somebody else; some are left out likewise."""
        found = {"applicant": applicant}
        for role, about in ((role, about) for item in items for role, about in item["roles"].items()):
            kinds = {item["roles"][role]["kind"] for item in items if role in item["roles"]}
            if role not in found and len(kinds) == 1 and (whole or self.chance.random() < 0.8):
                near = self._near(role, applicant.subject)
                if near is None or near not in self.identifiers or self.chance.random() < 0.1:
                    others = [one for one in self.everybody[about["kind"]] if one != applicant.subject]
                    near = self.chance.choice(others)
                found[role] = self.party(near)
        return found

    def _near(self, role: str, subject: str) -> str | None:
        if role == "spouse":
            return self.spouse.get(subject)
        if role == "child":
            children = self.children.get(subject)
            return self.chance.choice(children) if children else None
        if role == "legal_representative":
            return self.directed.get(subject)
        if role == "company":
            companies = self.directs.get(subject)
            return self.chance.choice(companies) if companies else None
        return None


if __name__ == "__main__":
    main()
