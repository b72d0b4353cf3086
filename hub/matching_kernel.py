"""Records against known people: Arrow tables in, candidates out. Splink on DuckDB does the pairs; no store is touched.

Memory is bounded however many people are known: they lie in a DuckDB file, only those who share a block with a record
are compared, and no block with more than :data:`hub.matching_model.CAP` persons is searched. The same tables give the
same candidates.
"""

from __future__ import annotations

import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa

from hub import matching_model as model
from mappings import names

# What is said of somebody. ``sex`` 男 or 女; ``region`` six digits; ``number`` an identifier, of a record as written:
# where it has 18 digits it says a birth date and a sex, if nothing else does.
SAID = {
    "name": pa.string(),
    "born": pa.date32(),
    "sex": pa.string(),
    "region": pa.string(),
    "address": pa.string(),
    "number": pa.string(),
}
RECORDS = pa.schema({"record": pa.int64(), **SAID})
PEOPLE = pa.schema({"person": pa.binary(16), "statement": pa.binary(16), **SAID})
MEMORY = "512MB"
THREADS = 2
FREQUENT = ("folded", "pinyin")  # what a name's weight is taken from
COMPARED = ("name", "folded", "pinyin", "turned", "born", "sex", "region", "address", "number")


@dataclass(frozen=True)
class Found:
    """``candidates``: record, rank (from 1), person, statement (the one that agreed best), weight (log2 of the odds),
    probability, and for each comparison its level and what that adds to the weight.

    ``records``: record, candidates, more (that qualified beyond those kept), crowded (JSON list of rule and persons:
    blocks too large to be searched).
    """

    candidates: pa.Table
    records: pa.Table


class Finder:
    """Known people, to be searched for those whom records may be about. Use as a context manager.

    ``folder``: where the DuckDB file and what does not fit into memory lie.
    """

    def __init__(self, folder: Path, *, cap: int = model.CAP, kept: int = model.KEPT,
                 threshold: float = model.THRESHOLD) -> None:  # fmt: skip
        self.cap, self.kept, self.threshold = cap, kept, threshold
        folder.mkdir(parents=True, exist_ok=True)
        self.engine = duckdb.connect(
            folder / "people.duckdb",
            config={"memory_limit": MEMORY, "threads": THREADS, "temp_directory": str(folder / "spill")},
        )
        self.engine.execute(f"CREATE OR REPLACE TABLE people (person BLOB, statement BLOB, {_COLUMNS})")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.engine.close()

    def add(self, people: pa.Table) -> None:
        """Statements about known people, as PEOPLE. ``statement`` is the caller's reference for what was said."""
        self._insert("people", people.select(PEOPLE.names).cast(PEOPLE), ("person", "statement"))

    @property
    def people(self) -> int:
        """How many persons are known."""
        found = self.engine.execute("SELECT count(DISTINCT person) FROM people").fetchone()
        return int(found[0]) if found else 0

    def find(self, records: pa.Table) -> Found:
        """Candidates for ``records``, as RECORDS, each ``record`` once; a few thousand at a time."""
        engine = self.engine
        engine.execute(f"CREATE OR REPLACE TEMP TABLE records (record BIGINT, {_COLUMNS})")
        self._insert("records", records.select(RECORDS.names).cast(RECORDS), ("record",))
        people = max(self.people, 1)
        self._block()
        for column in FREQUENT:
            engine.execute(_FREQUENCY.format(column=column), [people])
        self._score(people)
        engine.execute(_RANKED, [self.threshold])
        candidates = engine.sql(_CANDIDATES, params=[self.kept]).to_arrow_table()
        return Found(candidates, engine.sql(_SUMMED, params=[self.kept]).to_arrow_table())

    def _insert(self, table: str, said: pa.Table, first: tuple[str, ...]) -> None:
        forms = names.forms(said["name"])
        forms = forms.append_column("plain_address", names.folded(said["address"]))
        for name in forms.column_names:
            said = said.append_column(name, forms[name])
        self.engine.register("said", said)
        self.engine.execute(
            f"""INSERT INTO {table} SELECT {", ".join(first)}, name, folded, pinyin, turned, {_BORN}, {_SEX},
              CASE WHEN region NOT LIKE '__0000' THEN region END, plain_address, number
            FROM said"""
        )
        self.engine.unregister("said")

    def _block(self) -> None:
        """``crowded``, and ``left`` and ``right``: records and the people who share a block with one, keys beside them."""
        engine = self.engine
        engine.execute("CREATE OR REPLACE TEMP TABLE crowded (rule VARCHAR, key VARCHAR, persons BIGINT)")
        for rule, key in model.BLOCKS.items():
            engine.execute(
                f"""INSERT INTO crowded SELECT ?, key, count(DISTINCT person) AS persons
                FROM (SELECT person, {key} AS key FROM people)
                WHERE key IN (SELECT {key} FROM records) GROUP BY key HAVING persons > ?""",
                [rule, self.cap],
            )
        asked = ", ".join(
            f"""CASE WHEN ({key}) NOT IN (SELECT key FROM crowded WHERE rule = '{rule}') THEN {key} END AS "{rule}\""""
            for rule, key in model.BLOCKS.items()
        )
        engine.execute(
            f"""CREATE OR REPLACE TEMP TABLE asked AS
            SELECT record AS place, 'asked' AS source_dataset, {_COMPARED}, {_DERIVED}, {asked} FROM records"""
        )
        keys = ", ".join(f'{key} AS "{rule}"' for rule, key in model.BLOCKS.items())
        shared = " OR ".join(f'({key}) IN (SELECT "{rule}" FROM asked)' for rule, key in model.BLOCKS.items())
        engine.execute(
            f"""CREATE OR REPLACE TEMP TABLE known AS
            SELECT *, {_DERIVED}, row_number() OVER () AS place, 'known' AS source_dataset
            FROM (SELECT person, min(statement) AS statement, {_COMPARED}, {keys} FROM people WHERE {shared} GROUP BY ALL)"""
        )

    def _score(self, people: int) -> None:
        """``scored``: every pair that shares a block, with Splink's weight and the level of each comparison."""
        from splink import DuckDBAPI, Linker

        database = DuckDBAPI(self.engine)
        # Splink wants the same columns on both sides.
        asked = database.register("asked", dataset_display_name="asked")
        self.engine.execute("CREATE OR REPLACE TEMP VIEW knew AS SELECT * EXCLUDE (person, statement) FROM known")
        knew = database.register("knew", dataset_display_name="knew")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            linker = Linker([asked, knew], model.settings(people), log_level=None, validate_settings=False)
        for column in FREQUENT:
            frequencies = database.register(f"tf_{column}")
            linker.table_management.register_term_frequency_lookup(frequencies, column)
        scored = linker.inference.predict(warning_mode="never")
        self.engine.execute(
            f"CREATE OR REPLACE TEMP TABLE scored AS SELECT {_SCORED} FROM {scored.physical_name} AS s"
            " JOIN known AS k ON k.place = s.place_r"
        )
        linker.table_management.invalidate_cache()


