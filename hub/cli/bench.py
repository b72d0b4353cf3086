"""``yici bench``: measurements, each beside what a user would pick instead, in the same run."""

from __future__ import annotations

import runpy
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

BENCH = Path(__file__).parents[2] / "bench"
Rows = Annotated[int, typer.Option(min=1000, help="How many rows.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds; medians are shown.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


class Part(StrEnum):
    """Of the measurements of the exchange."""

    feed = "feed"
    reconcile = "reconcile"
    evidence = "evidence"
    ledger = "ledger"
    catch_up = "catch-up"


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Measurements, side by side with alternatives. 基准测试。", invoke_without_command=True)
    app.add_typer(commands, name="bench")

    @commands.callback(invoke_without_command=True)
    def all_(context: typer.Context) -> None:
        """Measurements, side by side with alternatives; without a name, ingest and lookup. 基准测试。

        How to read the figures: bench/README.md.
        """
        if context.invoked_subcommand is None:
            _run("ingest")
            _run("lookup")

    @commands.command("id")
    def identifiers(rows: Rows = 1_000_000, json: Json = False) -> None:
        """Identifier checks a second, beside python-stdnum. 标识校验速度。

        Example: [bold]yici bench id --rows 1000000 --json[/]
        """
        _run("identifiers", "--rows", str(rows), json=json)

    @commands.command("answers")
    def answers(
        people: Annotated[int, typer.Option(min=400, help="How many people.")] = 20_000,
        seed: Annotated[int, typer.Option(min=0, help="Of the people and of the scenarios.")] = 1,
        defect: Annotated[
            str | None, typer.Option(help="A deliberate one, which must be caught: bench/README.md.")
        ] = None,
        json: Json = False,
    ) -> None:
        """Every answer beside an independent oracle over the generator's truth. 答复的正确性。

        Example: [bold]yici bench answers --people 2000 --seed 7 --json[/]
        """
        _run(
            "answers",
            "--people",
            str(people),
            "--seed",
            str(seed),
            *(["--defect", defect] if defect else []),
            json=json,
        )

    @commands.command("ingest")
    def ingest(
        rows: Rows = 1_000_000,
        rounds: Rounds = 3,
        scale: Annotated[
            bool, typer.Option("--scale", help="Ten times the rows too, through Yici alone, and increments onto both.")
        ] = False,
        json: Json = False,
    ) -> None:
        """The whole pipeline beside COPY, dlt and pandas to_sql. 入库速度对比。

        Example: [bold]yici bench ingest --rows 1000000 --scale --json[/]
        """
        _run("ingest", "--rows", str(rows), "--rounds", str(rounds), *(["--scale"] if scale else []), json=json)

    @commands.command("exchange")
    def exchange(
        rows: Rows = 1_000_000,
        rounds: Rounds = 3,
        requests: Annotated[int, typer.Option(min=100, help="Evidence requests of one measurement.")] = 5000,
        seconds: Annotated[float, typer.Option(min=1, help="Length of one measurement of lookups.")] = 10,
        scale: Annotated[bool, typer.Option("--scale", help="Catch up on ten times the rows, too.")] = False,
        only: Annotated[
            list[Part] | None, typer.Option(help="One part alone; may be given several times. 只测一项。")
        ] = None,
        json: Json = False,
    ) -> None:
        """The exchange between two hubs beside COPY, and beside itself without signatures and records. 节点间交换性能。

        Example: [bold]yici bench exchange --rows 100000 --only evidence --json[/]
        """
        if only and [Part.catch_up] == list(set(only)) and not scale:
            raise typer.BadParameter("catch-up needs --scale", param_hint="--only")
        given = {"rows": rows, "rounds": rounds, "requests": requests, "seconds": seconds}
        options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        options += [*(["--scale"] if scale else []), *(["--only", *(part.value for part in only)] if only else [])]
        _run("exchange", *options, json=json)

    @commands.command("identity")
    def identity(
        people: Annotated[int, typer.Option(min=500, help="How many people.")] = 100_000,
        seed: Annotated[int, typer.Option(min=0, help="Of the people, and of the order in which files arrive.")] = 1,
        json: Json = False,
    ) -> None:
        """Clusters and review candidates beside the generator's truth. 主体识别的准确性。

        Example: [bold]yici bench identity --people 20000 --seed 3 --json[/]
        """
        _run("identity", "--people", str(people), "--seed", str(seed), json=json)

    @commands.command("lookup")
    def lookup(
        holdings: Annotated[int, typer.Option(min=1000, help="How many holdings.")] = 1_000_000,
        seconds: Annotated[float, typer.Option(min=1, help="Length of one measurement.")] = 10,
        rounds: Rounds = 3,
        lookups: Annotated[
            int, typer.Option(min=0, help="Lookups after which memory is looked at; 0: not at all.")
        ] = 1_000_000,
        scale: Annotated[bool, typer.Option("--scale", help="Ten times the holdings too.")] = False,
        json: Json = False,
    ) -> None:
        """Full lookups a second, beside a bare FastAPI + asyncpg endpoint. 查询速度对比。

        Example: [bold]yici bench lookup --holdings 100000 --seconds 5 --json[/]
        """
        given = {"holdings": holdings, "seconds": seconds, "rounds": rounds, "lookups": lookups}
        options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
        _run("lookup", *options, *(["--scale"] if scale else []), json=json)


def _run(name: str, *arguments: str, json: bool = False) -> None:
    script = BENCH / f"{name}.py"
    if not script.exists():
        raise typer.BadParameter("measurements run from a checkout of the repository: see README.md, `make bench`")
    sys.argv = [str(script), *arguments, *(["--json"] if json else [])]
    runpy.run_path(str(script), run_name="__main__")
