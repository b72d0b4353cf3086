"""``yici client``: who may ask this hub, about which items, for which purposes."""

from __future__ import annotations

import datetime as dt
import json as json_
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hub.agreements import Agreement


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
        field: Annotated[
            list[str] | None,
            typer.Option(
                "--field",
                metavar="MATERIAL=A,B",
                help="Columns that evidence may show; `*` is all of them, without any there is none.",
            ),
        ] = None,
        evidence_minutes: Annotated[int, typer.Option(help="For how long an answer opens evidence.")] = 30,
        deposit: Annotated[
            list[str] | None,
            typer.Option("--deposit", metavar="MATERIAL", help="May be handed in through this client."),
        ] = None,
        own_view: Annotated[bool, typer.Option("--own-view", help="May show people what is held about them.")] = False,
        rate: Annotated[int, typer.Option(help="Requests a second.")] = 2000,
        replace: Annotated[bool, typer.Option(help="Give a client that exists a new secret and agreement.")] = False,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
    ) -> None:
        """Add a client and print its secret, this once, and the key under which evidence is signed.

        Example: [bold]yici client add hall-1 --item demo-food-permit --purpose handle-application[/]

        With evidence and deposits: [bold]… --field business-licence=certificate_number,attributes.registered_on
        --evidence-minutes 15 --deposit premises-proof[/]
        """
        from hub import agreements, signing
        from hub.clock import CHINA

        end = (valid_to + dt.timedelta(days=1)).replace(tzinfo=CHINA) if valid_to else None
        secret = agreements.add(
            client, None, name or client, item, purpose, end, fields=_fields(field), evidence_minutes=evidence_minutes,
            deposits=deposit or (), own_view=own_view, rate=rate, replace=replace,
        )  # fmt: skip
        if json:
            known = {"client_id": client, "client_secret": secret, "public_key": signing.public_key()}
            typer.echo(json_.dumps(known))
        else:
            typer.echo(f"client_id      {client}\nclient_secret  {secret}\npublic_key     {signing.public_key()}")
        typer.echo("The secret is not shown again. 密钥仅显示这一次。", err=True)

    @commands.command(name="list")
    def list_(json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False) -> None:
        """List clients and what their agreements grant, a line for each kind.

        Example: [bold]yici client list --json[/]
        """
        from hub import agreements
        from hub.cli import output

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
                    "fields": agreement.fields,
                    "evidence_minutes": agreement.evidence_minutes,
                    "deposits": agreement.deposits,
                    "own_view": agreement.own_view,
                    "rate": agreement.rate,
                }
                for agreement in found
            ]
            typer.echo(json_.dumps(rows, ensure_ascii=False))
            return
        output.table(("client", "grants", ""), [line for agreement in found for line in _granted(agreement)])

    @commands.command()
    def remove(client: Annotated[str, typer.Argument(help="As `yici client list` names it.")]) -> None:
        """Remove a client; its tokens stop working at once."""
        from hub import agreements

        agreements.remove(client)
        typer.echo(f"{client} removed", err=True)


def _granted(agreement: Agreement) -> list[tuple[str, str, str]]:
    """All that an agreement says, what it does not grant too; the client stands in the first line."""
    evidence = [f"{material}: {', '.join(named)}" for material, named in agreement.fields.items()]
    told = {
        "name": agreement.name,
        "items": ", ".join(agreement.items),
        "purposes": ", ".join(agreement.purposes),
        "evidence": "\n".join([f"for {agreement.evidence_minutes} minutes", *evidence]) if evidence else "-",
        "deposits": ", ".join(agreement.deposits) or "-",
        "own view": "yes" if agreement.own_view else "-",
        "rate": f"{agreement.rate} a second",
        "ends": agreement.valid_to.isoformat(timespec="minutes") if agreement.valid_to else "-",
    }
    return [(agreement.client if kind == "name" else "", kind, text) for kind, text in told.items()]


def _fields(given: list[str] | None) -> dict[str, list[str]]:
    """``MATERIAL=a,b`` as typed, several times for one material if need be. UsageError ``pair-invalid``."""
    from connectors.errors import UsageError

    found: dict[str, list[str]] = {}
    for text in given or []:
        material, equals, names = text.partition("=")
        columns = [name.strip() for name in names.split(",")]
        if not material or not equals or not all(columns):
            raise UsageError("pair-invalid", option="--field")
        found.setdefault(material, []).extend(columns)
    return found
