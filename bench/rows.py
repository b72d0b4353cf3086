"""The input of the ingest measurement: one CSV of a residents' register, thirteen columns, one row in a hundred dirty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from demo import dirt, population
from demo.columns import digits, join, strings

DIRT = 0.01
SEED = 20260101
INCREMENT = 10_000


def write(path: Path, rows: int, seed: int = SEED, increments: Sequence[Path] = ()) -> None:
    """``rows`` rows at ``path``, and at each of ``increments`` 10,000 of people who are in no other file; block by block in
    bounded memory."""
    wanted = [(path, rows), *((increment, INCREMENT) for increment in increments)]
    tables = _tables(sum(count for _, count in wanted), seed)
    table = next(tables)
    for target, count in wanted:
        with pacsv.CSVWriter(target, table.schema) as writer:
            while count:
                table = table if table.num_rows else next(tables)
                writer.write_table(part := table.slice(0, count))
                table, count = table.slice(part.num_rows), count - part.num_rows


def _tables(rows: int, seed: int) -> Iterator[pa.Table]:
    spoiler = dirt.Spoiler(dirt.RESIDENTS, rows, DIRT)
    for people, rng in population.blocks(rows, seed):
        table, _ = population.residents(people, population.cards(people, rng), rng)
        table = spoiler.table(table, spoiler.plan(table, rng), rng)
        number = strings(digits(rng.integers(0, 10**8, len(people)), 8))
        table = table.append_column("lxdh", join("139", number))
        yield table.append_column("bz", pa.array([""] * len(people)))


def shuffle(source: Path, target: Path, seed: int) -> None:
    """The same rows in another order under another name."""
    table = read(source)
    order = np.random.default_rng(seed).permutation(table.num_rows)
    pacsv.write_csv(table.take(pa.array(order)), target)


def change(source: Path, target: Path, every: int, seed: int) -> None:
    """Shuffled too, and one row in ``every`` with another office and a later update."""
    table = read(source)
    order = np.random.default_rng(seed).permutation(table.num_rows)
    table = table.take(pa.array(order)).combine_chunks()
    chosen = pa.array(np.arange(table.num_rows) % every == 0)
    for name, value in (("qfjg", "上海市公安局"), ("gxsj", "2025-07-15 12:00:00")):
        changed = pc.if_else(chosen, value, table[name])
        table = table.set_column(table.column_names.index(name), name, changed)
    pacsv.write_csv(table, target)


def read(path: Path) -> pa.Table:
    """All columns as text, as every contender gets them."""
    names = pacsv.open_csv(path).schema.names
    return pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())))
