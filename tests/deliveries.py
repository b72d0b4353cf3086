"""Deliveries for property tests: sources of invented licences, what they deliver, and what must then be held.

A source has rows (``key``), each saying something (``word``) about one licence (``licence``): rows of one source or of
several may speak of the same licence, and a row may move to another. A :class:`File` is as of a day, which one more row in
it, its mark, carries; the others carry a time of their own or none. :func:`held` says from all that was delivered, in no
order, what the store has to hold: written down a second time, row by row, as the design says it.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from connectors import source as sources
from hub import database, digests, embedded, pipeline, state
from hub.home import Home
from tests import licences
from tests.emptying import empty

KEY, NAME, CODE, SINCE, TIME, AS_OF = COLUMNS = (
    "登记编号",
    "企业名称",
    "统一社会信用代码",
    "注册日期",
    "更新时间",
    "统计日期",
)
FIRST_DAY = dt.date(2024, 1, 1)
CHINA = dt.timezone(dt.timedelta(hours=8))
MARKS = 9000  # the licence of a file's mark is numbered from here
GOOD, BAD, RUINED, GONE = "good", "bad", "ruined", "gone"  # accepted, quarantined, rejected, taken back
CLEARED = "（已撤回）"  # the name in a row by which a source takes the row back, where it says that it does
KEYS, LICENCES, WORDS, DAYS = 4, 3, 3, 4  # how much hypothesis chooses from

SOURCE = """name: {name}
title: {{zh: 性质测试, en: Property tests}}
owner: {{zh: 测试, en: Tests}}
region: "310000"
legal_basis: {{zh: 无（虚构数据）, en: none (invented data)}}
entity: business-licence
authority: {authority}
connector: files
connection: {name}
promise: P2D
extent: {extent}
row_key: [{key}]
as_of: {{column: {as_of}}}
duplicates: {duplicates}
volume: {{min: 0, max: {most}}}
options: {{pattern: "*.csv", settle_seconds: 0, columns: [{columns}]}}
{retracts}"""
MAPPING = f"""field,from,transform,note
holder.holder,{CODE},organisation,
holder.holder.name,{NAME},text,
certificate_number,{CODE},number,
name,=营业执照,text,
region,{CODE},region:organisation,
issued_on,{SINCE},date,
status,=in_force,status,
updated_at,{TIME},timestamp,
-,{KEY},,tells rows apart and says nothing
-,{AS_OF},,the day of the delivery
"""


BOUNDS = "batch: {max_bad_share: 1, max_withdrawn_share: 1}\n"  # few rows: shares say nothing


class Row(NamedTuple):
    """What a source says in one row. ``time``: the day it says it was updated, None where it does not say."""

    key: int
    licence: int
    word: int = 0
    time: int | None = None
    fault: str = GOOD


class File(NamedTuple):
    """Rows delivered together, as of a day; ``torn``: how many lines in it cannot be read."""

    as_of: int
    rows: tuple[Row, ...] = ()
    torn: int = 0


# Whatever a row may say: judged once a session, so that a batch need not wait for the gate.
KEYED, TIMES = range(1, KEYS + 1), (None, *range(DAYS + 1))
UNIVERSE = [
    *(Row(*said) for said in itertools.product(KEYED, range(1, LICENCES + 1), range(WORDS), TIMES)),
    *(Row(key, key, 0, time, fault) for key, time, fault in itertools.product(KEYED, TIMES, (BAD, RUINED, GONE))),
]


def sizes(quick: int, thorough: int) -> pytest.MarkDecorator:
    """How many examples: a few on every run, many when there is time."""
    values = [
        pytest.param(quick, id="quick"),
        pytest.param(thorough, id="thorough", marks=[pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(1800)]),
    ]
    return pytest.mark.parametrize("examples", values)


def profile(examples: int) -> settings:
    """The few examples are the same on every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples < 50,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def rows(times: st.SearchStrategy[int | None] = st.none() | st.integers(0, DAYS)) -> st.SearchStrategy[Row]:
    """Good rows of the universe."""
    return st.builds(
        Row,
        key=st.integers(1, KEYS),
        licence=st.integers(1, LICENCES),
        word=st.integers(0, WORDS - 1),
        time=times,
        fault=st.just(GOOD),
    )


