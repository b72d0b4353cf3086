"""demo/report.py: what both hubs did, in both languages, with commands that exist."""

from __future__ import annotations

import io
import re
import shlex
from typing import Any

import pytest
import typer
from rich.console import Console

from demo.report import Report

MESSAGE = "0199c0de-0000-7000-8000-000000000001"
SHARE = "0199c0de-0000-7000-8000-00000000a001"
STEPS = [{"step": "port", "ok": True}, {"step": "agreement", "ok": True}]
FOUND: dict[str, Any] = {
    "agreements": {"zj": f"{SHARE}/1", "sh": f"{MESSAGE}/1"},
    "evidence": {
        "hub": "zj", "material": "household-register", "fields": ["status", "holder.holder"], "case": "DEMO-4",
        "message": MESSAGE,
    },
    "records": {"sh": {"direction": "asked"}, "zj": {"direction": "answered"}},
    "profile": "/home/x/.yici/zj.share",
    "tables": [{"table": "household-register", "version": 3, "published": 4100, "rows": 4100, "columns": ["status"]}],
    "reconciled": {"equal": True, "records": {"here": 9000, "there": 9000}, "messages": 1, "bytes": {"sent": 900, "received": 4000}},
    "checks": {"sh": {"ok": True, "steps": STEPS}, "zj": {"ok": False, "steps": [{"step": "clock", "ok": False}]}},
    "ledgers": {hub: {"ok": True, "records": 40, "last": 41} for hub in ("sh", "zj")},
}  # fmt: skip


def printed(language: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("YICI_LANG", language)
    out = io.StringIO()
    Report(Console(file=out, highlight=False)).between(FOUND, "/home/x/.yici/hubs/zj")
    return out.getvalue()


@pytest.mark.parametrize(("language", "words"), [
    ("zh", ("跨省取证", "household-register 第 3 版，发布 4,100 行，读到 4,100 行", "9,000 条记录一致", "✗ clock", "两边台账同一消息")),
    ("en", ("signed by zj", "household-register version 3, 4,100 rows published, 4,100 read", "9,000 records equal",
            "by 1 messages of 4,900 bytes", "✗ clock", "all 2 steps pass")),
])  # fmt: skip
def test_what_both_hubs_did(language: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(language, monkeypatch)
    for word in words:
        assert word in text, word
    assert f"{MESSAGE} (sh asked, zj answered)" in text
    assert f"zj.share#{SHARE}.materials.household-register" in text


def test_the_commands_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    from hub.cli import app

    typed = re.findall(r"\.venv/bin/yici (.*)", printed("en", monkeypatch))
    assert len(typed) == 10
    for line in typed:
        command: Any = typer.main.get_group(app)
        words = shlex.split(line)
        while isinstance(command, typer.core.TyperGroup):
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
    assert sum("YICI_HOME=/home/x/.yici/hubs/zj " in line for line in printed("en", monkeypatch).splitlines()) == 4
