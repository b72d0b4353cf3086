"""``yici batch``: what runs did, and letting a halted one through."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

State = Literal["open", "gated", "halted", "approved", "merged", "failed", "superseded"]
Batch = Annotated[str, typer.Argument(metavar="BATCH", help="A batch id, see `yici batch list`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Batches: list, show, approve. 批次。", no_args_is_help=True)
    app.add_typer(commands, name="batch")

    @commands.command("list")
    def list_(
        source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
        state: Annotated[State | None, typer.Option(help="Only batches in this state.")] = None,
        limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
        json: Json = False,
    ) -> None:
        """Batches, newest first. 列出批次。

        Example: [bold]yici batch list --state halted[/]
        """
        from hub import batches, database
        from hub.cli import output

        with database.engine().connect() as connection:
            summaries = [batches.summary(row) for row in batches.listed(connection, source, state, limit)]
            if len(summaries) == limit:
                output.cut(len(summaries), batches.counted(connection, source, state))
        if json:
            output.json(summaries)
            return
        names = ("batch", "state", *batches.COUNTS, "withdrawn")
        output.table(names, [[item[name] for name in names] for item in summaries])

    @commands.command()
    def show(batch: Batch, json: Json = False) -> None:
        """One batch: counts, reasons, findings of the gates, files. 查看批次。"""
        from hub import batches, database, decisions
        from hub.cli import output
        from hub.cli import pipeline as run_command

        with database.engine().connect() as connection:
            row = batches.get(connection, batch)
            decided = decisions.about(connection, batch)
        summary, files = batches.summary(row), batches.files(row)
        if json:
            output.json({**summary, "decisions": decided, "files": files})
            return
        run_command.show(summary)
        if summary["findings"]:
            output.table(
                ("finding", "severity", "values", "meaning"),
                [
                    (item["code"], item["severity"], item["values"], _meaning(summary, item))
                    for item in summary["findings"]
                ],
            )
        if decided:
            names = ("kind", "actor", "note", "decided_at", "rows")
            output.table(names, [[entry[name] for name in names] for entry in decided], title="decisions 人工决定")
        output.table(("file", "SHA-256", "bytes"), [(file["name"], file["sha256"], file["size"]) for file in files])

    @commands.command()
    def approve(
        batch: Batch,
        note: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
        json: Json = False,
    ) -> None:
        """Let a halted batch through and finish it. The decision is recorded. 批准被拦截的批次。

        Example: [bold]yici batch approve js-amr-enterprises-20260101T030000-1a2b3c --note "yearly delivery"[/]
        """
        from hub import review
        from hub.cli import output
        from hub.cli import pipeline as run_command

        summary = review.approve(batch, actor=output.actor(), note=note)
        if json:
            output.json(summary)
        else:
            run_command.show(summary)


def _meaning(summary: dict[str, Any], finding: dict[str, Any]) -> str:
    """The finding in a sentence; a record older than this release may have one that is not known any more."""
    from connectors import messages

    if finding["code"] not in messages.sentences():
        return ""
    return messages.text(
        finding["code"], **{"batch": summary["batch"], "source": summary["source"], **finding["values"]}
    )
