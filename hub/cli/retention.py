"""``yici checkpoint`` and ``yici retention``: what a rebuild can start from, and what is then no longer needed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Period = Annotated[str, typer.Option(metavar="PERIOD", help="Such as 36m or 3y, beside the current month.")]
Name = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="See `yici checkpoint list`.")]
MEGABYTE = 1_000_000


def register(app: typer.Typer) -> None:
    _checkpoints(app)
    _retention(app)


def _checkpoints(app: typer.Typer) -> None:
    commands = typer.Typer(help="What a rebuild can start from. 检查点。", invoke_without_command=True)
    app.add_typer(commands, name="checkpoint")

    @commands.callback()
    def write(
        context: typer.Context,
        history: Annotated[
            bool, typer.Option(help="With the versions that ended: what `--as-of` answers from.")
        ] = True,
        json: Json = False,
    ) -> None:
        """Write the store, as of one moment, into the landing zone; [bold]yici rebuild --checkpoint latest[/] starts from it.

        Sources may run meanwhile. Stopped or killed, it leaves no checkpoint. It holds personal data, as what has landed
        does. Write one after every upgrade, and before [bold]yici retention apply[/]. 把存储的当前状态写入落地区。

        Examples: [bold]yici checkpoint[/] · [bold]yici checkpoint --no-history --json[/]
        """
        if context.invoked_subcommand:
            return
        from connectors.landing import Landing
        from hub import checkpoint, database, home, state
        from hub.cli import output

        landing = Landing(home.current().landing_url)
        with output.messages().status("checkpoint") as status, state.snapshot(database.engine()) as connection:
            name = checkpoint.write(
                connection, landing, history=history, progress=_progress(status, "checkpoint 检查点")
            )
        _tell(checkpoint.read(landing, name).shown(), json)

    @commands.command("list")
    def list_(json: Json = False) -> None:
        """Complete checkpoints, oldest first. 列出检查点。"""
        from connectors.landing import Landing
        from hub import checkpoint, home
        from hub.cli import output

        landing = Landing(home.current().landing_url)
        found = [checkpoint.read(landing, name).shown() for name in checkpoint.names(landing)]
        if json:
            output.json(found)
            return
        output.table(
            ("checkpoint", "taken_at", "revision", "ledger rows", "MB", "batches under way"),
            [
                (item["checkpoint"], item["taken_at"], item["revision"], item["rows"].get("row_ledger", 0),
                 round(item["bytes"] / MEGABYTE, 1), len(item["batches_under_way"]))
                for item in found
            ],
        )  # fmt: skip

    @commands.command()
    def verify(name: Name, json: Json = False) -> None:
        """Read every file of a checkpoint and compare its digest. 校验检查点文件。"""
        from connectors.landing import Landing
        from hub import checkpoint, home
        from hub.cli import output

        landing = Landing(home.current().landing_url)
        found = checkpoint.read(landing, name)
        with output.messages().status("verify") as status:
            checkpoint.verify(landing, found, _progress(status, "verify 校验"))
        _tell(found.shown(), json)

    @commands.command()
    def drop(name: Name, json: Json = False) -> None:
        """Delete a checkpoint. What retention dropped because of it cannot be rebuilt without. 删除检查点。"""
        from connectors.landing import Landing
        from hub import checkpoint, home
        from hub.cli import output

        checkpoint.drop(Landing(home.current().landing_url), name)
        if json:
            output.json({"dropped": name})


def _retention(app: typer.Typer) -> None:
    commands = typer.Typer(help="What is kept how long. 保存期限。", no_args_is_help=True)
    app.add_typer(commands, name="retention")

    @commands.command()
    def show(
        keep_landing: Period = "36m",
        keep_history: Period = "36m",
        keep_feed: Period = "36m",
        keep_answers: Period = "36m",
        keep_exchange: Period = "36m",
        keep_checkpoints: Annotated[int, typer.Option(min=1, help="So many, the newest.")] = 2,
        json: Json = False,
    ) -> None:
        """Months of landed bytes, history, feed, answers and exchange, and checkpoints: what is old, what holds it back. 查看。

        Example: [bold]yici retention show --keep-landing 5y[/]
        """
        from connectors.landing import Landing
        from hub import database, home, retention
        from hub.cli import output

        keep = _keep(keep_landing, keep_history, keep_feed, keep_answers, keep_checkpoints, keep_exchange)
        with output.messages().status("retention"), database.engine().connect() as connection:
            items = retention.plan(connection, Landing(home.current().landing_url), keep)
        _show(items, json)

    @commands.command()
    def apply(
        keep_landing: Period = "36m",
        keep_history: Period = "36m",
        keep_feed: Period = "36m",
        keep_answers: Period = "36m",
        keep_exchange: Period = "36m",
        keep_checkpoints: Annotated[int, typer.Option(min=1, help="So many, the newest.")] = 2,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
        json: Json = False,
    ) -> None:
        """Drop what is old and no longer needed, each month whole. It cannot be undone. 清理。

        Records of government services are evidence: keep less than three years only where the law allows it; the ledger of
        the exchange is never kept for less. Stopped or killed, it goes on when it is run again.

        Examples: [bold]yici retention apply --dry-run[/] · [bold]yici checkpoint && yici retention apply[/]
        """
        from connectors.landing import Landing
        from hub import database, home, retention
        from hub.cli import output

        keep = _keep(keep_landing, keep_history, keep_feed, keep_answers, keep_checkpoints, keep_exchange)
        landing = Landing(home.current().landing_url)
        with output.messages().status("retention") as status:
            if dry_run:
                with database.engine().connect() as connection:
                    dropped = [item for item in retention.plan(connection, landing, keep) if item.due]
            else:
                dropped = list(retention.apply(landing, keep, progress=_progress(status, "retention 清理")))
            with database.engine().connect() as connection:
                held = [item for item in retention.plan(connection, landing, keep) if item.held]
        if json:
            output.json({
                "dry_run": dry_run,
                "dropped": [item.shown() for item in dropped],
                "held": [item.shown() for item in held],
            })  # fmt: skip
            return
        verb = "would go 将清理" if dry_run else "dropped 已清理"
        for item in dropped:
            output.console().print(f"{verb}: {item.kind} {item.name}", markup=False)
        for item in held:
            output.console().print(f"stays 保留: {item.kind} {item.name}: {item.shown()['why']}", markup=False)
        if not dropped and not held:
            output.console().print("nothing is old enough 没有到期内容")


def _keep(landing: str, history: str, feed: str, answers: str, checkpoints: int, exchange: str) -> Any:
    from hub.retention import Keep, months_of

    return Keep(
        landing=months_of(landing),
        history=months_of(history),
        feed=months_of(feed),
        answers=months_of(answers),
        checkpoints=checkpoints,
        exchange=months_of(exchange),
    )


def _progress(status: Any, what: str) -> Any:
    def progress(part: str, done: int, total: int) -> None:
        status.update(f"{what}: {part} {done + 1}/{total}")

    return progress


def _tell(shown: dict[str, Any], json: bool) -> None:
    from hub.cli import output

    if json:
        output.json(shown)
        return
    rows = ", ".join(f"{table} {count:,}" for table, count in shown["rows"].items() if count)
    output.console().print(
        f"checkpoint {shown['checkpoint']}: {shown['bytes'] / MEGABYTE:.1f} MB: {rows}", markup=False
    )
    if shown["batches_under_way"]:
        output.console().print(f"batches under way 未结束的批次: {', '.join(shown['batches_under_way'])}", markup=False)


def _show(items: list[Any], json: bool) -> None:
    from hub.cli import output

    if json:
        output.json([item.shown() for item in items])
        return
    output.table(
        ("what", "month", "files or rows", "MB", "old", "what becomes of it"),
        [
            (item.kind, item.name, item.count, round(item.size / MEGABYTE, 1), "yes 是" if item.old else "",
             item.shown()["why"] or ("goes 将清理" if item.due else ""))
            for item in items
        ],
    )  # fmt: skip
