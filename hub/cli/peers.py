"""``yici peer``: the hubs that this one exchanges with, and what they know each other by."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import datetime as dt

    from hub.exchange.cards import Card
    from hub.exchange.peers import Peer

Name = Annotated[str, typer.Argument(help="The peer, as `yici peer list` names it. 伙伴节点名称。")]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout. 以 JSON 输出。")]
BY_HAND = "card-by-hand"
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask. 不再询问。")]


def register(app: typer.Typer) -> None:
    from hub.cli import peer_forget

    commands = typer.Typer(
        help="Partner hubs, and what they know each other by. 伙伴节点及互认凭据。", no_args_is_help=True
    )
    app.add_typer(commands, name="peer")
    for command in (card, add, check, remove):
        commands.command()(command)
    commands.command("list")(list_)
    commands.command("rotate-key")(rotate_key)
    peer_forget.register(commands)


def card(
    title: Annotated[str | None, typer.Option(help="What to call this hub, once and for all. 本节点名称。")] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Where it is reached, https://host:port; may be repeated. 本节点地址，可多次给出。"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Print this hub's card, as JSON: who it is, where it is, its keys and certificates. 输出本节点名片（JSON）。

    The operators of another hub add it with `yici peer add`. Tell them the key (kid) by another channel, so that they can
    compare. It holds no secret. YICI_HUB and YICI_REGION, or hub.json, say who this hub is.

    Examples:
    [bold]yici peer card --title 浙江省数据局 --address https://hub.zj.example:8490 > zj.json[/]
    [bold]yici peer card | ssh sh-hub yici peer add - --kid KID[/]
    """
    import datetime as dt

    from hub.cli import output
    from hub.exchange import cards, keys

    said = {"title": title, "exchange_addresses": " ".join(address) if address else None}
    cards.settle(**{name: value for name, value in said.items() if value is not None})
    told = cards.own()
    output.json(told)
    typer.echo(f"kid 密钥编号: {keys.own().signing(dt.datetime.now(dt.UTC)).thumbprint()}", err=True)
    for entry in told["certificates"]:
        typer.echo(f"certificate 证书指纹: {entry['fingerprint']}", err=True)


