"""``yici agreement``: what is shared with which hub, under which terms, signed by both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli import agreement_view

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
            agreement_view.show(_found(named, version), err=True)
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

        Nobody ends it alone (Order 809, Art. 27): until the other side says the same, it stays as it is; suspend it to stop it now.
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
            output.json(agreement_view.whole(row))
        else:
            agreement_view.show(row)

    @commands.command(name="list")
    def list_(
        peer: Annotated[str | None, typer.Argument(help="Only with this hub. 仅该节点。", show_default=False)] = None,
        all_: Annotated[bool, typer.Option("--all", help="Every version. 全部版本。")] = False,
        json: Json = False,
    ) -> None:
        """List agreements and how they stand; with --all those that were ended, declined or replaced. 列出协议及状态。

        One whose term is over stays, as expired, until a new version takes its place or both sides ended it.

        Examples: [bold]yici agreement list[/] · [bold]yici agreement list sh --all --json[/]
        """
        from hub import database
        from hub.cli import output
        from hub.exchange import agreements

        with database.engine().connect() as connection:
            rows = agreements.every(connection, peer)
        kept = [agreement_view.short(row) for row in rows if all_ or row.state in ("proposed", *agreements.LIVE)]
        found = [told for told in kept if all_ or told["state"] != "superseded"]
        if json:
            output.json(found)
            return
        output.table(
            ("agreement 协议", "peer 伙伴", "role 角色", "state 状态", "modes 方式", "materials 材料", "term 期限"),
            [
                (
                    each["agreement"],
                    each["peer"],
                    "gives 提供" if each["provider"] else "receives 接收",
                    agreement_view.standing(each),
                    "\n".join(each["modes"]),
                    "\n".join(each["materials"]),
                    f"{agreement_view.moment(each['valid_from'])}\n{agreement_view.moment(each['valid_to'])}",
                )
                for each in found
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
    if not rows:
        raise UsageError("agreement-unknown")
    return agreement_states.version(rows, version or rows[0].version)


def _tell(done: Done, json: bool) -> None:
    from hub.cli import output
    from hub.exchange import agreements

    found = agreements.parsed(done.agreement)
    assert found is not None
    told = agreement_view.short(_found(*found))
    if json:
        problem = done.problem.code if done.problem else None
        words = {name: told[name] for name in ("state", "suspended_by", "ended_by")}
        output.json({"agreement": done.agreement, **words, "told": not problem, "problem": problem})
        return
    untold = {**told, "untold": []}  # said below, with the reason
    typer.echo(f"{done.agreement} {' · '.join(agreement_view.standing(untold).splitlines())}", err=True)
    if done.problem:
        typer.echo(
            f"not confirmed by the other hub yet, it will be told again 对方尚未确认，将再次告知: {done.problem}",
            err=True,
        )
