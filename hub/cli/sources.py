"""``yici sources`` and ``yici check``: what there is to fetch, and whether it can be reached. What begins and tests a
source is in :mod:`hub.cli.onboarding`."""

from __future__ import annotations

import datetime as dt
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from connectors.source import Source

SOURCES_HELP = """List the sources, one folder each; begin a new one and test it. 列出、新建、测试数据源。

Examples:

  yici sources

  yici sources --json | jq -r '.[].name'

  yici sources new sh-tax-receipts --connector files
"""

CHECK_HELP = """Test the connection of one source, step by step; fetches and stores nothing. 逐步测试数据源连接。

Exit code 0 when every step passes, 1 when one fails.

Examples:

  yici check sh-ga-residents

  yici check sh-mca-marriages --json
"""


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    from hub.cli import onboarding

    group = typer.Typer(help=SOURCES_HELP, invoke_without_command=True)
    group.callback(invoke_without_command=True, help=SOURCES_HELP)(sources)
    onboarding.register(group)
    app.add_typer(group, name="sources")
    app.command("check", help=CHECK_HELP)(check)


def sources(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array. 输出 JSON。")] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from connectors.messages import language
    from connectors.source import readable

    found, broken = readable()
    for error in broken:  # one folder that cannot be read hides no other
        typer.echo(f"✗ {error}", err=True)
    if as_json:
        _print_json([_entry(source) for source in found])
        raise typer.Exit(bool(broken))
    from rich import box
    from rich.console import Console
    from rich.table import Table

    zh = language() == "zh"
    heads = ["名称", "标题", "连接方式", "范围", "实体", "计划", "承诺"] if zh else [
        "name", "title", "connector", "extent", "entity", "schedule", "promise"
    ]  # fmt: skip
    table = Table(*heads, box=box.SIMPLE_HEAD)
    for source in found:
        entry = _entry(source)
        by_hand = "手工" if zh else "by hand"
        table.add_row(
            source.name,
            source.title.zh if zh else source.title.en,
            source.connector,
            source.extent,
            source.entity,
            source.schedule or by_hand,
            entry["promise"],
        )
    # redirected output must keep whole names, however narrow a terminal rich assumes
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    raise typer.Exit(bool(broken))


def check(
    source: Annotated[str, typer.Argument(help="Name of the source, as `yici sources` shows it. 数据源名称。")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object. 输出 JSON。")] = False,
) -> None:
    from connectors import connect
    from connectors.source import load

    described = load(source)
    if described.connector == "hub":
        from hub.exchange import index_channel

        steps = index_channel.check(described)
    else:
        steps = connect.check(described)
    ok = all(step.ok for step in steps)
    if as_json:
        _print_json({"source": source, "ok": ok, "steps": [asdict(step) for step in steps]})
    else:
        for step in steps:
            typer.secho(f"{'✓' if step.ok else '✗'} {step.step:<12}{step.detail}", fg="green" if step.ok else "red")
            if step.advice:
                typer.echo(f"  → {step.advice}")
    raise typer.Exit(0 if ok else 1)


def _entry(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "title": {"zh": source.title.zh, "en": source.title.en},
        "owner": {"zh": source.owner.zh, "en": source.owner.en},
        "region": source.region,
        "entity": source.entity,
        "connector": source.connector,
        "extent": source.extent,
        "schedule": source.schedule,
        "promise": _duration(source.promise),
        "folder": str(source.folder),
    }


def _duration(value: dt.timedelta) -> str:
    """ISO 8601, days and the rest in hours and minutes: ``P2D``, ``PT26H``."""
    seconds = int(value.total_seconds())
    if seconds % 86400 == 0:
        return f"P{seconds // 86400}D"
    hours, minutes = divmod(seconds // 60, 60)
    return "PT" + (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes or not hours else "")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