def day(number: int) -> str:
    return (FIRST_DAY + dt.timedelta(days=number)).isoformat()


def moment(number: int) -> dt.datetime:
    return dt.datetime.combine(FIRST_DAY + dt.timedelta(days=number), dt.time(), CHINA)


def record(row: Row, as_of: int | None = None) -> dict[str, str]:
    """The row as it stands in a file. A bad one was registered before there were companies."""
    return {
        KEY: f"N{row.key:05d}",
        NAME: CLEARED if row.fault == GONE else f"示例{row.key}号第{row.word}版有限公司",
        CODE: "3.10E+17" if row.fault == RUINED else code(row.licence),
        SINCE: "1850-01-01" if row.fault == BAD else "2019-01-01",
        TIME: "" if row.time is None else day(row.time),
        AS_OF: "" if as_of is None else day(as_of),
    }


@functools.cache
def code(licence: int) -> str:
    return licences.credit_code(licence)


def mark(as_of: int) -> Row:
    """The row that carries the day of a file."""
    return Row(MARKS + as_of, MARKS + as_of, 0, as_of)


def text(file: File) -> str:
    rows = [record(row) for row in file.rows]
    lines = licences.text([*rows, record(mark(file.as_of), file.as_of)], COLUMNS).splitlines()
    for number in range(file.torn):  # not after the last line, where it could be one that was cut
        lines.insert(1, f"torn {number} of {file.as_of}")
    return "\n".join(lines) + "\n"


class Said(NamedTuple):
    """One licence as it is held: which row says so, and what; of how many rows, and whether they disagree.

    Of which source is left open: two may say the very same.
    """

    key: int
    word: int
    voices: int
    conflicting: bool


def held(delivered: Iterable[tuple[str, int, str, File]]) -> dict[int, Said]:
    """What must be held once all of ``delivered`` (source, its authority, its extent, file) has arrived, in any order.

    Of the accepted versions of a row the greatest by (time, digest) is what it says. Its time is its own, else the latest day
    it was delivered for; in a snapshot always that. A whole file of a snapshot takes back what it does not list and was
    said for an earlier day. A row that its source takes back says nothing but what it says of a later time. Of a licence's rows the greatest by (authority, own time or day, digest) is in force.
    """
    said: dict[tuple[str, int], dict[Row, set[int]]] = {}
    whole: dict[tuple[str, int], set[int]] = {}
    ranks: dict[str, int] = {}
    kinds: dict[str, str] = {}
    for source, authority, extent, file in delivered:
        ranks[source], kinds[source] = authority, extent
        listed = (*file.rows, mark(file.as_of))
        for row in listed:
            said.setdefault((source, row.key), {}).setdefault(row, set()).add(file.as_of)
        if extent == "snapshot" and not file.torn:
            whole.setdefault((source, file.as_of), set()).update(row.key for row in listed)
    spoken: dict[int, list[tuple[int, int, bytes, Row]]] = {}
    for (source, key), versions in said.items():
        lacked = max((day for (other, day), keys in whole.items() if other == source and key not in keys), default=0)
        gone = [max(days) if row.time is None else row.time for row, days in versions.items() if row.fault == GONE]
        standing = []
        for row, days in versions.items():
            latest = max(days)
            if row.fault == GOOD and latest >= lacked:
                time = latest if row.time is None else row.time
                if time <= max(gone, default=-1):
                    continue
                standing.append((latest if kinds[source] == "snapshot" else time, digest(row), time, row))
        if standing:
            _, version, time, row = max(standing)
            spoken.setdefault(row.licence, []).append((ranks[source], time, version, row))
    found = {}
    for licence, voices in spoken.items():
        *_, best = max(voices)
        # the name is part of what is said, and so is the row's own number in it
        contents = {(row.key, row.word) for *_, row in voices}
        found[licence] = Said(best.key, best.word, len(voices), len(contents) > 1)
    return found


