"""``yici up``, ``yici down``, ``yici serve``: the hub's background services, and the API in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hub.home import Home


def _started(here: Home, say: Callable[[str], None], airflow: bool) -> dict[str, str]:
    """Publish what the files say, start what is not up or has loaded another catalogue, and wait; addresses by name.

    What is deployed is what is published, and what is published is what is served. Where it cannot be, all stays as it is.
    """
    from hub import publication, stack
    from hub.cli import output

    if airflow:
        stack.require_airflow()
    publication.publish(output.actor(), "yici up")
    port = stack.end_outdated(here, say)
    if airflow:
        started = stack.start(here, say, port)
        started.wait(say)
        exchange = started.exchange
        addresses = {"api": started.api.address, "airflow": started.airflow.address}
    else:
        api = stack.start_api(here, say, port)
        listening = stack.start_exchange(here)
        api = stack.wait_api(here, api, say)
        exchange = stack.wait_exchange(here, listening, say)
        addresses = {"api": api.address}
    return {**addresses, "exchange": stack.exchange_address(exchange)} if exchange else addresses


def register(app: typer.Typer) -> None:
    @app.command()
    def up(
        airflow: Annotated[
            bool, typer.Option("--airflow/--without-airflow", help="A hub that runs its sources by hand needs none.")
        ] = True,
        json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON value.")] = False,
    ) -> None:
        """Start the database, the API, the exchange and Airflow in the background. 启动数据库、接口、交换服务与 Airflow。

        What runs already is left alone; a port in use is replaced by the next free one. Changes of the catalogue's files are
        published first, as by `yici items publish`, and an API that has loaded another catalogue is started anew; what cannot be
        published is said, and nothing is started or stopped. `yici down` stops everything. The exchange with other hubs starts where YICI_REGION,
        or hub.json, says which region this hub speaks for.

        Example: [bold]yici up[/]

        Example: [bold]yici up --without-airflow[/]
        """
        from hub import home, interrupts, services
        from hub.cli import output

        here = home.current()
        fresh = not services.running(here)
        with interrupts.interruptible(), services.exclusive(here):
            try:
                with output.messages().status("starting 启动中") as status:
                    addresses = _started(here, status.update, airflow)
            except BaseException as error:
                if fresh or isinstance(error, KeyboardInterrupt):
                    with interrupts.undisturbed():
                        services.stop_all(here)
                raise
        file = here.path / "credentials.json"  # Airflow's, and a demo's: without them there is none
        if json:
            output.json({**addresses, "credentials_file": str(file)} if file.is_file() else addresses)
        else:
            names = {"api": "API", "airflow": "Airflow", "exchange": "exchange 交换"}
            output.table(
                ("service 服务", "address 地址"), [(names[name], address) for name, address in addresses.items()]
            )
            stop = "yici down" if here.path == Path(".yici").absolute() else f"YICI_HOME={here.path} yici down"
            passwords = f"passwords 密码: {file} · " if file.is_file() else ""
            output.messages().print(f"{passwords}stop 停止: {stop}", soft_wrap=True)

    @app.command()
    def down() -> None:
        """Stop all services of this home; nothing stays behind, also after a crash. 停止本节点的全部服务。

        Example: [bold]yici down[/]
        """
        from hub import home, services
        from hub.cli import output

        here = home.current()
        with output.messages().status("stopping 停止中"):
            ended = services.stop_all(here)
        output.messages().print(
            f"stopped 已停止 ({ended} processes 进程)" if ended else "nothing was running 没有运行中的服务"
        )

    @app.command()
    def serve(
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8470,
    ) -> None:
        """Run the lookup API in the foreground. 在前台运行查询接口。

        Example: [bold]yici serve --port 8470[/]
        """
        from hub.api.serve import serve as listen

        listen(host, port)
