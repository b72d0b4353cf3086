"""Social insurance of two cities' worth of people: who pays in Shanghai, and who paid in Zhejiang before."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from demo import dirt, lives, overseas, places
from demo.columns import Integers, dates, day, digits, join, pick, replaced, spaced, strings
from demo.dirt import Kind
from demo.employers import Employers
from demo.forms import JsonLines
from demo.lives import YEAR, Lives, Named
from demo.overseas import Overseas
from demo.population import UNTIL, People, instants
from demo.records import Claims, Records, few

MATERIAL = "social-insurance-record"
FORM = JsonLines(numbers=("ljjfys",), packed=True)
FILES = {"31": "hrss/sh/insurance-{}.jsonl.gz", "33": "hrss/zj/insurance-{}.jsonl.gz"}
KINDS = ("110", "310")  # pension 职工养老, medical 职工医疗
STATES = ("1", "2", "4")
HOLDING = ("in_force", "suspended", "cancelled")
INSURED = 0.72  # of those who have begun to work
FREELANCE = "灵活就业人员"  # in the place of an employer
SHARED = 0.0004  # records under somebody else's resident ID

DIRT = (
    *dirt.person_kinds(["zjhm"], "cbrq", "dwmc", "cbd", dirt.RESIDENT_ID),
    Kind("html-error-page", "rejected", None, dirt.error_page),
    Kind("dash", "accepted", "dwxydm", dirt.always("-", "N/A")),
    Kind("cut-short", "rejected", None, dirt.cut_short),
    Kind("spaced-out", "accepted", "zjhm", dirt.spaced_out, dirt.RESIDENT_ID),
)


def shanghai(
    people: People, led: Lives, them: Overseas, firms: Employers, rng: np.random.Generator
) -> tuple[Records, Claims]:
    """Everybody who works or has worked here, by the day of the first employment here; and the borrowed IDs."""
    who = np.flatnonzero((led.arrival < UNTIL - 30) & (rng.random(len(people)) < INSURED))
    since = led.arrival[who]
    foreign = np.flatnonzero(rng.random(len(them)) < INSURED)
    begun = day("2005-01-01") + rng.integers(0, 7_000, len(foreign))
    insured = lives.residents(people, led, who, since, rng) + overseas.named(them, foreign, begun)
    n = len(insured)
    born = np.concatenate([people.born[who], them.born[foreign]])
    since = np.concatenate([since, begun])
    homes = np.concatenate([people.home[who], places.homes(rng, len(foreign))])
    retired = (UNTIL - born > 60 * YEAR) & (rng.random(n) < 0.9)
    state = np.where(retired, 2, rng.choice(3, size=n, p=(0.9, 0.06, 0.04)))
    until = np.where(state == 0, UNTIL, since + (rng.random(n) * (UNTIL - since)).astype(np.int64))
    insured, claims = _borrowed(insured, born, rng)
    employer = firms.of("31", "32")
    records = _records("S", people, insured, since, until, state, homes, employer, firms, rng)
    return records, claims


def zhejiang(people: People, led: Lives, firms: Employers, rng: np.random.Generator) -> Records:
    """Those who worked in Zhejiang before they came here, and some who still do."""
    away = np.flatnonzero((led.arrival > led.career) & (led.career < UNTIL - 400))
    since = led.career[away]
    stays = (led.origin[away] == lives.THERE) & (rng.random(len(away)) < 0.4)
    until = np.where(stays, UNTIL, np.minimum(led.arrival[away], UNTIL))
    insured = lives.residents(people, led, away, since, rng)
    state = np.where(stays, 0, np.where(led.arrival[away] > UNTIL, 1, 2))
    codes, _ = places.in_year(2024, "33")
    elsewhere = rng.choice(codes, size=len(away))
    region = np.where(led.origin[away] == lives.HERE, elsewhere, led.village[away])
    return _records("Z", people, insured, since, until, state, region, firms.of("33"), firms, rng)


def _records(
    letter: str, people: People, insured: Named, since: Integers, until: Integers, state: Integers, region: Integers,
    employers: Integers, firms: Employers, rng: np.random.Generator,
) -> Records:  # fmt: skip
    n = len(insured)
    number = _cards(letter, insured)
    if len(employers):
        # The last employer, under the number it had when the employment began; nobody works for what is not there yet.
        chosen = rng.choice(employers, size=n)
        begun = np.maximum(since, firms.registered[chosen])
        free = (rng.random(n) < 0.08) | (begun > until)
        begun = begun + (rng.random(n) * np.maximum(until - begun, 0)).astype(np.int64)
        firm = firms.named(chosen, begun, rng)
        names = pc.if_else(pa.array(free), FREELANCE, firm.name)
        codes = pc.if_else(pa.array(free), "", firm.number)
    else:
        names, codes = pa.array([FREELANCE] * n, pa.string()), pa.array([""] * n, pa.string())
    months = ((until - since) / 30.44 * rng.uniform(0.75, 1, n)).astype(np.int64)
    table = pa.table(
        {
            "sbkh": number,
            "xm": insured.name,
            "zjlx": insured.type,
            "zjhm": insured.number,
            "dwmc": names,
            "dwxydm": codes,
            "xzlx": pick(KINDS, rng.choice(2, size=n, p=(0.8, 0.2))),
            "cbrq": pc.replace_substring(dates(since).cast(pa.string()), "-", ""),
            "ljjfys": pa.array(np.maximum(months, 0)).cast(pa.string()),
            "cbzt": pick(STATES, state),
            "cbd": strings(digits(region, 6)),
            "gxsj": spaced(instants(people, n, rng)),
        }
    )
    return Records(
        material=MATERIAL, table=table, identifier=number, holders=[insured.holder], subjects=[insured.subject],
        begins=dates(since), ends=pa.nulls(n, pa.date32()), status=pick(HOLDING, state),
    )  # fmt: skip


def _cards(letter: str, insured: Named) -> pa.StringArray:
    """Numbers of social security cards, without a trace of the person."""
    kind = pc.starts_with(insured.subject, "person:")
    number = pc.replace_substring_regex(insured.subject, "^[a-z]+:", "").cast(pa.int64()).to_numpy()
    series = pc.if_else(kind, letter, letter + "W")
    return join(series, strings(digits(lives.scattered(number), 9)))


def _borrowed(insured: Named, born: Integers, rng: np.random.Generator) -> tuple[Named, Claims]:
    """Some work under the resident ID of somebody else: another birth date, mostly another name."""
    n = len(insured)
    numbers = pc.match_substring_regex(insured.number, dirt.RESIDENT_ID).to_numpy(zero_copy_only=False)
    rows = few(n, rng, SHARED, numbers) if n >= 200 else np.array([], dtype=np.int64)
    lenders = np.roll(np.flatnonzero(numbers), 1)[np.searchsorted(np.flatnonzero(numbers), rows)]
    # Two strangers: not born on one day.
    rows, lenders = rows[born[rows] != born[lenders]], lenders[born[rows] != born[lenders]]
    lent = insured.take(lenders)
    claims = Claims(
        kind="shared-identifier", rows=rows, identifier=lent.holder, subject=insured.subject.take(pa.array(rows)),
        other=lent.subject, says=join("name=", insured.name.take(pa.array(rows))),
    )  # fmt: skip
    changed = Named(
        name=insured.name,
        type=insured.type,
        number=replaced(insured.number, rows, lent.number),
        holder=replaced(insured.holder, rows, lent.holder),
        subject=insured.subject,
    )
    return changed, claims
