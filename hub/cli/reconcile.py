"""``yici reconcile``: do this hub and a peer hold the same records? 对账"""

from __future__ import annotations

from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    @app.command()
    def reconcile(
        peer: Annotated[str, typer.Argument(help="The peer, as `yici peer list` names it. 伙伴节点编号。")],
        agreement: Annotated[
            str | None,
            typer.Option(metavar="ID", help="Only this agreement; the beginning of its id will do. 仅限该协议。"),
        ] = None,
        heal: Annotated[
            bool,
            typer.Option(
                "--heal", help="Fetch what differs from the peer that gives it, and mend. 补取并修复相异记录。"
            ),
        ] = False,
        last: Annotated[
            bool, typer.Option("--last", help="Show what the last run found, ask nobody. 显示上次对账结果。")
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="One JSON value on stdout. 以 JSON 输出。")] = False,
    ) -> None:
        """Compare with a peer, under each agreement that announces an index, what both hold; say who lacks what. 与伙伴节点对账。

        Digests are compared, from the whole down to the records that differ; never everything is sent. What was announced
        since the feed was read last is left out. Of an agreement under which nothing is read it is said what to do. Exit code 0:
        nothing differs any more; 1: something does.

        Examples:

        [bold]yici reconcile zj[/]

        [bold]yici reconcile zj --heal --json[/]

        [bold]yici reconcile zj --last[/]
        """
        from hub.cli import output
        from hub.exchange import agreements, reconciliation

        if last:
            found = reconciliation.last(peer)
        else:
            named = agreements.named(agreement) if agreement else None
            with output.messages().status("reconcile 对账") as status:
                results = reconciliation.reconcile(
                    peer,
                    named,
                    heal=heal,
                    progress=lambda about, messages: status.update(f"reconcile 对账: {about} {messages}"),
                )
            found = [result.shown() for result in results]
        if json:
            output.json(found)
        else:
            for shown in found:
                _told(shown)
        if any(shown["equal"] is False for shown in found):
            raise typer.Exit(1)


def _told(shown: dict[str, Any]) -> None:
    import datetime as dt

    from hub.cli import output
    from hub.clock import CHINA

    console = output.console()
    at = dt.datetime.fromisoformat(shown["started_at"]).astimezone(CHINA)
    console.print(f"[bold]{shown['peer']}[/] {shown['agreement']} ({shown['role']}) {at:%Y-%m-%d %H:%M}")
    for code, values in _sentences(shown):
        _say(code, {"peer": shown["peer"], **values})
    rows = [
        (one["handle"], one["difference"], one.get("material"), one.get("position") or one.get("holding"))
        for one in shown["named"]
    ]
    if rows:
        output.table(("handle 标识", "difference 差异", "material 材料", "position / holding 位置"), rows)
    sent, received = shown["bytes"]["sent"], shown["bytes"]["received"]
    console.print(f"{shown['messages']} messages 消息, {sent + received} bytes 字节", style="dim")


def _sentences(shown: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Codes of what there is to say, with their values."""
    gives, differences, healed = shown["role"] == "provider", shown["differences"], shown["healed"]
    if shown.get("unread"):
        return [("reconciled-unread-there" if gives else "reconciled-unread", {"agreement": shown["agreement"]})]
    found = [
        ("reconciled-only-there" if gives else "reconciled-missing-here", differences["missing_here"]),
        ("reconciled-missing-there" if gives else "reconciled-unannounced", differences["missing_there"]),
        ("reconciled-differing", differences["differing"]),
        ("reconciled-amiss", shown["entries_amiss"]),
    ]
    said: list[tuple[str, dict[str, Any]]] = [(code, {"found": count}) for code, count in found if count]
    if not differences["all_named"]:
        said = [("reconciled-wholesale", {"found": differences["at_least"]})]
    if not said:
        said.append(("reconciled-equal", {"found": shown["records"]["here"]}))
    if shown["moved"]:
        said.append(
            ("reconciled-behind", {"found": shown["moved"], "position": shown["position"], "head": shown["head"]})
        )
    if healed:
        counts = {"accepted": 0, "quarantined": 0, "rejected": 0, "unchanged": 0, **healed["counts"]}
        said.append(("reconciled-healed", {**counts, "fetched": healed["fetched"], "mended": healed["mended"]}))
        if bad := counts["quarantined"] + counts["rejected"]:
            said.append(("reconciled-quarantined", {"found": bad}))
        if counts["unchanged"]:
            said.append(("reconciled-older", {"found": counts["unchanged"]}))
    return said


def _say(code: str, values: dict[str, Any]) -> None:
    from connectors import messages
    from hub.cli import output

    console = output.console()
    console.print(messages.text(code, None, **values), markup=False)
    if advice := messages.advice(code, None, **values):
        console.print(f"  → {advice}", markup=False)