@functools.cache
def digest(row: Row) -> bytes:
    """The digest of the raw row, which decides between versions of one time."""
    values = record(row, row.key - MARKS if row.key >= MARKS else None)
    names = sorted(values)
    found = digests.of_columns([pa.array([values[name]]) for name in names], names=names)[0].as_py()
    return found if isinstance(found, bytes) else bytes.fromhex(found)


@dataclass
class World:
    """A store, and sources that deliver into it through the whole pipeline."""

    engine: sa.Engine
    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def source(self, name: str, *, extent: str = "partial", authority: int = 100, duplicates: str = "quarantine",
               as_of: str = AS_OF, most: int = 1000, retracts: bool = False) -> str:  # fmt: skip
        """The folder of a source, written; ``most`` rows a batch, more halt it; ``retracts``: it takes rows back."""
        described = self.folder / "sources" / name
        described.mkdir(parents=True, exist_ok=True)
        filled = SOURCE.format(name=name, extent=extent, authority=authority, duplicates=duplicates, as_of=as_of,
                               most=most, key=KEY, columns=", ".join(COLUMNS),
                               retracts=f"retracts: {{column: {NAME}, values: [{CLEARED}]}}\n" if retracts else "")  # fmt: skip
        (described / "source.yml").write_text(filled, encoding="utf-8")
        (described / "mapping.csv").write_text(MAPPING, encoding="utf-8")
        (described / "checks.yml").write_text(BOUNDS, encoding="utf-8")
        return name

    def deliver(self, source: str, files: Sequence[File | str], **options: Any) -> dict[str, Any]:
        """One batch of ``files``; every row of it ends somewhere."""
        delivery = self.folder / f"delivery-{next(self.numbers)}"
        delivery.mkdir()
        for number, file in enumerate(files):
            content = file if isinstance(file, str) else text(file)
            (delivery / f"{number}.csv").write_text(content, encoding="utf-8")
        summary = pipeline.run(source, input=delivery, **options)
        shutil.rmtree(delivery)
        parts = ("unchanged", "accepted", "quarantined", "rejected")
        assert summary["fetched"] == sum(summary[name] for name in parts)
        return summary

    def digest(self) -> dict[str, str]:
        with state.snapshot(self.engine) as connection:
            return state.digest(connection)

    def held(self) -> dict[int, Said]:
        query = """SELECT o.document, h.observations, h.conflicting
            FROM holding AS h JOIN observation AS o ON o.source = h.source AND o.row_key = h.row_key"""
        with self.engine.connect() as connection:
            return {_licence(row.document): _said(row) for row in connection.execute(sa.text(query))}

    def drop(self, folder: Path, number: int, content: str) -> None:
        """A file into a folder that a source watches, each time of another moment."""
        path = folder / f"{number}.csv"
        path.write_text(content, encoding="utf-8")
        stamp = 1_700_000_000 + next(self.numbers)
        os.utime(path, (stamp, stamp))

    def feed(self, after: int = 0) -> list[sa.Row]:
        """Entries after a position, each with the version that it announces."""
        with self.engine.connect() as connection:
            return list(connection.execute(sa.text(_FEED), {"after": after}))

    def replayed(self) -> dict[str, object]:
        """What an empty store holds that applied the feed from its beginning."""
        copy: dict[str, object] = {}
        apply(copy, self.feed())
        return copy

    def documents(self) -> dict[str, object]:
        """Holding -> digest and document in force."""
        query = """SELECT encode(h.key, 'hex') AS holding, h.digest, o.document FROM holding AS h
            JOIN observation AS o ON o.source = h.source AND o.row_key = h.row_key"""
        with self.engine.connect() as connection:
            return {row.holding: (row.digest, row.document) for row in connection.execute(sa.text(query))}

    def count(self, query: str, **bind: Any) -> int:
        with self.engine.connect() as connection:
            return int(connection.scalar(sa.text(query), bind) or 0)

    def reset(self) -> None:
        """As after the migrations; what was landed stays, it is only bytes."""
        with self.engine.begin() as connection:
            _reset(connection)


