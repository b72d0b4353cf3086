"""``yici exchange``: the listener for other hubs."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    commands = typer.Typer(help="The exchange with other hubs. 与其他节点的交换。", no_args_is_help=True)
    app.add_typer(commands, name="exchange")

    @commands.callback()
    def about() -> None:
        """The exchange with other hubs. 与其他节点的交换。"""

    @commands.command()
    def serve(
        host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all. 监听地址。")] = "127.0.0.1",
        port: Annotated[
            int | None, typer.Option(help="Port to listen on; 8490 by default. 监听端口。", min=1, max=65535)
        ] = None,
    ) -> None:
        """Answer other hubs over TLS, in the foreground; only peers are let in. 在前台应答伙伴节点（双向 TLS）。

        Beside it the ledger is chained and peers are told of a changed card. `yici up` starts it in the background.

        Example: [bold]yici exchange serve --host 0.0.0.0 --port 8490[/]
        """
        from hub import home
        from hub.exchange import cards
        from hub.exchange.serve import serve as listen

        listen(host, port or int(home.current().identity("exchange_port") or cards.PORT))
