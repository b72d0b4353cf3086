"""``yici peer grant | grants | rotate | revoke | forget``: version 0 of the index feed, under its own grants: who may read the index
of this hub, and of what; and the end of reading theirs."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(help="The peer, as `yici peer grants` names it. 伙伴节点编号。")]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout. 以 JSON 输出。")]


def register(commands: typer.Typer) -> None:
    """Adds to the commands of ``yici peer``."""

    @commands.command()
    def grant(
        name: Annotated[
            str, typer.Argument(help="What to call the peer: lower-case letters, digits, hyphens. 伙伴节点编号。")
        ],
        material: Annotated[
            list[str],
            typer.Option(
                "--material", metavar="CODE", help="Announce these; may be repeated. 可公布的材料，可多次给出。"
            ),
        ],
        region: Annotated[
            list[str] | None,
            typer.Option(
                "--region", metavar="DIGITS", help="Only within, 2, 4 or 6 digits; may be repeated. 仅限区划。"
            ),
        ] = None,
        until: Annotated[
            dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, Beijing time. 截止日（北京时间）。")
        ] = None,
        title: Annotated[str, typer.Option(help="Who that is. 伙伴节点名称。")] = "",
        replace: Annotated[
            bool, typer.Option(help="Give a peer that exists new secrets and a new scope. 为已有伙伴重新授权。")
        ] = False,
        json: Json = False,
    ) -> None:
        """Let a partner hub read the index, and print its secrets, this once. 授权伙伴节点读取索引；密钥仅显示一次。

        Tell the partner by a channel of its own, never by the network that carries the feed: these are its connection.
        YICI_HUB and YICI_REGION say who this hub is.

        Examples:
        [bold]yici peer grant sh --material business-licence --material household-register[/]
        [bold]yici peer grant js --material business-licence --region 3301 --until 2027-12-31 --json[/]
        """
        from connectors.signature import base64url
        from hub import peers, signing
        from hub.cli import output
        from hub.clock import CHINA

        end = (until + dt.timedelta(days=1)).replace(tzinfo=CHINA) if until else None
        made = peers.grant(name, title or name, material, region or (), end, replace=replace)
        given = {
            "client_id": made.client,
            "client_secret": made.secret,
            "index_key": base64url(made.key),
            "public_key": signing.public_key(),
            "hub": made.publisher.hub,
            "region": made.publisher.region,
        }
        if json:
            output.json(given)
        else:
            for field, value in given.items():
                typer.echo(f"{field:<14} {value}")
        typer.echo(
            "client_secret and index_key are not shown again. client_secret 与 index_key 仅显示这一次。", err=True
        )

    @commands.command()
    def grants(json: Json = False) -> None:
        """List who may read the index, what of it, and how far they have. 列出索引授权、范围与读取进度。

        Example: [bold]yici peer grants[/]
        """
        from hub import peers
        from hub.cli import output

        found = peers.every()
        now = dt.datetime.now(dt.UTC)
        if json:
            output.json(
                [
                    {
                        "client_id": peer.client,
                        "name": peer.name,
                        "materials": peer.materials,
                        "regions": peer.regions,
                        "epoch": peer.epoch,
                        "in_force": peer.in_force(now),
                        "valid_to": peer.valid_to,
                        "read_at": peer.read_at,
                        "position": peer.position,
                    }
                    for peer in found
                ]
            )
            return
        output.table(
            (
                "peer 伙伴",
                "name 名称",
                "materials 材料",
                "regions 区划",
                "epoch 期次",
                "ends 截止",
                "last read 最近读取",
            ),
            [
                (
                    peer.client,
                    peer.name,
                    "\n".join(peer.materials),
                    "\n".join(peer.regions) or "-",
                    peer.epoch,
                    _moment(peer.valid_to) if peer.in_force(now) else "ended 已终止",
                    f"{_moment(peer.read_at)} @ {peer.position}" if peer.read_at else "-",
                )
                for peer in found
            ],
        )

    @commands.command()
    def rotate(name: Name, json: Json = False) -> None:
        """Begin a new epoch: all ids change, the peer reads everything anew. 更换期次：标识全部更换，伙伴从头读取。

        Do this as often as the agreement says, and when a partner's store or ours was put back to an older state.

        Example: [bold]yici peer rotate sh[/]
        """
        from hub import peers
        from hub.cli import output

        epoch = peers.rotate(name)
        if json:
            output.json({"client_id": name, "epoch": epoch})
        else:
            typer.echo(f"{name} epoch {epoch}", err=True)

    @commands.command()
    def revoke(name: Name, json: Json = False) -> None:
        """End an agreement; from now on the peer reads nothing more. 终止授权，立即生效。

        Example: [bold]yici peer revoke sh[/]
        """
        from hub import peers
        from hub.cli import output

        peers.revoke(name)
        if json:
            output.json({"client_id": name, "in_force": False})
        else:
            typer.echo(f"{name} revoked 已终止", err=True)

    @commands.command()
    def forget(
        source: Annotated[
            str, typer.Argument(help="The source that reads the partner's index. 读取对方索引的数据源。")
        ],
        note: Annotated[str, typer.Option(help="Why; kept with the decision. 原因，随决定留存。")] = "",
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask. 不再询问。")] = False,
        json: Json = False,
    ) -> None:
        """Drop all that a partner's index told this hub, when an agreement ends. 协议终止时，清除对方索引的全部条目。

        Entries, keys, scope, quarantined rows and the cursor go, in one step; batches, landed pages and answers given stay.
        Take the source's folder or its schedule away first: a later run reads the index anew, if the partner lets it.
        请先停用该数据源，否则下次运行会重新读取。批次、落地页和已作出的答复保留。

        Example: [bold]yici peer forget zj-hub-index --note "agreement ended"[/]
        """
        from hub import index_entries
        from hub.cli import output

        if not yes:
            typer.confirm(f"Drop all entries of {source}? 清除 {source} 的全部条目？", abort=True, err=True)
        dropped = index_entries.forget(source, actor=output.actor(), note=note)
        if json:
            output.json({"source": source, "entries": dropped})
        else:
            typer.echo(f"{source}: {dropped} entries dropped 已清除 {dropped} 条", err=True)


def _moment(moment: dt.datetime | None) -> str:
    return moment.isoformat(timespec="minutes") if moment else "-"
