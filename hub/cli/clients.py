"""``yici client``: who may ask this hub, about which items, for which purposes."""

from __future__ import annotations

import datetime as dt
import json as json_
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="Clients of the lookup API and their agreements. 查询接口的客户端与协议。", no_args_is_help=True
    )
    app.add_typer(commands, name="client")

    @commands.command()
    def add(
        client: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")],
        item: Annotated[list[str], typer.Option("--item", metavar="CODE", help="May ask about it; may be repeated.")],
        purpose: Annotated[list[str], typer.Option("--purpose", help="May ask for it; may be repeated.")],
        name: Annotated[str, typer.Option(help="Who that is.")] = "",
        valid_to: Annotated[
            dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Last day, Beijing time.")
        ] = None,
        replace: Annotated[bool, typer.Option(help="Give a client that exists a new secret and agreement.")] = False,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
    ) -> None:
        """Add a client and print its secret, this once.

        Example: [bold]yici client add hall-1 --item demo-food-permit --purpose handle-application[/]
        """
        from hub import agreements
        from hub.findings import CHINA

        end = (valid_to + dt.timedelta(days=1)).replace(tzinfo=CHINA) if valid_to else None
        secret = agreements.add(client, None, name or client, item, purpose, end, replace=replace)
        if json:
            typer.echo(json_.dumps({"client_id": client, "client_secret": secret}))
        else:
            typer.echo(f"client_id      {client}\nclient_secret  {secret}")
        typer.echo("The secret is not shown again. 密钥仅显示这一次。", err=True)

    @commands.command(name="list")
    def list_(json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False) -> None:
        """List clients and what they may ask."""
        from rich.console import Console
        from rich.table import Table

        from hub import agreements

        found = agreements.every()
        if json:
            rows = [
                {
                    "client_id": agreement.client,
                    "name": agreement.name,
                    "items": agreement.items,
                    "purposes": agreement.purposes,
                    "valid_from": agreement.valid_from.isoformat(),
                    "valid_to": agreement.valid_to.isoformat() if agreement.valid_to else None,
                }
                for agreement in found
            ]
            typer.echo(json_.dumps(rows, ensure_ascii=False))
            return
        table = Table("client", "name", "items", "purposes", "ends")
        for agreement in found:
            end = agreement.valid_to.isoformat(timespec="minutes") if agreement.valid_to else "-"
            table.add_row(
                agreement.client, agreement.name, "\n".join(agreement.items), "\n".join(agreement.purposes), end
            )
        Console().print(table)

    @commands.command()
    def remove(client: Annotated[str, typer.Argument(help="As `yici client list` names it.")]) -> None:
        """Remove a client; its tokens stop working at once."""
        from hub import agreements

        agreements.remove(client)
        typer.echo(f"{client} removed", err=True)