def add(
    file: Annotated[
        Path, typer.Argument(metavar="CARD", help="File with the other hub's card, or -. 对方名片文件，- 为标准输入。")
    ],
    kid: Annotated[
        str | None,
        typer.Option(
            "--kid",
            metavar="KID",
            help="The key its operators told you: taken only if it is this one. 已核实的密钥编号。",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option(help="Also if it is a peer: after it lost its keys. 对方丢失密钥后重新录入。")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make another hub a peer, from its card. 录入伙伴节点名片。

    A peer may exchange nothing yet: that takes an agreement. Its later cards come by themselves, signed. A card that is older than the
    one that is known is not taken, with --replace neither.

    Examples:
    [bold]yici peer add zj.json[/]
    [bold]yici peer add zj.json --kid 1IG2tMH7J2wbJZnOf8LJzQitKf7LMvoAElsuDMVM54Y --json[/]
    """
    from connectors.errors import UsageError
    from hub import database
    from hub.cli import output
    from hub.exchange import cards, peers

    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError:
        raise UsageError("card-unreadable", file=file) from None
    told = cards.read(text)
    if kid is None and not yes:
        _describe(told)
        typer.confirm("Did its operators confirm this key? 是否已与对方核实该密钥？", abort=True, err=True)
    with database.engine().begin() as connection:
        peer = peers.add(connection, text, kid, replace=replace)
    if json:
        output.json(_shown(peer))
    else:
        typer.echo(f"{peer.name} {peer.title} is a peer 已录入", err=True)


def list_(json: Json = False) -> None:
    """List the peers, where they are and how they answer. 列出伙伴节点、地址与应答情况。

    Example: [bold]yici peer list[/]
    """
    import datetime as dt

    from hub import database
    from hub.cli import output
    from hub.exchange import peers

    with database.engine().connect() as connection:
        found = peers.every(connection)
    if json:
        output.json([_shown(peer) for peer in found])
        return
    now = dt.datetime.now(dt.UTC)
    output.table(
        ("peer 伙伴", "name 名称", "region 区划", "addresses 地址", "key 密钥", "answered 最近应答", "state 状态"),
        [
            (
                peer.name,
                peer.title,
                peer.region,
                "\n".join(peer.addresses),
                "\n".join(key["kid"] for key in _shown(peer)["keys"]),
                _moment(peer.answered_at),
                f"rests until 暂停至 {_moment(peer.rests_until)}" if peer.rests_until and peer.rests_until > now
                else f"{peer.failures} failures 次失败" if peer.failures else "ok",
            )
            for peer in found
        ],
    )  # fmt: skip


def check(
    name: Name,
    introduce: Annotated[
        bool, typer.Option(help="Send this hub's card where the peer has an older one. 对方名片较旧时发送最新名片。")
    ] = False,
    json: Json = False,
) -> None:
    """Go from here to a peer and back, step by step, and say what to do. 逐步检查与伙伴节点的连接并给出处理办法。

    Name, port, certificates both ways, clock, signature, what the peer knows of this hub, every agreement with its days left.
    Exit code 0 when no step fails, 1 when one does. With ! stands what fails nothing and wants somebody: an agreement that is over or
    waits to be accepted, or that none is in force.

    Examples:
    [bold]yici peer check zj[/]
    [bold]yici peer check zj --introduce --json[/]
    """
    from dataclasses import asdict

    from hub.cli import output
    from hub.exchange import checking

    found = []
    for step in checking.steps(name, introduce=introduce):
        found.append(step)
        if not json:
            mark, colour = ("✗", "red") if not step.ok else ("!", "yellow") if step.advice else ("✓", "green")
            typer.secho(f"{mark} {step.step:<12}{step.detail}", fg=colour)
            if step.advice:
                typer.echo(f"  → {step.advice}")
    ok = all(step.ok for step in found)
    if json:
        output.json({"peer": name, "ok": ok, "steps": [asdict(step) for step in found]})
    raise typer.Exit(0 if ok else 1)


def remove(name: Name, yes: Yes = False, json: Json = False) -> None:
    """Exchange nothing more with a peer, from now on. 移除伙伴节点，立即生效。

    Its keys stay known, so that what it said can still be proved. `yici peer add` takes it back.

    Example: [bold]yici peer remove zj --yes[/]
    """
    from hub import database
    from hub.cli import output
    from hub.exchange import peers

    if not yes:
        typer.confirm(f"Remove {name}? 移除 {name}？", abort=True, err=True)
    with database.engine().begin() as connection:
        peers.remove(connection, name)
    if json:
        output.json({"peer": name, "removed": True})
    else:
        typer.echo(f"{name} removed 已移除", err=True)


def rotate_key(
    overlap: Annotated[
        int,
        typer.Option(
            metavar="DAYS", min=0, help="How long the old key and certificate stay good. 旧密钥与证书继续有效的天数。"
        ),
    ] = 14,
    json: Json = False,
) -> None:
    """Make a new message key and TLS certificate, and tell the peers. 更换报文密钥与 TLS 证书并告知伙伴节点。

    The new ones are used when the old ones end; until then `yici exchange serve` goes on telling who could not be reached. A peer
    that heard nothing by then has to add this hub's card by hand. With 0 days it counts at once: no peer knows the new certificate, so
    nobody can be told from here, and each adds the new card by hand.

    Examples:
    [bold]yici peer rotate-key[/]
    [bold]yici peer rotate-key --overlap 2 --json[/]
    """
    import datetime as dt

    from connectors import messages
    from hub import signing
    from hub.cli import output
    from hub.exchange import keys, upkeep

    signing.publisher()
    made = keys.rotate(dt.timedelta(days=overlap))
    told = upkeep.introduce() if overlap else dict.fromkeys(upkeep.names(), BY_HAND)
    new = {"kid": made.keys[-1].name, "certificate": made.certificates[-1].name, "old_until": made.keys[-2].until}
    if json:
        output.json({**new, "told": told})
        return
    typer.echo(f"kid 密钥编号: {new['kid']}\ncertificate 证书指纹: {new['certificate']}")
    typer.echo(f"old ones good until 旧密钥有效至 {_moment(made.keys[-2].until)}")
    for peer, outcome in told.items():
        said = {"ok": "told 已告知", BY_HAND: "by hand 须手工告知"}.get(outcome, f"not told yet 尚未告知 ({outcome})")
        typer.echo(f"{peer}: {said}")
    if BY_HAND in told.values():
        typer.echo(f"{messages.text(BY_HAND)}\n  → {messages.advice(BY_HAND, kid=new['kid'])}")


def _describe(told: Card) -> None:
    lines = [
        f"{told.hub} {told.title} {told.region}",
        *told.addresses,
        *(f"kid 密钥编号: {key.kid}" for key in told.keys),
    ]
    lines += [f"certificate 证书指纹: {entry.fingerprint}" for entry in told.certificates]
    typer.echo("\n".join(lines), err=True)


def _shown(peer: Peer) -> dict[str, Any]:
    import datetime as dt

    from hub.exchange import cards

    now = dt.datetime.now(dt.UTC)
    return {
        "peer": peer.name,
        "title": peer.title,
        "region": peer.region,
        "addresses": peer.addresses,
        "keys": [
            {"kid": key.kid, "public_key": key.public_key, "from": key.since, "to": key.until}
            for key in peer.keys
            if cards.valid(key, now)
        ],
        "certificates": [
            {"fingerprint": entry.fingerprint, "from": entry.since, "to": entry.until}
            for entry in peer.certificates
            if cards.valid(entry, now)
        ],
        "card_at": peer.card_at,
        "told_at": peer.told_at,
        "answered_at": peer.answered_at,
        "failures": peer.failures,
        "rests_until": peer.rests_until,
    }


def _moment(moment: dt.datetime | None) -> str:
    return moment.astimezone().isoformat(timespec="minutes") if moment else "-"
