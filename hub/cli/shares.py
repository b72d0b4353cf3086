"""``yici share``: whole tables for partner hubs, over the open Delta Sharing protocol."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any

import typer

Name = Annotated[
    str,
    typer.Argument(metavar="AGREEMENT", help="Id of an agreement of mode share, or how it begins. 协议编号或其开头。"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value. 以 JSON 输出。")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="Whole tables for partner hubs, over Delta Sharing. 批量共享（Delta Sharing）。", no_args_is_help=True
    )
    app.add_typer(commands, name="share")
    commands.command()(publish)
    commands.command("list")(_list)
    commands.command()(profile)
    commands.command()(revoke)


def publish(
    name: Annotated[
        str | None,
        typer.Argument(metavar="AGREEMENT", help="Only this one; all in force without. 仅该协议，缺省为全部。"),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Read all holdings, not only what changed. 重读全部，而非仅读变化。")
    ] = False,
    json: Json = False,
) -> None:
    """Make the next version of every shared table of which anything differs. 发布共享表的新版本。

    Run it after sources did, as often as partners should see changes. A table is as the store is at one moment; what did
    not change is not written again, and where nothing did there is no version. Versions made under other fields or regions go at
    once, those older than 30 days too, and all of an agreement that is over. Stopped or killed, it leaves things as they were.

    Examples: [bold]yici share publish[/] · [bold]yici share publish 0199c0de --json[/]
    """
    from hub.cli import output
    from hub.exchange import agreements, share_tables

    named = agreements.named(name) if name else None
    with output.messages().status("publish 发布") as status:
        made = share_tables.publish(
            named,
            anew=anew,
            progress=lambda table, done, total: status.update(f"publish 发布: {table} {done + 1}/{total}"),
        )
    if json:
        output.json([vars(one) for one in made])
        return
    output.table(
        ("agreement 协议", "table 表", "version 版本", "rows 行数", "changed 变化", "files 新文件"),
        [
            (
                one.agreement[:13],
                one.material,
                f"{one.version}{' new 新' if one.new else ''}",
                one.rows,
                one.changed,
                one.parts,
            )
            for one in made
        ],
    )


def _list(json: Json = False) -> None:
    """Agreements of mode share, their tables and tokens. 列出批量共享的协议、表与令牌。

    Example: [bold]yici share list[/]
    """
    from connectors.errors import UsageError
    from hub import database
    from hub.cli import output
    from hub.exchange import share_versions, shares

    now = dt.datetime.now(dt.UTC)
    found: list[dict[str, Any]] = []
    with database.engine().connect() as connection:
        for named in shares.every(connection):
            peer, reference = shares.parties(connection, named, now)
            tables: dict[str, Any] = {}
            try:
                share = shares.of(connection, named, now)
                state = "open"
                kept = share_versions.kept(connection, named)
                tables = {name: kept.get(name) for name in share.tables}
            except UsageError as error:
                state = error.code
            until = shares.token_until(connection, named)
            found.append(
                {"agreement": reference, "peer": peer, "state": state, "token_until": until, "tables": {
                    name: {"version": one.number, "rows": one.rows, "made_at": one.made_at} if one else None
                    for name, one in tables.items()
                }}
            )  # fmt: skip
    if json:
        output.json(found)
        return
    output.table(
        ("agreement 协议", "peer 伙伴", "state 状态", "token until 令牌截止", "table 表", "version 版本", "rows 行数", "made 生成"),
        [
            (
                one["agreement"], one["peer"], one["state"], _moment(one["token_until"]), name,
                made["version"] if made else "-", made["rows"] if made else "-", _moment(made["made_at"]) if made else "-",
            )
            for one in found
            for name, made in (one["tables"] or {"-": None}).items()
        ],
    )  # fmt: skip


def profile(
    name: Name,
    endpoint: Annotated[
        str, typer.Option(help="The address partners reach: the API's, then /delta. 伙伴节点可访问的地址。")
    ] = "",
    days: Annotated[int, typer.Option(help="How long the token lives. 令牌有效天数。")] = 90,
    json: Json = False,
) -> None:
    """Make a token and print the profile file of a Delta Sharing client, this once. 生成令牌与配置文件，仅显示一次。

    Whoever has the file reads what the agreement shares: hand it to the partner by a channel of its own. The token before, and
    the file addresses given out under it, open nothing from now on. Print it into a file that only you can read.

    Example: [bold](umask 077; yici share profile 0199c0de --endpoint https://hub.example/delta > zj.share)[/]
    """
    from hub import database, home
    from hub.cli import output
    from hub.exchange import agreements, shares

    named = agreements.named(name)
    address = endpoint or f"http://127.0.0.1:{home.current().identity('api_port') or 8000}/delta"
    with database.engine().begin() as connection:
        made = shares.profile(connection, named, address, days, now=dt.datetime.now(dt.UTC))
    output.json(made)
    typer.echo(f"Good until {made['expirationTime']}; not shown again. 有效期至上述时间，仅显示这一次。", err=True)


def revoke(name: Name, json: Json = False) -> None:
    """Take the token of a share back, at once. 收回共享令牌，立即生效。

    Example: [bold]yici share revoke 0199c0de[/]
    """
    from hub import database
    from hub.cli import output
    from hub.exchange import agreements, shares

    named = agreements.named(name)
    with database.engine().begin() as connection:
        shares.revoke(connection, named, now=dt.datetime.now(dt.UTC))
    if json:
        output.json({"agreement": str(named), "token": None})
    else:
        typer.echo(f"{named} revoked 已收回", err=True)


def _moment(moment: dt.datetime | None) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="minutes") if moment else "-"