# A batch changes a holding once, so its entry and the version that it made are of one batch.
_FEED = """
SELECT f.position, encode(f.holding, 'hex') AS holding, f.change, f.digest, f.recorded_at, v.document
FROM feed AS f LEFT JOIN holding_version AS v ON v.holding = f.holding AND v.batch = f.batch AND v.document IS NOT NULL
WHERE f.position > :after ORDER BY f.position
"""


def apply(copy: dict[str, object], entries: Iterable[sa.Row]) -> None:
    """Follow the feed; an entry that does not fit what came before it fails."""
    for entry in entries:
        if entry.change == "withdrawn":
            del copy[entry.holding]
            continue
        assert (entry.change == "changed") == (entry.holding in copy)
        assert entry.document is not None, "a version that nobody can read any more"
        copy[entry.holding] = (entry.digest, entry.document)


@functools.cache
def _numbers() -> dict[str, int]:
    return {code(number): number for number in (*range(100), *range(MARKS, MARKS + 100))}


def _licence(document: dict[str, Any]) -> int:
    return _numbers()[document["certificate_number"]]


def _said(row: sa.Row) -> Said:
    key, word = row.document["holders"][0]["name"].removeprefix("示例").removesuffix("版有限公司").split("号第")
    return Said(int(key), int(word), row.observations, row.conflicting)


@pytest.fixture(scope="module")
def migrated(server_home: Home, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a store that the tests of a module share: migrating takes longer than emptying."""
    name = f"test_{uuid.uuid4().hex}"
    admin = sa.create_engine(embedded.url(server_home, "postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        # nothing crashes here, and a batch commits ten times
        connection.execute(sa.text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    places = {"YICI_HOME": str(tmp_path_factory.mktemp("home")), "YICI_DATABASE_URL": embedded.url(server_home, name)}
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in places.items():
            patch.setenv(variable, value)
        patch.delenv("YICI_LANDING_URL", raising=False)
        database.upgrade()
    yield places
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def world(migrated: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An empty store, sources of its own, and a gate that has seen everything once."""
    for variable, value in {**migrated, "YICI_SOURCES": str(tmp_path / "sources"), "YICI_LANG": "en"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("YICI_LANDING_URL", raising=False)
    remember(monkeypatch)
    made = World(database.engine(), tmp_path)
    if not _JUDGED:
        made.source("xx-all")
        made.deliver("xx-all", [File(1, tuple(UNIVERSE))])
    made.reset()
    yield made
    made.engine.dispose()


def _reset(connection: sa.Connection) -> None:
    """Empties every table but those that the migrations fill."""
    tables = connection.scalars(
        sa.text(
            """SELECT format('%I', relname) FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
              AND relname NOT IN ('alembic_version', 'setting', 'feed_head') ORDER BY 1"""
        )
    )
    empty(connection, tables)
    connection.execute(sa.text("UPDATE feed_head SET position = 0"))


def remember(patch: pytest.MonkeyPatch) -> None:
    """What the gate said of a row it says again: it judges row by row, and takes a quarter of a second to start. Each row
    goes through Great Expectations the first time the session sees it. Folders of sources are read once a test.
    """
    from quality import gate, suite

    patch.setattr(sources, "load", functools.cache(sources.load))
    patch.setattr(suite, "load_document", functools.cache(suite.load_document))
    real = gate.check

    def check(table: pa.Table, suite: Any, **options: Any) -> pa.Table:
        rows = [repr(row) for row in table.drop_columns(["_ordinal"]).to_pylist()]
        known = _JUDGED.setdefault(repr(suite.checks), {})
        if not rows or not all(row in known for row in rows):
            judged = real(table, suite, **options)
            said = zip(*(judged[name].to_pylist() for name in ("_flags", "_verdict", "_reasons")), strict=True)
            known.update(zip(rows, said, strict=True))
            return judged
        flags, verdicts, reasons = (list(part) for part in zip(*(known[row] for row in rows), strict=True))
        codes = pa.list_(pa.string())
        table = table.set_column(table.column_names.index("_flags"), "_flags", pa.array(flags, codes))
        table = table.append_column("_verdict", pa.array(verdicts, pa.string()))
        return table.append_column("_reasons", pa.array(reasons, codes))

    patch.setattr(gate, "check", check)


_JUDGED: dict[str, dict[str, Any]] = {}
