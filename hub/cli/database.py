"""``yici db``: the store's tables."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="The store's tables. 数据库迁移。", no_args_is_help=True)
    app.add_typer(commands, name="db")

    @commands.callback()
    def about() -> None:
        """The store's tables. 数据库迁移。"""

    @commands.command()
    def upgrade() -> None:
        """Bring the database to the newest version; make keys where there are none.

        The embedded database is upgraded by every command; an external one (YICI_DATABASE_URL) only by this.

        Example: [bold]YICI_DATABASE_URL=postgresql://yici@db/yici yici db upgrade[/]
        """
        from hub import database

        typer.echo(f"database is at revision {database.upgrade()}", err=True)
