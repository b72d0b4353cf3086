"""What the demo shows: progress, the table of runs, answers, addresses. In Chinese or English, with colour or without."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from connectors import messages
from demo.airflow import Run

COUNTS = ("fetched", "unchanged", "accepted", "quarantined", "rejected")
PLAIN_WIDTH = 120
STATES = {"success": "green", "failed": "bold red", "running": "cyan"}
DISPOSITIONS = {
    "held": ("✓", "green", "已有", "held"),
    "alternative_held": ("✓", "green", "已有可替代材料", "alternative held"),
    "held_elsewhere": ("✓", "cyan", "外省已有", "held elsewhere"),
    "expired": ("!", "yellow", "已过期", "expired"),
    "deferred": ("…", "blue", "可容缺或承诺", "deferred"),
    "not_required": ("–", "dim", "不需要", "not required"),
    "submit": ("→", "bold magenta", "需提交", "submit"),
    "undetermined": ("?", "yellow", "待定", "undetermined"),
}

# As an operator does it: a lookup for a purpose and a case, and with its ANSWER and HANDLE the question to the other hub.
EVIDENCE = (
    "yici lookup --item demo-household-move --id - --fact married=false --fact ground=work --fact moved_from=zhejiang "
    "--purpose demo --case MINE-1",
    "yici evidence ask zj --answer ANSWER --handle HANDLE --id -",
)


class Report:
    """Prints to standard output; a live display only where there is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = PLAIN_WIDTH
        self.language = messages.language()
        self._shown: dict[str, str] = {}
        self._started = time.monotonic()

    def step(self, zh: str, en: str) -> None:
        """One line for each thing that is done, with the seconds since the start."""
        seconds = time.monotonic() - self._started
        self.console.print(f"[dim]{seconds:6.1f}s[/]  {self.word(zh, en)}", soft_wrap=True)

    def word(self, zh: str, en: str) -> str:
        return zh if self.language == "zh" else en

    @contextmanager
    def following(self) -> Iterator[Any]:
        """Gives a function that shows runs as they go."""
        if self.console.is_terminal:
            with Live(console=self.console, refresh_per_second=4, transient=True) as live:
                yield lambda runs: live.update(self._progress(runs))
        else:
            yield self._lines

    def runs(self, rows: Sequence[dict[str, Any]], zh: str = "运行结果", en: str = "Runs") -> None:
        """The table of runs."""
        names = {
            "source": ("来源", "source"), "state": ("状态", "state"), "fetched": ("取得", "fetched"),
            "unchanged": ("未变", "unchanged"), "accepted": ("接受", "accepted"),
            "quarantined": ("隔离", "quarantined"), "rejected": ("拒绝", "rejected"), "seconds": ("秒", "seconds"),
        }  # fmt: skip
        table = Table(title=self.word(zh, en), title_justify="left", header_style="bold")
        for name, words in names.items():
            left = name in ("source", "state")
            table.add_column(self.word(*words), justify="left" if left else "right", no_wrap=True)
        for row in rows:
            state = f"[{STATES.get(row['state'], 'yellow')}]{row['state']}[/]"
            counts = [f"{row.get(name, 0):,}" for name in COUNTS]
            table.add_row(row["source"], state, *counts, f"{row['seconds']:.1f}")
        self.console.print()
        self.console.print(table)

    def elsewhere(self, address: str, runs: Sequence[dict[str, Any]]) -> None:
        """The runs of the neighbouring hub, which needs no Airflow."""
        rows = [{**run, "seconds": sum(run.get("seconds", {}).values())} for run in runs]
        self.runs(rows, f"浙江的数据枢纽 {address}", f"Zhejiang's hub {address}")

    def answer(self, about: str, answer: dict[str, Any]) -> None:
        """One answer, requirement by requirement."""
        self.console.print()
        self.console.print(f"[bold]{answer['item_name']}[/]  [dim]{answer['item']}[/]  {about}", soft_wrap=True)
        for entry in answer["requirements"]:
            mark, style, zh, en = DISPOSITIONS[entry["disposition"]]
            materials = ", ".join(entry["materials"])
            shown = f"  [{style}]{mark} {self.word(zh, en)}[/]  {entry['name']}  [dim]{materials}[/]"
            self.console.print(shown, soft_wrap=True)
            self.console.print(f"      {entry['reason']}", soft_wrap=True, markup=False)
            for question in entry.get("questions", ()):
                self.console.print(f"      {question['text']}", style="yellow", soft_wrap=True, markup=False)
            if entry["legal_basis"]:
                self.console.print(f"      {self.word('依据：', 'basis: ')}{entry['legal_basis']}", style="dim",
                                   soft_wrap=True, markup=False)  # fmt: skip
        must = ", ".join(answer["must_submit"]) or self.word("无", "nothing")
        self.console.print(f"  {self.word('仍需提交：', 'still to submit: ')}[bold]{must}[/]", soft_wrap=True)

    def afterwards(self, found: dict[str, Any], answer: str) -> None:
        """Evidence, deposit, notice, burden, and the commands that show more."""
        lines = []
        if given := found["evidence"]:
            fields = ", ".join(given["fields"])
            lines.append((self.word("取证", "evidence"), f"{given['material']} ({given['source']}): {fields}"))
        if paper := found.get("deposit"):
            none = self.word("无", "nothing")
            before, after = (", ".join(paper[name]) or none for name in ("before", "after"))
            said = self.word(
                f"提交并核验前需交：{before}；之后：{after}",
                f"to submit before it was verified: {before}; since: {after}",
            )
            lines.append((self.word("提交件", "deposit") + f" {paper['material']}", said))
        lines.append(
            (self.word("一次性告知书", "one-time notice"), f"{found['notice']['item']}: {found['notice']['file']}")
        )
        total = found["burden"]
        said = self.word(
            f"要求材料 {total['demanded']} 份，实际需交 {total['asked']} 份",
            f"{total['demanded']} materials demanded, {total['asked']} asked for",
        )
        lines += [
            (self.word("负担统计", "burden"), f"{said}: .venv/bin/yici burden"),
            (self.word("为什么这样答", "why an answer is as it is"), f".venv/bin/yici explain {answer}"),
            (self.word("办事人档案", "one's own view"), ".venv/bin/yici subject view --id -"),
        ]
        self.console.print()
        for name, value in lines:
            self.console.print(f"[bold]{name}[/]  {value}", soft_wrap=True)

    def between(self, found: dict[str, Any], neighbour: str) -> None:
        """What both hubs did with each other, each with the commands that repeat it."""
        self.console.print()
        if given := found["evidence"]:
            said = self.word(
                f"{given['material']}，办件 {given['case']}，由 {given['hub']} 签名：",
                f"{given['material']} for the case {given['case']}, signed by {given['hub']}: ",
            )
            self._told("跨省取证", "evidence from the other hub", said + ", ".join(given["fields"]), EVIDENCE)
            places = ", ".join(f"{hub} {one['direction']}" for hub, one in found["records"].items())
            show = f"yici ledger show {given['message']}"
            self._told("两边台账同一消息", "the same message in both ledgers", f"{given['message']} ({places})",
                       (show, _at("zj", neighbour, show)))  # fmt: skip
        share = found["agreements"]["zj"].partition("/")[0]
        tables = "; ".join(
            self.word(
                f"{one['table']} 第 {one['version']} 版，发布 {one['published']:,} 行，读到 {one['rows'] or 0:,} 行",
                f"{one['table']} version {one['version']}, {one['published']:,} rows published, {one['rows'] or 0:,} read",
            )
            for one in found["tables"]
        )
        reader = (
            f"python -c 'import delta_sharing; print(delta_sharing.load_as_pandas("
            f'"{found["profile"]}#{share}.materials.household-register"))\''
        )
        publish = _at("zj", neighbour, "yici share publish")
        self._told("批量共享（Delta Sharing）", "whole tables (Delta Sharing)", tables, (publish, reader))
        one = found["reconciled"]
        size = sum(one["bytes"].values())
        said = self.word(
            f"{one['records']['here']:,} 条记录{'一致' if one['equal'] else '不一致'}，往来 {one['messages']} 条消息、{size:,} 字节",
            f"{one['records']['here']:,} records {'equal' if one['equal'] else 'differ'}, "
            f"by {one['messages']} messages of {size:,} bytes",
        )
        self._told("对账", "reconciliation", self._mark(one["equal"]) + said, ("yici reconcile zj",))
        other = {"sh": "zj", "zj": "sh"}
        for hub, one in found["checks"].items():
            wrong = ", ".join(step["step"] for step in one["steps"] if not step["ok"])
            all_well = self.word(f"{len(one['steps'])} 步均通过", f"all {len(one['steps'])} steps pass")
            typed = _at(hub, neighbour, f"yici peer check {other[hub]}")
            self._told(f"互查 {hub}", f"peer check {hub}", self._mark(one["ok"]) + (wrong or all_well), (typed,))
        for hub, one in found["ledgers"].items():
            said = self.word(
                f"{one['records']:,} 条记录，位置至 {one['last']}",
                f"{one['records']:,} records up to position {one['last']}",
            )
            typed = _at(hub, neighbour, "yici ledger verify")
            self._told(f"台账 {hub}", f"ledger {hub}", self._mark(one["ok"]) + said, (typed,))

    def _told(self, zh: str, en: str, said: str, commands: Sequence[str]) -> None:
        self.console.print(f"[bold]{self.word(zh, en)}[/]  {said}", soft_wrap=True)
        for command in commands:
            shown = re.sub(r"\b(yici|python) ", r".venv/bin/\1 ", command, count=1)
            self.console.print(f"    {shown}", style="dim", soft_wrap=True, markup=False)

    def _mark(self, ok: bool) -> str:
        return "[green]✓[/] " if ok else "[bold red]✗[/] "

    def failed(self, runs: Sequence[Run], reasons: dict[str, str], address: str, logs: str) -> None:
        """Which runs did not succeed, and where to look."""
        self.console.print()
        for run in runs:
            reason = reasons.get(run.dag_id) or self.word("失败的任务：", "failed task: ") + (
                ", ".join(run.failed_tasks) or "-"
            )
            self.console.print(f"[bold red]✗[/] {run.dag_id}: {run.state}. {reason}", soft_wrap=True)
            self.console.print(f"    {address}/dags/{run.dag_id}/runs/{run.run_id}", soft_wrap=True)
            self.console.print(f"    {logs}/dag_id={run.dag_id}/run_id={run.run_id}", soft_wrap=True)

    def addresses(self, api: str, airflow: str, credentials: str, neighbour: str) -> None:
        """Where everything is, and how to stop it."""
        lines = [
            (self.word("查询接口", "lookup API"), f"{api}/openapi.json"),
            ("Airflow", airflow),
            (self.word("用户名与密码", "user names and passwords"), credentials),
            (
                self.word("只停浙江的数据枢纽", "stop Zhejiang's hub alone"),
                f"YICI_HOME={neighbour} .venv/bin/yici down",
            ),
            (
                self.word("再启动它", "start it again"),
                f"YICI_HOME={neighbour} .venv/bin/yici up --without-airflow",
            ),
            (self.word("停止", "stop"), "make stop"),
        ]
        self.console.print()
        for name, value in lines:
            self.console.print(f"[bold]{name}[/]  {value}", soft_wrap=True)

    def _progress(self, runs: Sequence[Run]) -> Table:
        table = Table.grid(padding=(0, 2))
        for run in runs:
            bar = "█" * run.done + "░" * max(run.total - run.done, 0)
            table.add_row(
                run.dag_id, f"[{STATES.get(run.state, 'dim')}]{run.state}[/]", bar, f"{run.done}/{run.total or '?'}"
            )
        return table

    def _lines(self, runs: Sequence[Run]) -> None:
        for run in runs:
            if self._shown.get(run.dag_id) != run.state:
                self._shown[run.dag_id] = run.state
                self.step(f"{run.dag_id}: {run.state}", f"{run.dag_id}: {run.state}")


def _at(hub: str, neighbour: str, command: str) -> str:
    """A command of Shanghai's hub, the one of this home, or of Zhejiang's in its own."""
    return f"YICI_HOME={neighbour} {command}" if hub == "zj" else command
