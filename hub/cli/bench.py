"""``yici bench``: measurements, each beside what a user would pick instead, in the same run."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

BENCH = Path(__file__).parents[2] / "bench"


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Measurements, side by side with alternatives. 基准测试。", invoke_without_command=True)
    app.add_typer(commands, name="bench")

    @commands.callback(invoke_without_command=True)
    def all_(context: typer.Context) -> None:
        """Measurements, side by side with alternatives; without a name, all of them. 基准测试。"""
        if context.invoked_subcommand is None:
            identifiers(rows=1_000_000, json=False)

    @commands.command("id")
    def identifiers(
        rows: Annotated[int, typer.Option(min=1000, help="How many identifiers.")] = 1_000_000,
        json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
    ) -> None:
        """Identifier checks a second, beside python-stdnum. 标识校验速度。

        Example: [bold]yici bench id --rows 1000000 --json[/]
        """
        script = BENCH / "identifiers.py"
        if not script.exists():
            raise typer.BadParameter("measurements run from a checkout of the repository: see README.md, `make bench`")
        sys.argv = [str(script), "--rows", str(rows), *(["--json"] if json else [])]
        runpy.run_path(str(script), run_name="__main__")
