"""``yici correction``: errors found in what partner hubs hold, and those they found here 校核."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hub.exchange.correction_messages import Said
    from hub.exchange.corrections import Correction

Id = Annotated[
    str, typer.Argument(metavar="ID", help="Of the correction, or how it begins or ends. 校核编号，可只写首尾。")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout. 以 JSON 输出。")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="Errors in what hubs hold of each other, answered in 10 working days. 校核：10 个工作日内答复。",
        no_args_is_help=True,
    )
    app.add_typer(commands, name="correction")

    @commands.command()
    def file(
        peer: Annotated[str, typer.Argument(help="The hub that holds the record. 数源节点。")],
        handle: Annotated[
            str, typer.Option(help="Of the certificate, as its index announces it: 32 hexadecimal digits. 证照标识。")
        ],
        field: Annotated[
            str, typer.Option(help="What is wrong: status, valid_to, holder.<role>, attributes.<name>. 有误的字段。")
        ],
        expected: Annotated[str | None, typer.Option(help="What it should be. 应为。")] = None,
        why: Annotated[str | None, typer.Option(help="Why. 理由。")] = None,
        found: Annotated[str | None, typer.Option(help="What it is said to be. 现为。")] = None,
        evidence: Annotated[
            str | None, typer.Option(help="Where the evidence is: a case, a file number. 凭证编号。")
        ] = None,
        said: Annotated[
            str | None,
            typer.Option(
                "--from",
                metavar="FILE",
                help="JSON with expected, why, found, evidence; - reads standard input. 从文件或标准输入读取，避免出现在命令历史中。",
            ),
        ] = None,
        agreement: Annotated[str | None, typer.Option(metavar="ID", help="Under this agreement. 依据的协议。")] = None,
        json: Json = False,
    ) -> None:
        """File an error with the hub that holds the record. The same again is filed once. 向数源节点提出校核。

        What is said may name people: from a file, it stands in no history of commands. It is kept encrypted on both sides.

        Examples:

        [bold]yici correction file zj --handle b9bbb5502021c0966d380590bdaf47d0 --field valid_to --from -[/]

        [bold]yici correction file zj --handle b9bb… --field status --expected revoked --why "revoked on 2026-03-01"[/]
        """
        from hub.cli import output
        from hub.exchange import agreements, corrections

        named = agreements.named(agreement) if agreement else None
        content = _said({"expected": expected, "why": why, "found": found, "evidence": evidence}, said)
        _tell(corrections.file(peer, handle, field, content, actor=output.actor(), agreement=named), json)

    @commands.command(name="list")
    def list_(
        peer: Annotated[str | None, typer.Option(help="Only with this hub. 仅限该节点。")] = None,
        open_: Annotated[bool, typer.Option("--open", help="Only those not answered. 仅未答复。")] = False,
        overdue: Annotated[bool, typer.Option("--overdue", help="Only those past their day. 仅逾期未答复。")] = False,
        json: Json = False,
    ) -> None:
        """List corrections, the most urgent first; what is overdue is marked. 列出校核，逾期者标出。

        Examples:

        [bold]yici correction list --open[/]

        [bold]yici correction list --overdue --json[/]
        """
        from hub.cli import output
        from hub.exchange import corrections

        found = corrections.every(peer=peer, open_=open_, overdue=overdue)
        if json:
            output.json([one.shown() for one in found])
            return
        columns = (
            "id 编号",
            "hub 节点",
            "side 角色",
            "material 材料",
            "field 字段",
            "filed 提出",
            "due 期限",
            "state 状态",
        )
        output.table(columns, [_row(one) for one in found])

    @commands.command()
    def show(id_: Id, json: Json = False) -> None:
        """Show one correction with what was said of it. 显示校核及其内容。

        Example: [bold]yici correction show 0199c0de[/]
        """
        from hub.cli import output
        from hub.exchange import corrections

        one, content = corrections.show(corrections.named(id_))
        words = {name: getattr(content.said, name) for name in ("expected", "found", "why", "evidence")}
        if json:
            output.json({**one.shown(), **words, "reason": content.reason})
            return
        for name, value in {**one.shown(), **words, "reason": content.reason}.items():
            if value is not None:
                typer.echo(f"{name:<12} {value}")

    @commands.command()
    def answer(
        id_: Id,
        outcome: Annotated[str, typer.Argument(help="corrected, confirmed or refused. 已更正、核实无误、不予受理。")],
        reason: Annotated[str | None, typer.Option(help="Why; the other hub is told. 理由，会告知对方。")] = None,
        json: Json = False,
    ) -> None:
        """Answer a correction filed with this hub; where the other is away it is told later. 答复他方提出的校核。

        corrected: the error is put right at its source; the other hub sees the fix come through the feed. confirmed: it is right
        as it is. refused: it is not looked into.

        Examples:

        [bold]yici correction answer 0199c0de corrected[/]

        [bold]yici correction answer 0199c0de confirmed --reason "checked against the paper register"[/]
        """
        from hub.cli import output
        from hub.exchange import corrections

        _tell(corrections.answer(corrections.named(id_), outcome, reason, actor=output.actor()), json)


def _said(options: dict[str, str | None], source: str | None) -> Said:
    """What is said, from the options or from a file. UsageError ``correction-said``, ``correction-file-missing``."""
    import sys
    from pathlib import Path

    import msgspec

    from connectors.errors import UsageError
    from hub.exchange.correction_messages import Said

    try:
        if source is None:
            return msgspec.convert({name: value for name, value in options.items() if value is not None}, Said)
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        return msgspec.json.decode(data, type=Said)
    except (msgspec.ValidationError, msgspec.DecodeError):
        raise UsageError("correction-said") from None
    except OSError:
        raise UsageError("correction-file-missing", file=source) from None


def _tell(one: Correction, json: bool) -> None:
    from connectors import messages
    from hub.cli import output

    if json:
        output.json(one.shown())
    else:
        typer.echo(f"{one.id} {one.state}, due 期限 {one.due_on}", err=True)
    if one.problem is not None:
        typer.echo(messages.text("correction-told-later", None, peer=one.peer), err=True)


def _row(one: Correction) -> tuple[Any, ...]:
    from hub.clock import CHINA

    state = one.state
    if one.overdue:
        state = "OVERDUE 逾期"
    elif one.state == "corrected" and not one.owner:
        state = f"corrected, {'seen 已见更新' if one.seen_at else 'not seen yet 未见更新'}"
    side = "to answer 待答复方" if one.owner else "filed here 提出方"
    if not one.told:
        state += ", not told yet 未送达"
    return (
        str(one.id),
        one.peer,
        side,
        one.material,
        one.field,
        f"{one.filed_at.astimezone(CHINA):%Y-%m-%d}",
        str(one.due_on),
        state,
    )
