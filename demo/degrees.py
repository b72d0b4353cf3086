"""Degrees of those who studied, as nested records of an education register."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from demo import dirt, lives, overseas
from demo.columns import Integers, calendar, dates, day, digits, moments, pick, reworded, strings
from demo.dirt import Kind
from demo.forms import JsonLines
from demo.lives import NEVER, YEAR, Lives, Named
from demo.overseas import PASSPORT, Overseas
from demo.population import UNTIL, People, instants
from demo.records import Records

MATERIAL = "degree-certificate"
FILE = "moe/degrees.jsonl"
FORM = JsonLines()
DEGREES = ("学士", "硕士", "博士")
LEVELS = (4, 3, 2)  # as the certificate number counts them
AGES = (22, 25, 29)
HIGHER = (1.0, 0.22, 0.03)  # of those with a first degree
STATES = ("valid", "revoked")
HOLDING = ("in_force", "revoked")
TYPES = {"01": "resident-id", "02": "passport"}
SUBJECTS = ("工学", "理学", "经济学", "法学", "教育学", "文学", "历史学", "农学", "医学", "管理学", "艺术学")
PLACES = ("东海", "浦江", "申城", "太湖", "钱塘", "黄浦", "江南", "滨海", "崇明", "松江")
KINDS = ("大学", "理工大学", "师范大学")
EARLIEST = day("1981-06-30")  # degrees are awarded since 1981
FOREIGN = 30  # first code of the schools where those from overseas studied

DIRT = (
    *dirt.person_kinds(["holder.id.number"], "certificate.awarded_on", "certificate.subject", "", dirt.RESIDENT_ID)[:5],
    Kind("lower-case-x", "accepted", "holder.id.number", dirt.lower_case, "^[0-9]{17}X$"),
    Kind("full-width-digits", "accepted", "holder.id.number", dirt.full_width, dirt.RESIDENT_ID),
    Kind("not-available", "accepted", "certificate.subject", dirt.always("N/A", "-")),
    Kind("spaced-out", "accepted", "holder.id.number", dirt.spaced_out, dirt.RESIDENT_ID),
)


@dataclass(frozen=True)
class Graduates:
    """Holders of degrees, with the day, the degree (index in DEGREES), the number of the person and the school."""

    holder: Named
    on: Integers
    level: Integers
    person: Integers
    school: Integers

    def __add__(self, other: Graduates) -> Graduates:
        arrays = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ARRAYS)
        return Graduates(self.holder + other.holder, *arrays)

    def take(self, rows: Integers) -> Graduates:
        return Graduates(self.holder.take(rows), *(getattr(self, name)[rows] for name in _ARRAYS))


_ARRAYS = ("on", "level", "person", "school")


def degrees(people: People, led: Lives, them: Overseas, rng: np.random.Generator) -> Records:
    """All degrees of a block; who has a higher one has a certificate of each."""
    found = _foreign(them, rng)
    age = (UNTIL - people.born) / YEAR
    share = np.select([age < 23, age < 45, age < 60], [0, 0.42, 0.18], 0.06)
    studied = np.flatnonzero((rng.random(len(people)) < share) & (people.born + AGES[0] * YEAR >= EARLIEST))
    for level, further in enumerate(HIGHER):
        found = found + _local(people, led, studied[rng.random(len(studied)) < further], level, rng)
    return _records(people, found.take(rng.permutation(len(found.on))), rng)


def _local(people: People, led: Lives, who: Integers, level: int, rng: np.random.Generator) -> Graduates:
    on = _graduation(people.born[who] + AGES[level] * YEAR, rng)
    within = (on >= EARLIEST) & (on < UNTIL)
    who, on = who[within], on[within]
    person = people.start + who
    # Six digits of a person and a group of schools tell ten million people apart.
    school = (person + person // 10**6) % 10 + 10 * rng.integers(0, 3, len(who))
    return Graduates(lives.residents(people, led, who, on, rng), on, np.full(len(who), level), person, school)


def _foreign(them: Overseas, rng: np.random.Generator) -> Graduates:
    """Those who had a passport when they graduated: permits are not known here."""
    who = np.flatnonzero((them.kinds[:, 0] == PASSPORT) & (rng.random(len(them)) < 0.2))
    on = _graduation(them.born[who] + 24 * YEAR, rng)
    passport = (them.kinds[who, 1] == PASSPORT) | (them.changed[who] == NEVER) | (on < them.changed[who])
    who, on = who[passport & (on < UNTIL)], on[passport & (on < UNTIL)]
    school = FOREIGN + rng.integers(0, 3, len(who))
    return Graduates(overseas.named(them, who, on), on, rng.integers(0, 3, len(who)), them.number[who], school)


def _records(people: People, found: Graduates, rng: np.random.Generator) -> Records:
    holder, on, level, school = found.holder, found.on, found.level, found.school
    n = len(on)
    code = digits(10_000 + school * 13, 5)
    letter = digits(np.array(LEVELS)[level], 1)
    serial = digits(lives.scattered(found.person, 10**6), 6)
    number = strings(np.concatenate([code, letter, digits(calendar(on)[0], 4), serial], axis=1))
    state = (rng.random(n) < 0.003).astype(np.int64)
    table = pa.table(
        {
            "certificate.number": number,
            "certificate.degree": pick(DEGREES, level),
            "certificate.subject": pick(SUBJECTS, rng.integers(0, len(SUBJECTS), n)),
            "certificate.awarded_on": dates(on).cast(pa.string()),
            "holder.name": holder.name,
            "holder.id.type": reworded(holder.type, TYPES),
            "holder.id.number": holder.number,
            "school.code": strings(code),
            "school.name": _schools(school),
            "status": pick(STATES, state),
            "updated_at": moments(instants(people, n, rng)),
        }
    )
    return Records(
        material=MATERIAL, table=table, identifier=number, holders=[holder.holder], subjects=[holder.subject],
        begins=dates(on), ends=pa.nulls(n, pa.date32()), status=pick(HOLDING, state),
    )  # fmt: skip


def _graduation(earliest: NDArray[np.floating[Any]], rng: np.random.Generator) -> Integers:
    """The end of June of the year, or of one of the next two."""
    year = calendar(earliest.astype(np.int64))[0] + rng.integers(0, 3, len(earliest))
    ends: Integers = ((year - 1970) * 12 + 6).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) - 1
    return ends


def _schools(school: Integers) -> pa.StringArray:
    names = [place + kind for kind in KINDS for place in PLACES] + ["申江国际学院", "东方国际学院", "外滩国际学院"]
    return pick(names, school)
