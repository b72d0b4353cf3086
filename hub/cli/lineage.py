"""``yici lineage``: where a holding comes from, and what a file became."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="From a holding to file and row, and back. 数据血缘。", no_args_is_help=True)
    app.add_typer(commands, name="lineage")

    @commands.command()
    def holding(
        key: Annotated[str, typer.Argument(metavar="HOLDING", help="As `holdings` of an answer names it.")],
        json: Json = False,
    ) -> None:
        """The files and rows behind a holding, now and in earlier versions. 某条持有记录来自哪些文件的哪一行。

        Example: [bold]yici lineage holding 3f0c9d1e2a7b4c5d6e7f8091a2b3c4d5[/]
        """
        from hub import lineage
        from hub.cli import output

        found = lineage.of_holding(key)
        if json:
            output.json(found)
            return
        state = found["status"] if found["held"] else "withdrawn"
        output.console().print(f"{found['holding']}  {found.get('material', '')}  {state}", highlight=False)
        names = ("source", "file", "row", "batch", "updated_at", "in_force")
        output.table(names, [[row[name] for name in names] for row in found["observations"]], title="observations 观测")
        names = ("recorded_from", "recorded_to", "source", "file", "row", "withdrawn")
        output.table(names, [[row[name] for name in names] for row in found["versions"]], title="versions 版本")

    @commands.command()
    def file(
        reference: Annotated[
            str, typer.Argument(metavar="FILE", help="Name at the source, or 8 digits and more of its SHA-256.")
        ],
        limit: Annotated[int, typer.Option(min=0, help="List at most so many rows.")] = 20,
        json: Json = False,
    ) -> None:
        """What became of a landed file: rows by verdict, holdings, row by row. 某个文件变成了哪些持有记录。

        Example: [bold]yici lineage file 2019-上海.csv --limit 5[/]
        """
        from hub import lineage
        from hub.cli import output

        found = lineage.of_file(reference, limit)
        if json:
            output.json(found)
            return
        for entry in found:
            output.console().print(f"{entry['source']}  {entry['name']}  {entry['sha256'][:16]}…  {entry['size']} B")
            kinds = [("rows", entry["rows"]), ("holdings", entry["holdings"])]
            output.table(
                ("", "kind", "count"),
                [(title, kind, count) for title, counts in kinds for kind, count in sorted(counts.items())],
            )
            names = ("row", "material", "holding", "in_force")
            output.table(names, [[row[name] for name in names] for row in entry["listed"]])
