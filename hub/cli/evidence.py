"""``yici evidence``: a certificate asked of a partner hub, for the case of an answer."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hub.exchange.evidence import Consent
    from hub.exchange.evidence_asking import Relayed


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="Evidence that partner hubs hold. 向伙伴节点取证。", no_args_is_help=True)
    app.add_typer(commands, name="evidence")

    @commands.callback()
    def about() -> None:
        """Evidence that partner hubs hold. 向伙伴节点取证。"""

    @commands.command()
    def ask(
        peer: Annotated[str, typer.Argument(help="The partner hub, see `yici peer list`. 伙伴节点编号。")],
        answer: Annotated[
            str,
            typer.Option(
                "--answer", metavar="ANSWER", help="The `answer` of a lookup here with --case and --purpose. 答复编号。"
            ),
        ],
        id_: Annotated[
            str, typer.Option("--id", metavar="SCHEME:VALUE", help="Whose it is; `-` reads it from stdin. 持证人标识。")
        ],
        handle: Annotated[
            str | None, typer.Option(help="What the answer calls it, under `elsewhere`. 索引标识。")
        ] = None,
        material: Annotated[
            str | None, typer.Option(help="Instead: a material that no index tells of. 未列入索引的材料类型。")
        ] = None,
        consent: Annotated[
            str | None, typer.Option(metavar="REF", help="Where the person's consent is filed. 同意书存档编号。")
        ] = None,
        consent_at: Annotated[
            str | None, typer.Option(metavar="TIME", help="Since when it counts; now otherwise. 同意时间。")
        ] = None,
        consent_method: Annotated[
            str, typer.Option(metavar="CODE", help="How it was given. 同意方式。")
        ] = "signed-form",
        fields: Annotated[
            str | None, typer.Option(metavar="A,B", help="Only these of the fields agreed. 仅取这些字段。")
        ] = None,
        seconds: Annotated[float, typer.Option(min=1, max=60, help="How long to wait. 等待秒数。")] = 20.0,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout. 以 JSON 输出。")] = False,
    ) -> None:
        """Ask a partner hub for a certificate that an answer found there, or could not know of. Both hubs record it, with purpose and
        case; the agreement between them says what may be shown. 向伙伴节点索取答复所指的证照。

        Examples:

        [bold]echo cn.uscc:… | yici evidence ask zj --answer 0198… --handle 7f3a… --id -[/]

        [bold]yici evidence ask zj --answer 0198… --material marriage-certificate --id - --consent 31-2026-77 --json[/]
        """
        from connectors.errors import UsageError
        from hub import database
        from hub.cli import lookup, output
        from hub.exchange import evidence_asking
        from hub.exchange.evidence_grants import Wanted

        if (handle is None) == (material is None):
            raise UsageError("evidence-which")
        wanted = Wanted(
            lookup._identifier(id_),
            handle,
            peer,
            material,
            _names(fields),
            _consent(consent, consent_at, consent_method),
        )
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        found = evidence_asking.fetch(database.engine(), lookup.CLIENT, answer, wanted, until, operator=True)
        shown = _shown(found)
        if json:
            output.json(shown)
        else:
            _print(shown["evidence"])


def _names(fields: str | None) -> list[str] | None:
    return None if fields is None else [name.strip() for name in fields.split(",") if name.strip()]


def _consent(reference: str | None, at: str | None, method: str) -> Consent | None:
    import msgspec

    from connectors.errors import UsageError
    from hub.cli import lookup
    from hub.exchange.evidence import Consent

    if reference is None:
        return None
    since = lookup._time(at) if at else dt.datetime.now(dt.UTC)
    try:
        return msgspec.convert({"reference": reference, "at": since, "method": method}, Consent)
    except msgspec.ValidationError:
        raise UsageError("consent-invalid") from None


def _shown(found: Relayed) -> dict[str, Any]:
    """What the partner gave, as it signed it, and its envelope around the digest; ``signature``: this hub's, where it left out what
    it does not know."""
    import orjson

    return {
        "hub": found.hub,
        "evidence": orjson.loads(found.body),
        "digest": found.digest.hex(),
        "envelope": found.envelope,
        **({"signature": found.signature} if found.signature else {}),
    }


def _print(evidence: dict[str, Any]) -> None:
    from hub.cli import output
    from mappings import model

    certificate, source, given = evidence["certificate"], evidence["source"], evidence["given"]
    rows = [(name, value) for name, value in certificate.items() if name not in ("holders", "attributes")]
    rows += [
        (f"holder.{one['role']}", " ".join(filter(None, (f"{one['scheme']}:{one['value']}", one["name"]))))
        for one in certificate.get("holders", ())
    ]
    rows += [(f"attributes.{name}", value) for name, value in certificate.get("attributes", {}).items()]
    name = model.load(evidence["material"]).name
    output.table(("field 字段", "value 内容"), rows, title=f"{name.zh} {name.en} · {given['hub']}")
    console = output.console()
    console.print(f"{source['source']} · {source['file']} · {source['row']} · {source['as_of'] or '-'}", markup=False)
    console.print(f"{given['purpose']} · {given['case']} · {given['at']}", style="dim", markup=False)
