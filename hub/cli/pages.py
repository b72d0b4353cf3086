"""``yici docs``: the pages of material types, items, bundles and problems, written from what they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def docs(
        to: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder of the documentation.")] = Path("docs"),
        check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when a page is not current.")] = False,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout.")] = False,
    ) -> None:
        """Write the page of every material type, service item, bundle and problem. 由模型生成材料、事项与错误码的说明页。

        Pages no longer in the model are removed; files written by others are left alone.

        Example: [bold]yici docs --check[/]
        """
        from connectors.errors import FatalError
        from hub import problem_page
        from hub.cli import output
        from mappings import pages

        made = {**pages.pages(), problem_page.PATH: problem_page.page()}
        if check:
            if wrong := pages.stale(to, made):
                raise FatalError("docs-stale", pages=", ".join(wrong))
            changed: list[str] = []
        else:
            changed = pages.write(to, made)
        if json:
            output.json({"folder": str(to), "changed": changed, "pages": len(made)})
        else:
            for path in changed:
                typer.echo(str(to / path))
            output.messages().print(f"{len(changed)} changed 已更新 · {len(made)} pages 页 · {to}", soft_wrap=True)
