"""How many identifiers a second, beside python-stdnum, in one run on one core.

    .venv/bin/python bench/identifiers.py [--rows N] [--json]

Prints rows a second of both and their ratio. Same values for both; stdnum judges a part of them, because it is slow.
Only ratios are worth quoting: a rate is one of this machine at this moment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from stdnum.cn import ric, uscc

from mappings import checksums, cleaning, identifiers, regions

STDNUM_ROWS = 20_000
ROUNDS = 3


def persons(count: int, chance: np.random.Generator) -> pa.StringArray:
    """Valid resident IDs of listed regions."""
    codes = np.frombuffer("".join(regions.entries()).encode(), dtype=np.uint8).reshape(-1, 6)
    day = chance.integers(0, 25_000, count).astype("datetime64[D]") - np.timedelta64(7_000, "D")
    written = np.char.replace(day.astype("U10"), "-", "").astype("S8").view(np.uint8).reshape(count, 8)
    serial = chance.integers(48, 58, (count, 3)).astype(np.uint8)
    body = np.hstack((codes[chance.integers(0, len(codes), count)], written, serial))
    return strings(body, checksums.mod_11_2(body))


def organisations(count: int, chance: np.random.Generator) -> pa.StringArray:
    """Valid credit codes."""
    codes = np.frombuffer("".join(regions.entries()).encode(), dtype=np.uint8).reshape(-1, 6)
    alphabet = np.frombuffer(checksums.GB_32100.encode(), dtype=np.uint8)
    head = np.broadcast_to(np.frombuffer(b"91", dtype=np.uint8), (count, 2))
    body = np.hstack((head, codes[chance.integers(0, len(codes), count)], alphabet[chance.integers(0, 31, (count, 9))]))
    return strings(body, checksums.mod_31(body))


def strings(body: checksums.Bytes, check: checksums.Bytes) -> pa.StringArray:
    whole = np.hstack((body, check[:, None]))
    return cleaning.from_buffers(np.arange(len(whole) + 1, dtype=np.int64) * whole.shape[1], whole.ravel())


def rate(count: int, work: Callable[[], object]) -> float:
    """Rows a second, the median of a few rounds of processor time."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return count / statistics.median(seconds)


def stdnum(values: list[str], oracles: tuple[Callable[[str], bool], ...]) -> int:
    """How many values one of the oracles calls valid."""
    count = 0
    for value in values:
        with contextlib.suppress(KeyError):  # stdnum 2.2 stumbles over a county that its list lacks
            count += any(oracle(value) for oracle in oracles)
    return count


def measure(rows: int) -> list[dict[str, object]]:
    chance = np.random.default_rng(20_260_101)
    people, firms = persons(rows, chance), organisations(rows, chance)
    mixed = pa.concat_arrays([people, firms]).take(pa.array(chance.permutation(2 * rows)[:rows]))
    identifiers.check(people.slice(0, 1000))  # tables are read once a process
    found = []
    for name, values, scheme, oracles in (
        ("resident IDs", people, "cn.ric", (ric.is_valid,)),
        ("credit codes", firms, "cn.uscc", (uscc.is_valid,)),
        ("both, without a scheme", mixed, None, (ric.is_valid, uscc.is_valid)),
    ):
        ours = rate(rows, lambda values=values, scheme=scheme: identifiers.check(values, scheme))  # type: ignore[misc]
        part = values.slice(0, STDNUM_ROWS).to_pylist()
        theirs = rate(len(part), lambda part=part, oracles=oracles: stdnum(part, oracles))  # type: ignore[misc]
        found.append({"values": name, "rows": rows, "yici_per_second": round(ours), "stdnum_per_second": round(theirs),
                      "ratio": round(ours / theirs, 1)})  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # One core for both: Arrow and BLAS would otherwise take more.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found = measure(options.rows)
    if options.json:
        print(json.dumps(found))
        return
    for row in found:
        print(f"{row['values']:<24} yici {row['yici_per_second']:>12,}/s   stdnum {row['stdnum_per_second']:>8,}/s"
              f"   × {row['ratio']}")  # fmt: skip


if __name__ == "__main__":
    main()
