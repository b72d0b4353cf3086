"""docs/partners.md is followed word by word: two hubs that agree, from nothing, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer

from hub import services
from hub.home import Home
from tests.conftest import ROOT
from tests.test_guide import blocks

GUIDES = [ROOT / "docs" / name for name in ("partners.md", "partners.zh-CN.md")]


def commands() -> list[list[str]]:
    """What is typed of ``yici``, word by word."""
    text = "\n".join(blocks(GUIDES[0]))
    found = [re.split(r" [<>|] | \|\| | 2> ", line)[0] for line in re.findall(r"\byici [a-z][^\n)]*", text)]
    return [shlex.split(command.replace('"$(sed -n ', "KID "), posix=False)[1:] for command in found]


def test_both_languages_give_the_same_commands() -> None:
    assert blocks(GUIDES[0]) == blocks(GUIDES[1])


def test_the_guide_goes_the_whole_way() -> None:
    from hub.cli import app

    known: typer.core.TyperGroup = typer.main.get_group(app)
    typed: list[str] = []
    for words in commands():
        command: Any = known
        name = []
        while isinstance(command, typer.core.TyperGroup):
            name.append(words.pop(0))
            command = command.commands[name[-1]]
        typed.append(" ".join(name))
    way = ["peer card", "peer add", "peer check", "agreement propose", "agreement accept", "run", "evidence ask",
           "ledger show", "share publish", "share profile", "reconcile", "ledger verify", "agreement suspend"]  # fmt: skip
    places = [typed.index(step) for step in way if step != "run"]
    assert set(way) <= set(typed) and places == sorted(places), typed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_following_it_in_a_shell() -> None:
    """As two offices would: the real commands, and for each hub a database, keys and a listener of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("YICI", "AIRFLOW"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment |= {"NO_PROXY": services.HOST, "YICI_LANG": "en", "COLUMNS": "200"}
    script = "set -euo pipefail\n" + "\n".join(blocks(GUIDES[0]))
    with tempfile.TemporaryDirectory(prefix="yici-partners-") as folder:
        Path(folder).chmod(0o711)
        homes = [Home(Path(folder) / name) for name in ("zj", "sh")]
        try:
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=560,
                check=False,
            )
            said = done.stdout + done.stderr
            assert done.returncode == 0, said[-6000:]
        finally:
            for home in homes:
                services.stop_all(home)
        assert "Nothing is agreed with zj" in said and "refused: suspended by zj" in said
        for name in ("浙江示例甲食品有限公司", "浙江示例丙科技有限公司"):  # the evidence; a row of the table
            assert name in done.stdout
        assert done.stdout.count("nothing was changed") == 2
        assert not [process for process in psutil.process_iter() if folder in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
