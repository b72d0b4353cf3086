"""``yici subject``: what is held about somebody, for that somebody."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer


def register(app: typer.Typer) -> None:
    commands = typer.Typer(
        help="One's own view: what is held about somebody, and who asked. 办事人档案。", no_args_is_help=True
    )
    app.add_typer(commands, name="subject")

    @commands.callback()
    def group() -> None:
        """One's own view."""

    @commands.command()
    def view(
        id_: Annotated[str, typer.Option("--id", metavar="SCHEME:VALUE", help="Whose; `-` reads it from stdin.")],
        section: Annotated[
            Literal["held", "asked", "fetched", "deposits", "views"] | None, typer.Option(help="This one alone.")
        ] = None,
        after: Annotated[str | None, typer.Option(metavar="NEXT", help="The page behind this `next`.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=500, help="Entries of a section.")] = 100,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
    ) -> None:
        """What is held about somebody and from whom, who asked for it and why, what was fetched and handed in. The view is
        recorded. 查看本人档案。

        Example: [bold]echo cn.ric:… | yici subject view --id -[/]
        """
        from connectors import messages
        from hub import database, subject_view
        from hub.cli import lookup, output

        shown = subject_view.view(
            database.engine(), lookup._identifier(id_), client=lookup.CLIENT, purpose=lookup.PURPOSE, section=section,
            after=after, limit=limit, lang=messages.language(),
        )  # fmt: skip
        if json:
            output.json(shown)
            return
        for name, columns in _COLUMNS.items():
            if name in shown:
                rows = [[_cell(entry[column]) for column in columns] for entry in shown[name]["entries"]]
                output.table(columns, rows, title=_TITLES[name])
                if following := shown[name]["next"]:
                    output.console().print(f"→ --section {name} --after {following}", markup=False)


_COLUMNS: dict[str, tuple[str, ...]] = {
    "held": ("material_name", "status", "valid_to", "source", "owner", "as_of"),
    "asked": ("at", "as", "client", "purpose", "case", "item_name", "must_submit"),
    "fetched": ("at", "client", "receiver", "provider", "purpose", "case", "material_name", "fields"),
    "deposits": ("received_at", "material", "state", "signature", "case"),
    "views": ("at", "client", "purpose"),
}
_TITLES = {
    "held": "held 已有证照", "asked": "asked 查询记录", "fetched": "fetched 取证记录", "deposits": "deposits 提交件",
    "views": "views 查看记录",
}  # fmt: skip


def _cell(value: Any) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
