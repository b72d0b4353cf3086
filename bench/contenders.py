"""What loads the file: Yici's whole pipeline and what a user would pick instead, each in a warm process of its own.

``python bench/contenders.py NAME`` imports what it needs and prints ``{}``; then it reads a JSON object a line, loads the
file ``path`` into the database ``url``, and prints ``{"seconds", "rows"}`` and what else it knows. Warming up goes into
another database by the same road. Each is set up as its own documentation advises for speed:

* ``copy``: psycopg 3 ``COPY … FROM STDIN`` of the bytes into a table of text columns without index.
* ``dlt``: an Arrow table, ``merge`` by primary key, CSV as the loader's file format, which PostgreSQL takes by COPY.
* ``to_sql``: ``pandas.read_csv`` and ``DataFrame.to_sql`` in chunks, the default insertion method.
* ``yici``: land, diff, map, identifier checks, expectations, gate, merge, feed.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

Load = Callable[[Path], dict[str, Any]]  # -> {"rows": …}


def copy(url: str) -> Load:
    import psycopg

    def load(path: Path) -> dict[str, Any]:
        with psycopg.connect(_plain(url)) as connection:
            with path.open("rb") as file:
                names = file.readline().decode().strip().replace('"', "").split(",")
                columns = ", ".join(f'"{name}" text' for name in names)
                connection.execute("DROP TABLE IF EXISTS residents")
                connection.execute(f"CREATE TABLE residents ({columns})")
                with connection.cursor().copy("COPY residents FROM STDIN (FORMAT csv)") as stream:
                    while block := file.read(1 << 20):
                        stream.write(block)
            found = connection.execute("SELECT count(*) FROM residents").fetchone()
        return {"rows": found[0] if found else 0}

    return load


def dlt(url: str) -> Load:
    folder = tempfile.mkdtemp(prefix="yici-bench-dlt-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(
        DLT_DATA_DIR=folder, RUNTIME__DLTHUB_TELEMETRY="false", DLT_PROJECT_DIR=folder, RUNTIME__LOG_LEVEL="ERROR"
    )
    import dlt as library
    import pyarrow.parquet  # noqa: F401 - what the library loads when it first writes
    from dlt.destinations import postgres
    from sqlalchemy.engine import make_url

    from bench import rows

    parts = make_url(url)
    socket = quote(str(parts.query["host"]), safe="")  # libpq takes a folder as host
    address = f"postgresql://{parts.username}:{quote(parts.password or '', safe='')}@{socket}:5432/{parts.database}"
    pipeline = library.pipeline("bench", destination=postgres(address), dataset_name="bench", pipelines_dir=folder)

    def load(path: Path) -> dict[str, Any]:
        table = rows.read(path)
        resource_ = library.resource(table, name="residents", primary_key="gmsfhm", write_disposition="merge")
        pipeline.run(resource_, loader_file_format="csv")
        return {"rows": table.num_rows}

    return load


def to_sql(url: str) -> Load:
    import pandas
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)

    def load(path: Path) -> dict[str, Any]:
        count = 0
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS residents"))
            for chunk in pandas.read_csv(path, dtype=str, keep_default_na=False, chunksize=100_000):
                chunk.to_sql("residents", connection, if_exists="append", index=False, chunksize=10_000)
                count += len(chunk)
        return {"rows": count}

    return load


def yici(url: str) -> Load:
    os.environ["YICI_SOURCES"] = str(Path(__file__).parent / "sources")
    import importlib

    from hub import database, orchestrator, pipeline

    for name in orchestrator.WARM:
        importlib.import_module(name)
    os.environ["YICI_DATABASE_URL"] = url.replace("+psycopg", "")
    database.upgrade()

    def load(path: Path) -> dict[str, Any]:
        os.environ["YICI_DATABASE_URL"] = url.replace("+psycopg", "")
        done = pipeline.run("bench-residents", input=path)
        return {"rows": done["fetched"], "stages": done["seconds"]}

    return load


CONTENDERS: dict[str, Callable[[str], Load]] = {"copy": copy, "dlt": dlt, "to_sql": to_sql, "yici": yici}


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def main() -> None:
    # Standard output carries the results alone; whatever a library prints goes to standard error.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contender, loads = CONTENDERS[sys.argv[1]], dict[str, Load]()
    print("{}", file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        load = loads.get(asked["url"]) or loads.setdefault(asked["url"], contender(asked["url"]))
        start = time.perf_counter()
        done = load(Path(asked["path"]))
        print(json.dumps({"seconds": time.perf_counter() - start, **done}), file=out, flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
