"""``yici peer forget``: the end of reading a partner hub's index."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON value on stdout. 以 JSON 输出。")]


def register(commands: typer.Typer) -> None:
    """Adds to the commands of ``yici peer``."""

    @commands.command()
    def forget(
        source: Annotated[
            str, typer.Argument(help="The source that reads the partner's index. 读取对方索引的数据源。")
        ],
        note: Annotated[str, typer.Option(help="Why; kept with the decision. 原因，随决定留存。")] = "",
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask. 不再询问。")] = False,
        json: Json = False,
    ) -> None:
        """Drop all that a partner's index told this hub, when an agreement ends. 协议终止时，清除对方索引的全部条目。

        Entries, keys, scope, quarantined rows and the cursor go, in one step; batches, landed pages and answers given stay.
        Take the source's folder or its schedule away first: a later run reads the index anew, if an agreement lets it.
        请先停用该数据源，否则下次运行会重新读取。批次、落地页和已作出的答复保留。

        Example: [bold]yici peer forget zj-hub-index --note "agreement ended"[/]
        """
        from hub import index_entries
        from hub.cli import output

        if not yes:
            typer.confirm(f"Drop all entries of {source}? 清除 {source} 的全部条目？", abort=True, err=True)
        dropped = index_entries.forget(source, actor=output.actor(), note=note)
        if json:
            output.json({"source": source, "entries": dropped})
        else:
            typer.echo(f"{source}: {dropped} entries dropped 已清除 {dropped} 条", err=True)
