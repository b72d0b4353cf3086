"""``yici identity match`` and ``yici identity review``: rows without a usable identifier, whom they may be about, and deciding."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from connectors import messages

State = Literal["waiting", "attached", "rejected", "all"]
Entry = Annotated[int, typer.Argument(metavar="ENTRY", help="Entry number, see `yici identity review list`.")]
Role = Annotated[str | None, typer.Option(help="The holder in question, where a row has several.")]
By = Annotated[str | None, typer.Option("--by", help="Who decides; the system user when left out.")]
Note = Annotated[str, typer.Option(help="Why; kept with the decision.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(identity: typer.Typer) -> None:
    """Add the commands to `yici identity`."""

    @identity.command()
    def match(json: Json = False) -> None:
        """Find candidates for quarantined rows without a usable identifier. Nothing is attached; what was matched before
        is left alone. 为缺少有效标识的记录查找候选主体。

        Example: [bold]yici identity match[/], then [bold]yici identity review list[/]
        """
        from hub import matching
        from hub.cli import output

        with output.messages().status("match") as status:
            counts = matching.propose(
                lambda step, done, total: status.update(step + (f" {done}/{total}" if total else ""))
            )
        if json:
            output.json(counts)
        else:
            output.table(tuple(counts), [tuple(counts.values())])

    commands = typer.Typer(help="Review queue: list, show, accept, reject. 待审核队列。", no_args_is_help=True)
    identity.add_typer(commands, name="review")

    @commands.command("list")
    def list_(
        source: Annotated[str | None, typer.Option(help="Only rows of this source.")] = None,
        state: Annotated[State, typer.Option(help="Only rows in this state.")] = "waiting",
        limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
        json: Json = False,
    ) -> None:
        """The queue, the likeliest first, without personal data. 列出待审核记录（不含个人信息）。

        Example: [bold]yici identity review list --source sh-ga-households[/]
        """
        from hub import database, matching_queue
        from hub.cli import output

        with database.engine().connect() as connection:
            wanted = None if state == "all" else state
            rows = matching_queue.listed(connection, source=source, state=wanted, limit=limit)
        if json:
            output.json(rows)
            return
        output.table(
            ("entry", "role", "source", "file", "row", "state", "candidates", "more", "best", "agrees"),
            [
                (row["entry"], row["role"], row["source"], row["file"], row["row"], row["state"], row["candidates"],
                 row["candidates_more"], _percent(row["probability"]), matching_queue.agreement(row["levels"], messages.language()))
                for row in rows
            ],
        )  # fmt: skip

    @commands.command()
    def show(entry: Entry, role: Role = None, json: Json = False) -> None:
        """A row beside its candidates, and how far each agrees (personal data: mind who looks on). 对照查看记录与候选主体。

        Example: [bold]yici identity review show 12[/]
        """
        from hub import database, matching_queue
        from hub.cli import output

        with database.engine().connect() as connection:
            found = matching_queue.shown(connection, entry, role)
        if json:
            output.json(found)
            return
        for one in found:
            _shown(one)

    @commands.command()
    def accept(
        entry: Entry,
        candidate: Annotated[int, typer.Option(min=1, help="Number of the candidate, see show.")],
        role: Role = None,
        by: By = None,
        note: Note = "",
        json: Json = False,
    ) -> None:
        """The row is about this candidate: it is released with the candidate's identifier. 认定为该候选主体并放行。

        Example: [bold]yici identity review accept 12 --candidate 1 --by "Li Na" --note "file seen at the window"[/]
        """
        from hub import matching_decisions
        from hub.cli import output
        from hub.cli import pipeline as run_command

        done = matching_decisions.accept(entry, candidate, actor=by or output.actor(), note=note, role=role)
        if json:
            output.json(done)
        elif done["batch"]:
            run_command.show(done["batch"])
        else:
            output.console().print(f"waits for 等待: {', '.join(done['waits_for'])}")

    @commands.command()
    def reject(entry: Entry, by: By = None, note: Note = "", json: Json = False) -> None:
        """None of them: the row stays in quarantine, and this version of it is not asked about again. 均不匹配。

        Example: [bold]yici identity review reject 12 --note "another person of that name"[/]
        """
        from hub import matching_decisions
        from hub.cli import output

        matching_decisions.reject(entry, actor=by or output.actor(), note=note)
        if json:
            output.json({"rejected": entry})
        else:
            output.console().print(f"rejected 已驳回: {entry}")


def _shown(one: dict[str, Any]) -> None:
    from hub import matching_model
    from hub.cli import output

    language = messages.language()
    heading = (
        f"{one['entry']} {one['role']} · {one['source']} · {one['file']} · {one['row']} · {', '.join(one['reasons'])}"
    )
    if not one["candidates"]:
        output.table(("field", "row"), [(name, said) for name, said in one["says"].items()], title=heading)
    for candidate in one["candidates"]:
        rows = []
        for name, said in one["says"].items():
            held = candidate["agreement"].get(name)
            title, level = matching_model.words(name, held["level"], language) if held else (name, "")
            rows.append((title, said, candidate["says"][name], level, f"{held['weight']:+.1f}" if held else ""))
        output.table(
            ("field", "row", f"candidate {candidate['candidate']}", "agreement", "weight"),
            rows,
            title=f"{heading}\n{candidate['candidate']}: {_percent(candidate['probability'])}, {candidate['weight']:+.1f}"
            f" · {candidate['material']} · {candidate['scheme']}",
        )
    if one["candidates_more"] or one["crowded"] or not one["candidates"]:
        crowded = ", ".join(f"{block['rule']} ({block['persons']})" for block in one["crowded"])
        output.console().print(
            f"{heading}\nmore candidates 其余候选: {one['candidates_more']}; not searched 未检索: {crowded or '-'}"
        )


def _percent(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.0%}"
