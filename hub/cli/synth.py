"""``yici synth``: synthetic departments, and the truth about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def synth(
        people: Annotated[int, typer.Option(help="How many people live there. 人口数")],
        companies: Annotated[int, typer.Option(help="How many companies, over four provinces and two years. 企业数")],
        seed: Annotated[int, typer.Option(help="The same seed gives the same bytes. 随机种子")],
        out: Annotated[
            Path, typer.Option(help="Folder to make; must be new, empty, or made with the same parameters.")
        ],
        dirt: Annotated[float, typer.Option(help="Share of rows made dirty, each noted in truth/dirt.parquet.")] = 0.01,
        json: Annotated[
            bool, typer.Option("--json", help="Print one JSON value with the files and their digests.")
        ] = False,
    ) -> None:
        """Make the data of synthetic departments, and the truth about it. 生成虚构的部门数据及其真值。

        Nobody in it exists. One person's records are spread over departments,
        provinces, formats and generations of identifiers; some contradict each
        other; some rows are dirty as real ones are. The folder holds:

        ga/ residents and households (JSON lines)
        ga-zj/ households registered in Zhejiang (CSV in GB18030)
        mca/ marriages, two monthly rosters of allowances (CSV)
        amr/ companies of four provinces (CSV)
        hrss/ social insurance of Shanghai and Zhejiang (gzipped JSON lines)
        mnr/ real estate titles (XLSX)
        nhc/ birth certificates (Parquet)
        moe/ degrees (nested JSON lines)
        nia/ changed documents of overseas persons, samr/ registration numbers
        that gave way to credit codes (CSV)
        truth/ who is whom (people, overseas, companies, marriages, links,
        names), what each really holds by file and row (certificates) and by
        month (allowances), contradictions, and every dirty row with the
        verdict due (dirt); all Parquet

        Asked again with the same parameters it changes nothing.

        Example: [bold]yici synth --people 2000 --companies 800 --seed 1 --out data[/]

        Example: [bold]yici synth --people 1000000 --companies 200000 --seed 7 --dirt 0 --out big --json[/]
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from connectors import messages
        from demo.synthesis import Parameters, synthesise

        parameters = Parameters(people, companies, seed, dirt)
        parameters.check()
        console = Console(stderr=True, highlight=False)
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, transient=True,
        )  # fmt: skip
        with bar:
            # How many documents people have is not known beforehand: about 36 to ten.
            task = bar.add_task("synth", total=round(3.6 * people) + companies)
            result = synthesise(parameters, out, lambda done: bar.advance(task, done))

        rate = round(result.records / result.seconds) if result.made else 0
        code = "synth-made" if result.made else "synth-there-already"
        said = messages.text(
            code, folder=out, records=f"{result.records:,}", seconds=f"{result.seconds:.1f}", rate=f"{rate:,}"
        )
        console.print(said, markup=False, soft_wrap=True)
        if json:
            import orjson

            answer = {
                "folder": str(result.folder), "made": result.made, "records": result.records,
                "seconds": round(result.seconds, 3), "records_per_second": rate, "files": result.files,
            }  # fmt: skip
            typer.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
