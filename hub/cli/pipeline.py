"""``yici run``: one pipeline run, the same code the DAG runs."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def run(
        source: Annotated[str, typer.Argument(metavar="SRC", help="A source, see `yici sources`.")],
        input: Annotated[
            Path | None,
            typer.Option(help="A file, or a folder of files, instead of asking the source.", metavar="PATH"),
        ] = None,
        as_of: Annotated[
            str | None,
            typer.Option(help="The state of the source that this delivery shows, when its cover letter says so."),
        ] = None,
        json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON value.")] = False,
    ) -> None:
        """Fetch, map, check and merge one source. 运行一个来源。

        Exit code 0: done; 1: failed; 2: usage; 3: halted by a gate, nothing was merged.

        Examples:

        [bold]yici run sh-ga-residents[/]

        [bold]yici run sh-amr-enterprises --input 2019-上海.csv --json[/]
        """
        from hub import pipeline
        from hub.cli import output

        if input is not None and not input.exists():
            raise typer.BadParameter(f"no such file or folder: {input}", param_hint="--input")
        with output.messages().status(source) as status:
            summary = pipeline.run(
                source,
                input=input,
                as_of=as_of,
                progress=lambda stage, done, total: status.update(_stage(source, stage, done, total)),
            )
        if json:
            output.json(_printed(summary))
        else:
            show(summary)


def _stage(source: str, stage: str, done: int, total: int) -> str:
    return f"{source}: {stage}" + (f" {done + 1}/{total}" if total > 1 else "")


def _printed(summary: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in summary.items() if name not in ("run_id", "findings")}
    return kept | {"warnings": warnings(summary)}


def warnings(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """What went through and a person should know all the same: code, values, sentence and advice."""
    from connectors import messages

    found = []
    for finding in summary["findings"]:
        if finding["severity"] == "warn" and finding["code"] in messages.sentences():
            values = {"batch": summary["batch"], "source": summary["source"], **finding["values"]}
            code = finding["code"]
            said = {"message": messages.text(code, **values), "advice": messages.advice(code, **values)}
            found.append({"code": code, "values": finding["values"], **said})
    return found


def show(summary: dict[str, Any]) -> None:
    """The summary for people."""
    from hub.cli import output

    names = ("fetched", "unchanged", "accepted", "quarantined", "rejected", "withdrawn")
    output.console().print(f"[bold]{summary['batch']}[/]  {summary['state']}")
    output.table(
        (*names, "seconds"), [[*(summary[name] for name in names), round(sum(summary["seconds"].values()), 1)]]
    )
    for kind in ("reasons", "flags"):
        if summary[kind]:
            codes: list[tuple[str, int]] = sorted(summary[kind].items(), key=operator.itemgetter(1), reverse=True)
            output.table((kind, "rows"), codes)
    for warning in warnings(summary):
        output.console().print(f"! {warning['message']}\n  → {warning['advice']}", markup=False, soft_wrap=True)
    if summary["quarantined"]:
        output.console().print(f"→ yici quarantine list --batch {summary['batch']}")
