"""``yici ledger``: what this hub asked other hubs and answered them, whether anybody changed it, and proofs of it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hub.exchange.ledger_verify import Report
    from hub.exchange.proofs import Checked
    from hub.exchange.witnesses import Told

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value. 以 JSON 输出。")]
Record = Annotated[str, typer.Argument(metavar="RECORD", help="Id of a record or of its message. 记录或消息编号。")]
LARGEST = 64 * 1024 * 1024  # bytes of a proof or a body


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="What was exchanged with other hubs, provably. 交换台账。", no_args_is_help=True)
    app.add_typer(commands, name="ledger")
    commands.command("list")(_list)
    commands.command()(show)
    commands.command()(verify)
    commands.command()(export)
    commands.command()(check)
    commands.command()(chain)


def _list(
    peer: Annotated[str | None, typer.Option(help="Only with this hub. 仅该节点。")] = None,
    kind: Annotated[str | None, typer.Option(help="Only such messages, e.g. index.page. 仅该类消息。")] = None,
    outcome: Annotated[str | None, typer.Option(help="ok, or the code of a problem. ok 或问题代码。")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only what did not go well. 仅未成功的。")] = False,
    since: Annotated[
        dt.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="From this day on, Beijing time. 起始日（北京时间）。"),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The latest so many. 最近若干条。")] = 50,
    json: Json = False,
) -> None:
    """The latest records, newest first. 列出最近的记录。

    Examples: [bold]yici ledger list --peer zj --refused[/] · [bold]yici ledger list --since 2026-03-01 --json[/]
    """
    from hub import database
    from hub.cli import output
    from hub.clock import CHINA
    from hub.exchange import ledger_view

    start = since.replace(tzinfo=CHINA) if since else None
    with database.engine().connect() as connection:
        found = ledger_view.listed(
            connection, peer=peer, kind=kind, outcome=outcome, refused=refused, since=start, limit=limit
        )
    if json:
        output.json(found)
        return
    output.table(
        ("record 记录", "at 时间", "peer 节点", "direction", "kind 类别", "outcome 结果", "position 位置"),
        [
            (one["record"], one["recorded_at"], one["peer"], one["direction"], one["kind"], one["outcome"], one["position"])
            for one in found
        ],
    )  # fmt: skip


def show(record: Record, json: Json = False) -> None:
    """All of one record: what was said, by whom it is signed, where it stands in the chain. 查看一条记录。

    Example: [bold]yici ledger show 0195504e-87c0-7000-8000-000000000001[/]
    """
    from hub import database
    from hub.cli import output
    from hub.exchange import ledger_view

    with database.engine().connect() as connection:
        found = ledger_view.shown(connection, record)
    if json:
        output.json(found)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            output.console().print(f"{name}:", markup=False)
            for member, told in value.items():
                output.console().print(f"  {member:<12} {told}", markup=False)
        else:
            output.console().print(f"{name:<14} {'-' if value is None else value}", markup=False)


def verify(
    ask: Annotated[
        bool,
        typer.Option("--peers/--no-peers", help="Also ask peers what they heard of the ledger. 并向伙伴节点求证。"),
    ] = True,
    json: Json = False,
) -> None:
    """Find any record that was altered, removed, put in or moved, also by who could sign anew. 核验台账。

    Works beside traffic: one moment is read, nothing waits. Exit code 0: no change was found; 1: something was changed, and
    which. A peer that cannot be asked, or that knows nothing although it was told, is named, and no difference: then what could
    not be checked is said (with --json: "complete" is false), and the exit code stays 0. How far each peer knew before it was
    asked stands at the end.

    Examples: [bold]yici ledger verify[/] · [bold]yici ledger verify --no-peers --json[/]
    """
    from hub.cli import output
    from hub.exchange import ledger_verify

    with output.messages().status("verify") as status:
        report = ledger_verify.verify(
            ask=None if ask else (),
            progress=lambda what, done, total: status.update(f"verify 核验: {what} {done:,}/{total:,}"),
        )
    if json:
        output.json(report.shown())
    else:
        _report(report)
    if not report.ok:
        raise typer.Exit(1)


def export(
    record: Record,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write it there; else to stdout. 写入文件。")
    ] = None,
    json: Json = False,
) -> None:
    """Write a proof of one record that anybody verifies offline with [bold]yici ledger check[/]. 导出证明。

    It holds the signed envelopes, which name no person, and the record's place in the signed chain; bodies are kept by nobody,
    so give the one in question beside it.

    Example: [bold]yici ledger export 0195504e-87c0-7000-8000-000000000001 --to proof.json[/]
    """
    import orjson

    from hub import database
    from hub.cli import output
    from hub.exchange import proofs

    with database.engine().connect() as connection:
        proof = proofs.export(connection, record)
    if to is None:
        output.json(proof)
        return
    to.write_bytes(orjson.dumps(proof, option=orjson.OPT_INDENT_2) + b"\n")
    if json:
        output.json({"record": proof["record"]["id"], "file": str(to)})
    else:
        output.messages().print(f"{proof['record']['id']} → {to}", markup=False)


def check(
    proof: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A file of `yici ledger export`. 证明文件。")
    ],
    key: Annotated[
        list[str],
        typer.Option("--key", metavar="BASE64URL", help="Public key of a hub; may be repeated. 节点公钥，可多次给出。"),
    ],
    body: Annotated[
        Path | None,
        typer.Option("--body", exists=True, dir_okay=False, help="What was sent or came. 请求或答复的正文。"),
    ] = None,
    json: Json = False,
) -> None:
    """Verify a proof offline, with public keys alone: no store, no network, no home. 离线验证证明。

    Says what the given keys prove, and what only another key could, which may have been made up. Exit code 0: what could be checked is
    good (with --json: "complete" is true where that is all of it); 1: it is not, or nothing is signed by any of the keys.

    Examples: [bold]yici ledger check proof.json --key A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg[/] ·
    [bold]yici ledger check proof.json --key … --key … --body evidence.json[/]
    """
    import orjson

    from connectors import signature
    from connectors.errors import FatalError, UsageError
    from hub.cli import output
    from hub.exchange import proofs

    try:
        keys = [signature.public_key(text) for text in key]
    except ValueError:
        raise UsageError("proof-key-invalid") from None
    if any(file.stat().st_size > LARGEST for file in (proof, body) if file):
        raise UsageError("proof-too-large", limit=LARGEST)
    try:
        content = orjson.loads(proof.read_bytes())
    except ValueError:
        raise FatalError("proof-form") from None
    checked = proofs.verify_proof(content, keys, body.read_bytes() if body else None)
    if json:
        output.json(checked.shown())
    else:
        _checked(checked)
    if not checked.ok:
        raise typer.Exit(1)


def chain(json: Json = False) -> None:
    """Give the records that wait their places now, and sign the end; [bold]yici exchange serve[/] does so by itself. 立即编号。

    Example: [bold]yici ledger chain[/]
    """
    from hub.cli import output
    from hub.exchange import checkpoints, ledger

    done = ledger.chain()
    head = checkpoints.head()
    if json:
        output.json({"records": done, "head": head})
    else:
        output.messages().print(f"+{done} records 条记录, position 位置 {head['position'] if head else 0}")


def _report(report: Report) -> None:
    from connectors import messages
    from hub.cli import output
    from hub.exchange import witnesses

    console = output.console()
    for found in report.differences:
        console.print("[bold red]✗[/] ", end="")
        console.print(found.sentence(), markup=False)
        console.print("  " + " · ".join(found.keys) + (" …" if found.found > len(found.keys) else ""), markup=False)
        console.print(f"  → {found.advice()}", markup=False)
    if report.ok and report.complete:
        console.print("nothing was changed 未发现改动")
    elif not report.complete:
        lacking = [told for told in report.witnesses if not told.whole]
        away = ", ".join(told.peer for told in lacking if told.why)
        empty = ", ".join(told.peer for told in lacking if told.empty)
        said = [f"no answer of 未答复 {away}"] if away else []
        said += [f"nothing known to 毫不知情 {empty}"] if empty else []
        console.print("[bold yellow]![/] not fully checked 未能完全核验: ", end="")
        console.print(" · ".join(said) or "no peer was asked 未向伙伴节点求证", markup=False)
        console.print(
            "  Without every peer's word nobody can tell whether the end was cut back to an earlier signed checkpoint, or all was "
            "signed anew with the key. 缺少伙伴节点的证词，无法判断末端是否被截回到较早的签名检查点，或是否用密钥重新签名。"
        )
        if report.ok:
            console.print("  What is here is sound in itself 本地内容自洽")
    console.print(
        f"positions 位置 {report.first}-{report.last}, records 记录 {report.records:,}, "
        f"pending 待编号 {report.pending:,}, checkpoints 检查点 {report.checkpoints:,}, "
        f"witnessed up to 已见证至 {report.witnessed or '-'}"
    )
    for told in report.witnesses:
        console.print(f"{told.peer}: {told.message() or _heard(told)}", markup=False)
        if told.empty:
            console.print(f"  → {messages.advice(witnesses.EMPTY)}", markup=False)


def _heard(told: Told) -> str:
    """How far back and forward a witness knew before it was asked."""
    if not told.checkpoints:
        return "was told of no checkpoint yet 尚未被告知任何检查点"
    known = f"positions 位置 {min(told.checkpoints)}-{max(told.checkpoints)}"
    return f"knew before 此前已知 {len(told.checkpoints):,} checkpoints 检查点, {known}"


MARKS = {"good": ("✓", "green"), "bad": ("✗", "bold red"), "unchecked": ("–", "yellow")}


def _checked(checked: Checked) -> None:
    from connectors import messages
    from hub.cli import output

    console = output.console()
    for one in checked.checks:
        mark, style = MARKS[one.result]
        console.print(mark, style=style, end=" ")
        console.print(_printable(one.sentence()), markup=False)
    console.print(_printable(f"keys of 公钥所属: {', '.join(checked.signed_by) or '-'}"), markup=False)
    if checked.signed_by and checked.needs:
        advice = messages.advice("proof-unchecked", hubs=", ".join(checked.needs))
        console.print(_printable(f"  → {advice}"), markup=False)


def _printable(said: str) -> str:
    """A proof comes from elsewhere."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in said)
