"""``yici burden``: what applicants are really asked for, of all that the catalogue demands."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def burden(
        by: Annotated[str, typer.Option(help="item, department, region, month, material or client.")] = "item",
        from_: Annotated[
            dt.datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, in China.")
        ] = None,
        to: Annotated[
            dt.datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day, in China.")
        ] = None,
        still: Annotated[bool, typer.Option("--still", help="Requirements that ask for what is held, too.")] = False,
        lang: Annotated[str | None, typer.Option(help="zh or en.")] = None,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
        out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the rows: .csv or .parquet.")] = None,
    ) -> None:
        """Of the materials that the catalogue demands, how many are really asked for. 减材料台账。

        What counts, and how: docs/burden.md.

        Example: [bold]yici burden --by month --from 2026-01-01[/]

        Example: [bold]yici burden --by department --out burden.parquet[/]
        """
        from hub import burden as ledger
        from hub import database
        from hub.cli import output

        if by not in ledger.BY:
            raise typer.BadParameter(", ".join(ledger.BY), param_hint="--by")
        if out is not None and out.suffix not in (".csv", ".parquet"):
            raise typer.BadParameter("a file that ends in .csv or .parquet", param_hint="--out")
        if from_ and to and to < from_:
            raise typer.BadParameter("--to is before --from")
        scope = ledger.days(from_.date() if from_ else None, to.date() if to else None)
        with database.engine().connect() as connection:
            rows = ledger.ledger(connection, by, scope, _language(lang))
            found = ledger.still(connection, scope) if still else None
        if out is not None:
            _write(rows, (by, *ledger.COUNTS, "ratio"), out)
        if json:
            more = {} if found is None else {"still": found}
            output.json({"by": by, "rows": rows, "total": ledger.total(rows), **more})
        elif out is None:
            _print(by, rows, found)


def _write(rows: list[dict[str, Any]], columns: tuple[str, ...], out: Path) -> None:
    """The rows as a file, whole or not at all."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    from hub.cli import output

    kinds = [pa.string(), *[pa.int64()] * (len(columns) - 2), pa.float64()]
    table = pa.Table.from_pylist(rows, pa.schema(list(zip(columns, kinds, strict=True))))
    with output.whole(out) as half:
        if out.suffix == ".csv":
            pa_csv.write_csv(table, half)
        else:
            pq.write_table(table, half)


def _print(by: str, rows: list[dict[str, Any]], still: list[dict[str, Any]] | None) -> None:
    from hub import burden as ledger
    from hub.cli import output

    shown = (
        "answers",
        "demanded",
        "held",
        "alternative_held",
        "held_elsewhere",
        "deferred",
        "undetermined",
        "asked",
        "ratio",
    )
    lines = [*rows, {by: "Σ", **ledger.total(rows)}] if rows else []
    output.table((by, *shown), [[line[by], *(line[name] for name in shown)] for line in lines])
    if still is not None:
        columns = ("item", "requirement", "material", *ledger.STILL)
        title = "Still ask for what is held 仍要求提交已掌握的材料"
        output.table(columns, [[line[name] for name in columns] for line in still], title=title)


def _language(lang: str | None) -> Any:
    from connectors import messages

    if lang not in (None, "zh", "en"):
        raise typer.BadParameter("zh or en", param_hint="--lang")
    return lang or messages.language()
