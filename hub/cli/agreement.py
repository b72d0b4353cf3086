"""``yici agreement``: what is shared with which hub, under which terms, signed by both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hub.exchange.agreement_acts import Done

Id = Annotated[
    str, typer.Argument(metavar="ID", help="Of the agreement, or how it begins. 协议编号，可只写开头。")
]  # fmt: skip
Reason = Annotated[
    str | None, typer.Option(help="Why, naming nobody; the other hub is told. 原因，不得含个人信息，会告知对方。")
]
Version = Annotated[int | None, typer.Option("--version", help="Not the latest version. 版本号，默认最新。")]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout. 以 JSON 输出。")]


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="Agreements with partner hubs: both sign, nothing else is shared. 与伙伴节点的共享协议。",
        no_args_is_help=True,
    )
    app.add_typer(commands, name="agreement")
    _proposals(commands)
    _words(commands)
    _looks(commands)


def _proposals(commands: typer.Typer) -> None:
    @commands.command()
    def propose(
        peer: Annotated[str, typer.Argument(help="The hub to agree with. 对方节点。")],
        file: Annotated[
            Path | None, typer.Argument(metavar="[FILE.yml]", help="The terms. 协议条款文件。", show_default=False)
        ] = None,
        template: Annotated[
            bool, typer.Option("--template", help="Print a commented file. 输出带注释的模板。")
        ] = False,
        json: Json = False,
    ) -> None:
        """Sign terms and propose them to a hub; in force once it accepts. 签署并提出协议，对方接受后生效。

        Either side may propose: the one that gives, or the one that asks for data. A file with the id of an agreement proposes
        its next version, which takes the place of the one before when it is accepted.

        Examples:
        [bold]yici agreement propose sh --template > agreement.yml[/]
        [bold]yici agreement propose sh agreement.yml[/]
        """
        from hub.cli import output
        from hub.exchange import agreement_acts

        if template:
            typer.echo(_template(peer), nl=False)
            return
        if file is None:
            raise typer.BadParameter("FILE.yml or --template")
        _tell(agreement_acts.propose(peer, file, output.actor()), json)

    @commands.command()
    def accept(
        id_: Id,
        version: Version = None,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask. 不再询问。")] = False,
        json: Json = False,
    ) -> None:
        """Sign what a hub proposed: it is in force once that hub has heard so. 接受对方提出的协议并签名。

        Where that hub was away, the same again tells it again.

        Example: [bold]yici agreement accept 0199c0de[/]
        """
        from hub.cli import output
        from hub.exchange import agreement_acts, agreements

        named = agreements.named(id_)
        if not yes:
            _print(_found(named, version), err=True)
            typer.confirm("Sign this? 签署以上协议？", abort=True, err=True)
        _tell(agreement_acts.accept(named, output.actor(), version), json)

    @commands.command()
    def decline(id_: Id, reason: Reason = None, version: Version = None, json: Json = False) -> None:
        """Decline what a hub proposed, or withdraw what this one did. 拒绝对方的提议，或撤回本节点的提议。

        Example: [bold]yici agreement decline 0199c0de --reason "scope too wide"[/]
        """
        from hub.cli import output
        from hub.exchange import agreement_acts, agreements

        _tell(agreement_acts.decline(agreements.named(id_), output.actor(), reason, version), json)


def _words(commands: typer.Typer) -> None:
    @commands.command()
    def suspend(id_: Id, reason: Reason = None, json: Json = False) -> None:
        """Suspend an agreement at once: nothing is given or asked under it. 中止协议，立即生效。

        It counts here even while the other hub is away, which is told as soon as it is back; the same again tells it again.

        Example: [bold]yici agreement suspend 0199c0de --reason "queries outside the scenario"[/]
        """
        from hub.cli import output
        from hub.exchange import agreement_acts, agreements

        _tell(agreement_acts.suspend(agreements.named(id_), output.actor(), reason), json)

    @commands.command()
    def resume(id_: Id, reason: Reason = None, json: Json = False) -> None:
        """Take back this hub's suspension, and its wish for an end. 恢复协议，并撤回终止意向。

        Where the other hub suspends it too, it stays suspended until that one resumes.

        Example: [bold]yici agreement resume 0199c0de[/]
        """
        from hub.cli import output
        from hub.exchange import agreement_acts, agreements

        _tell(agreement_acts.resume(agreements.named(id_), output.actor(), reason), json)

    @commands.command()
    def end(id_: Id, reason: Reason = None, json: Json = False) -> None:
        """End an agreement before its term, once the other hub does too. 提前终止协议，须双方均提出。

        Nobody ends it alone (Order 809, Art. 27): until the other side says the same, it is in force; suspend it to stop it now.
        任何一方不得单独终止；需要立即停止时请使用 suspend。

        Example: [bold]yici agreement end 0199c0de --reason "replaced by the national interface"[/]
        """
        from hub.cli import output
        from hub.exchange import agreement_acts, agreements

        _tell(agreement_acts.end(agreements.named(id_), output.actor(), reason), json)

    @commands.command()
    def tell(
        peer: Annotated[str | None, typer.Argument(help="Only this hub. 仅该节点。", show_default=False)] = None,
        json: Json = False,
    ) -> None:
        """Tell hubs what they have not confirmed yet; the service does so by itself. 重新告知对方尚未确认的事项。

        Example: [bold]yici agreement tell sh[/]
        """
        from hub.cli import output
        from hub.exchange import agreement_acts

        done = agreement_acts.tell_all(peer)
        if json:
            output.json(
                [
                    {"agreement": named, "told": not problem, "problem": problem and problem.code}
                    for named, problem in done.items()
                ]
            )
            return
        for named, problem in done.items():
            typer.echo(f"{named}: {problem or 'told 已告知'}", err=True)

    @commands.command()
    def rotate(id_: Id, json: Json = False) -> None:
        """Begin a new epoch of its index: all ids change, the receiver reads anew. 更换索引期次。

        It happens by itself every epoch_days; do it when this hub's store was put back to an older state.

        Example: [bold]yici agreement rotate 0199c0de[/]
        """
        import datetime as dt

        from hub.cli import output
        from hub.exchange import agreements, epochs

        named = agreements.named(id_)
        epoch = epochs.renew(named, dt.datetime.now(dt.UTC))
        if json:
            output.json({"id": named, "epoch": epoch})
        else:
            typer.echo(f"{named} epoch {epoch}", err=True)


def _looks(commands: typer.Typer) -> None:
    @commands.command()
    def show(
        id_: Id,
        version: Version = None,
        yaml: Annotated[
            bool, typer.Option("--yaml", help="Its terms as a file to change and propose. 输出可编辑的条款文件。")
        ] = False,
        json: Json = False,
    ) -> None:
        """Show the terms of an agreement, how it stands and who decided what. 查看协议条款、状态与经过。

        Examples:
        [bold]yici agreement show 0199c0de[/]
        [bold]yici agreement show 0199c0de --yaml > agreement.yml[/]
        """
        from hub.cli import output
        from hub.exchange import agreement_terms, agreements

        row = _found(agreements.named(id_), version)
        if yaml:
            typer.echo(agreement_terms.written(agreements.opened(row).terms), nl=False)
        elif json:
            output.json(_whole(row))
        else:
            _print(row)

    @commands.command(name="list")
    def list_(
        peer: Annotated[str | None, typer.Argument(help="Only with this hub. 仅该节点。", show_default=False)] = None,
        all_: Annotated[bool, typer.Option("--all", help="Every version. 全部版本。")] = False,
        json: Json = False,
    ) -> None:
        """List agreements and how they stand; with --all those that no longer count. 列出协议及状态。

        Examples: [bold]yici agreement list[/] · [bold]yici agreement list sh --all --json[/]
        """
        from hub import database
        from hub.cli import output
        from hub.exchange import agreements

        with database.engine().connect() as connection:
            rows = agreements.every(connection, peer)
        found = [row for row in rows if all_ or row.state in ("proposed", *agreements.LIVE)]
        if json:
            output.json([_short(row) for row in found])
            return
        output.table(
            ("agreement 协议", "peer 伙伴", "role 角色", "state 状态", "modes 方式", "materials 材料", "term 期限"),
            [
                (
                    each["agreement"],
                    each["peer"],
                    "gives 提供" if each["provider"] else "receives 接收",
                    _standing(each),
                    "\n".join(each["modes"]),
                    "\n".join(each["materials"]),
                    f"{_moment(each['valid_from'])}\n{_moment(each['valid_to'])}",
                )
                for each in map(_short, found)
            ],
        )


def _template(name: str) -> str:
    import datetime as dt

    from hub import database, signing
    from hub.clock import today
    from hub.exchange import agreement_terms, peers

    with database.engine().connect() as connection:
        peer = peers.of(connection, name)
    own = signing.publisher()
    return agreement_terms.template(own.hub, peer.name, own.region, today(dt.datetime.now(dt.UTC)))


def _found(named: Any, version: int | None) -> sa.Row[Any]:
    from connectors.errors import UsageError
    from hub import database
    from hub.exchange import agreement_states, agreements

    with database.engine().connect() as connection:
        rows = agreements.versions(connection, named)
    if not rows:  # with a hub that is no peer any more
        raise UsageError("agreement-unknown")
    return agreement_states.version(rows, version or rows[0].version)


def _tell(done: Done, json: bool) -> None:
    from hub.cli import output

    if json:
        problem = done.problem.code if done.problem else None
        output.json({"agreement": done.agreement, "state": done.state, "told": not problem, "problem": problem})
        return
    typer.echo(f"{done.agreement} {_WORDS[done.state]}", err=True)
    if done.problem:
        typer.echo(
            f"not confirmed by the other hub yet, it will be told again 对方尚未确认，将再次告知: {done.problem}",
            err=True,
        )


def _short(row: sa.Row[Any]) -> dict[str, Any]:
    """What can be said of a version without opening it: one that was altered is shown as such."""
    from connectors.errors import YiciError
    from hub.exchange import agreements

    told = {
        "agreement": f"{row.id}/{row.version}",
        "peer": row.peer,
        "provider": row.provider,
        "state": row.state,
        "suspended_by": row.suspended_by,
        "ended_by": row.ended_by,
        "signed_here": row.own_signature is not None,
        "signed_there": row.peer_signature is not None,
        "valid_from": row.valid_from,
        "valid_to": row.valid_to,
        "replaced_at": row.replaced_at,
        "epoch": row.epoch,
        "untold": [owed["kind"] for owed in row.untold],
    }
    try:
        terms = agreements.opened(row).terms
    except YiciError:
        return {**told, "state": "broken", "modes": [], "materials": []}
    return {**told, "modes": terms.modes, "materials": list(terms.materials)}


def _whole(row: sa.Row[Any]) -> dict[str, Any]:
    from hub.exchange import agreement_terms, agreements

    terms = agreements.opened(row).terms
    return {
        **_short(row),
        "terms": terms.model_dump(mode="json"),
        "conditions": {code: each.sharing.conditions for code, each in agreement_terms.conditions(terms).items()},
        "digest": agreement_terms.digest(bytes(row.document)),
        "document": bytes(row.document).decode(),
        "own_signature": row.own_signature,
        "peer_signature": row.peer_signature,
        "history": row.history,
    }


def _print(row: sa.Row[Any], *, err: bool = False) -> None:
    from rich.table import Table

    from hub.cli import output
    from hub.exchange import agreement_terms, agreements

    terms = agreements.opened(row).terms
    conditions = agreement_terms.conditions(terms)
    shown = Table(show_header=False, title=terms.reference, title_justify="left")
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for name, said in (
        ("state 状态", _standing(_short(row))),
        ("provider → receiver", f"{terms.provider} → {terms.receiver}"),
        ("basis 使用依据", f"{terms.basis.zh}\n{terms.basis.en}"),
        ("scenario 使用场景", f"{terms.scenario.zh}\n{terms.scenario.en}"),
        ("materials 使用范围", "\n".join(f"{code}: {_fields(fields)}" for code, fields in terms.materials.items())),
        (
            "conditions 有条件共享",
            "\n".join(f"{code}: {_condition(each)}" for code, each in conditions.items()) or "-",
        ),
        ("regions 区划", ", ".join(terms.regions)),
        ("modes 共享方式", ", ".join(terms.modes)),
        ("purposes 用途", ", ".join(terms.purposes)),
        ("term 使用时限", f"{_moment(terms.valid_from)} – {_moment(terms.valid_to)}"),
        ("consent 申请人同意", terms.consent),
        ("epoch 索引期次", f"{row.epoch or '-'}, {terms.epoch_days} d"),
        ("correction 校核", "yes 是" if terms.correction else "no 否"),
        ("SHA-256", agreement_terms.digest(bytes(row.document))),
        (
            "history 经过",
            "\n".join(
                " ".join(
                    filter(None, (each["at"][:19] + "Z", each["hub"], each["kind"], each["actor"], each["reason"]))
                )
                for each in row.history
            ),
        ),
    ):
        shown.add_row(name, _escaped(said))
    (output.messages() if err else output.console()).print(shown)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _fields(fields: Any) -> str:
    return fields if isinstance(fields, str) else ", ".join(fields) or "(held or not 仅是否持有)"


def _condition(material: Any) -> str:
    said = material.sharing.conditions
    return f"{said.zh} {said.en}" if said else "-"


def _standing(told: dict[str, Any]) -> str:
    said = [_WORDS[told["state"]]]
    if told["suspended_by"]:
        said.append(f"by {', '.join(told['suspended_by'])}")
    if told["ended_by"] and told["state"] != "ended":
        said.append(f"end wanted by {', '.join(told['ended_by'])} 已提出终止")
    if told["state"] == "proposed":
        said.append("accepted here 本方已接受" if told["signed_here"] and told["signed_there"] else
                    "waits for them 待对方处理" if told["signed_here"] else "waits for us 待本方处理")  # fmt: skip
    if told["replaced_at"] and told["state"] in ("in_force", "suspended"):
        said.append(f"until {_moment(told['replaced_at'])}")
    if told["untold"]:
        said.append("not confirmed by them yet 对方尚未确认")
    return "\n".join(said)


def _moment(moment: Any) -> str:
    from hub.clock import CHINA

    return str(moment.astimezone(CHINA).strftime("%Y-%m-%d %H:%M"))


_WORDS = {
    "proposed": "proposed 已提出",
    "in_force": "in force 生效",
    "suspended": "suspended 已中止",
    "superseded": "superseded 已被取代",
    "ended": "ended 已终止",
    "declined": "declined 已拒绝或撤回",
    "broken": "altered in the store 存储被改动",
}
