"""``yici verify`` and ``yici rebuild``: is the store what its ledger says, and making it anew from the landing zone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hub.rebuild import Rebuilt
    from hub.verify import Report

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(app: typer.Typer) -> None:
    @app.command()
    def verify(
        read_bytes: Annotated[
            bool, typer.Option("--bytes", help="Also read every landed file and compare its SHA-256.")
        ] = False,
        digest: Annotated[bool, typer.Option("--digest", help="Only print the state digest, part by part.")] = False,
        mend: Annotated[
            bool,
            typer.Option(
                "--mend",
                help="Make the head of the feed anew where it is lost, add to the landing zone's journal the merges it lacks, take back decisions about identity and releases of quarantined rows that were cut off before they took effect, and make index entries anew that do not follow from what partner hubs announced; then verify.",
            ),
        ] = False,
        json: Json = False,
    ) -> None:
        """Recompute all that is held from the ledger and compare; check the landing zone. 核验存储与落地区。

        Works beside a running hub: one moment is read, nothing waits. Exit code 0: nothing differs; 1: something does.

        Examples:

        [bold]yici verify[/]

        [bold]yici verify --bytes --json[/]

        [bold]yici verify --digest[/]
        """
        from hub import database, feed_head, identity_decisions, index_entries, journal, releases, state
        from hub import verify as verifying
        from hub.cli import output

        if digest:
            with state.snapshot() as connection:
                parts = state.digest(connection)
            if json:
                output.json(parts)
            else:
                output.table(("part", "digest"), list(parts.items()))
            return
        if mend:
            with database.engine().begin() as connection:
                head = feed_head.mend(connection)
            with database.engine().connect() as connection:
                added = journal.mend(connection)
            output.messages().print(f"feed head 变更流位置: +{int(head)}")
            output.messages().print(f"journal 合并日志: +{added}")
            engine = database.engine()
            taken_back = identity_decisions.take_back_unfinished(engine) + releases.take_back(engine)
            output.messages().print(f"decisions 决定: -{taken_back}")
            output.messages().print(f"entries 索引条目: {index_entries.mend_all()}")
        with output.messages().status("verify") as status:
            report = verifying.verify(
                read_bytes=read_bytes,
                progress=lambda check, done, total: status.update(f"verify 核验: {check} {done + 1}/{total}"),
            )
        if json:
            output.json(report.shown())
        else:
            _show(report)
        if not report.ok:
            raise typer.Exit(1)

    @app.command()
    def rebuild(
        into: Annotated[
            str | None,
            typer.Option(
                metavar="URL",
                envvar="YICI_REBUILD_URL",
                help="A fresh PostgreSQL database; without it the store of this home.",
            ),
        ] = None,
        replace: Annotated[
            bool,
            typer.Option("--replace", help="The store may hold something: replace it once the new one is complete."),
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        checkpoint: Annotated[
            str | None, typer.Option(metavar="NAME", help="Start from this checkpoint, or from the `latest`.")
        ] = None,
        drop_old: Annotated[
            bool,
            typer.Option("--drop-old", help="Drop the replaced store at the end; else it is kept under another name."),
        ] = False,
        json: Json = False,
    ) -> None:
        """Make the store anew from the landing zone, decisions included. 由落地区重建存储。

        The old store is not touched before the new one is complete. Stopped or killed, it goes on when it is run again; with
        another checkpoint, or without one, it begins anew.
        Agreements, peers, answers given and the exchange with its ledger, which no source ever said, are carried over from
        the old store.

        Examples:

        [bold]yici rebuild --into postgresql://…/fresh[/]

        [bold]yici down && yici rebuild --replace[/]

        [bold]yici rebuild --replace --checkpoint latest --yes --json[/]
        """
        from hub import rebuild as rebuilding
        from hub.cli import output

        def confirm(name: str) -> bool:
            return yes or typer.confirm(
                f"Replace database {name} once the new one is complete? 重建完成后替换 {name}？", err=True
            )

        with output.messages().status("rebuild") as status:

            def progress(step: str, done: int, total: int) -> None:
                status.update(f"rebuild 重建: {step}" + (f" {done + 1}/{total}" if total else ""))

            def ask(name: str) -> bool:
                status.stop()
                answer = confirm(name)
                status.start()
                return answer

            result = rebuilding.rebuild(
                into, replace=replace, from_checkpoint=checkpoint, drop_old=drop_old, confirm=ask, progress=progress
            )
        if json:
            output.json(result.shown())
        else:
            _told(result)


def _show(report: Report) -> None:
    from hub.cli import output

    console = output.console()
    if report.ok:
        console.print(f"nothing differs 完全一致: {', '.join(report.checked)}")
    for found in report.differences:
        console.print(f"[bold red]✗[/] {found.check}: ", end="")
        console.print(found.sentence(), markup=False)
        console.print("  " + " · ".join(found.keys) + (" …" if found.found > len(found.keys) else ""), markup=False)
        if advice := found.advice():
            console.print(f"  → {advice}", markup=False)
    console.print(f"state digest 状态摘要: {report.digest['all']}")


def _told(result: Rebuilt) -> None:
    from connectors import messages
    from hub.cli import output

    console = output.console()
    shown = result.shown()
    names = ("batches", "rows", "released", "decisions", "never_merged")
    output.table(names, [[shown[name] for name in names]], title=f"{result.database}")
    for code, values in (
        ("rebuilt-contracts-changed", {"sources": ", ".join(shown["contracts_changed"])}),
        ("rebuilt-approved-again", {"batches": ", ".join(shown["approved_again"])}),
        ("rebuilt-differs", {"parts": ", ".join(result.other)}),
        ("rebuilt-anew", {"before": result.anew or ""}),
        ("rebuilt-before", {"name": result.before or ""}),
    ):
        if all(values.values()):
            console.print(messages.text(code, None, **values), markup=False)
    if result.carried is None:
        console.print(messages.text("rebuilt-alone"), markup=False)
    console.print(f"state digest 状态摘要: {shown['digest']}")