def _levels(one: model.Comparison) -> str:
    """Level codes of a comparison by Splink's numbers: -1 missing, 0 the last, rising to the closest."""
    whens = " ".join(f"WHEN {number} THEN '{level.code}'" for number, level in enumerate(reversed(one.levels)))
    return f"CASE s.gamma_{one.name} WHEN -1 THEN '{model.MISSING}' {whens} END"


def _weight(one: model.Comparison) -> str:
    adjusted = f" + coalesce(s.mw_tf_adj_{one.name}, 0)" if any(level.frequency for level in one.levels) else ""
    return f"round(s.mw_{one.name}{adjusted}, 2)"


_LONG = r"regexp_full_match(number, '[1-9]\d{16}[\dX]')"
_BORN = f"""strftime(coalesce(born, CASE WHEN {_LONG} THEN try_strptime(number[7:14], '%Y%m%d')::DATE END), '%Y%m%d')"""
_SEX = f"""CASE WHEN sex IN ('男', '女') THEN sex
  WHEN {_LONG} THEN CASE WHEN number[17]::INTEGER % 2 = 1 THEN '男' ELSE '女' END END"""
_COLUMNS = ", ".join(f"{name} VARCHAR" for name in COMPARED)
_COMPARED = ", ".join(COMPARED)
_DERIVED = ", ".join(f"{expression} AS {name}" for name, expression in model.DERIVED.items())
_AGREED = [name for one in model.COMPARISONS for name in (one.name, f"{one.name}_weight")]
# Rounded: what is left of a sum done in another order must not order candidates.
_SCORED = "s.place_l AS record, k.person, k.statement, round(s.match_weight, 3) AS weight, " + ", ".join(
    f"{_levels(one)} AS {one.name}, {_weight(one)} AS {one.name}_weight" for one in model.COMPARISONS
)
_FREQUENCY = """
CREATE OR REPLACE TEMP TABLE tf_{column} AS SELECT {column}, count(DISTINCT person) / ?::DOUBLE AS tf_{column} FROM people
WHERE {column} IN (SELECT {column} FROM known) GROUP BY {column}
"""
_RANKED = f"""
CREATE OR REPLACE TEMP TABLE ranked AS
SELECT *, row_number() OVER (PARTITION BY record ORDER BY weight DESC, person) AS rank FROM (
  SELECT record, person, weight, 1 / (1 + pow(2, -weight)) AS probability, statement, {", ".join(_AGREED)} FROM scored
  WHERE weight >= ? QUALIFY row_number() OVER (PARTITION BY record, person ORDER BY weight DESC, statement) = 1)
"""
_CANDIDATES = f"""
SELECT record, rank::INTEGER AS rank, person, statement, weight, round(probability, 4) AS probability, {", ".join(_AGREED)}
FROM ranked WHERE rank <= ? ORDER BY record, rank
"""
_SUMMED = f"""
WITH best AS (SELECT record, max(rank) AS candidates FROM ranked GROUP BY record),
full_blocks AS (
  {" UNION ALL ".join(
      f"SELECT record, c.rule, c.persons FROM records JOIN crowded AS c ON c.rule = '{rule}' AND c.key = ({key})"
      for rule, key in model.BLOCKS.items())}
),
listed AS (SELECT record, list({{'rule': rule, 'persons': persons}} ORDER BY rule) AS crowded FROM full_blocks GROUP BY record)
SELECT record, coalesce(candidates, 0)::INTEGER AS candidates, greatest(coalesce(candidates, 0) - ?, 0)::INTEGER AS more,
  coalesce(to_json(crowded), '[]')::VARCHAR AS crowded
FROM records LEFT JOIN best USING (record) LEFT JOIN listed USING (record) ORDER BY record
"""  # fmt: skip
