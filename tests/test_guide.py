"""docs/onboarding.md is followed word by word: its commands run as they are written, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from hub import home
from tests.conftest import ROOT

GUIDES = [ROOT / "docs" / name for name in ("onboarding.md", "onboarding.zh-CN.md")]
OLD = (1_700_000_000, 1_700_000_000)


def blocks(guide: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.M | re.S)


def commands(guide: Path) -> Iterator[str]:
    """One command at a time, with its lines carried on and its here-document."""
    for block in blocks(guide):
        lines = iter(block.splitlines())
        for line in lines:
            command = [line]
            while command[-1].endswith("\\"):
                command.append(next(lines))
            if end := re.search(r"<<'(\w+)'", line):
                while command[-1] != end[1]:
                    command.append(next(lines))
            yield "\n".join(command)


def test_the_guide_has_commands() -> None:
    found = list(commands(GUIDES[0]))
    assert len(found) > 20 and sum(command.startswith("yici ") for command in found) >= 12


def test_both_languages_give_the_same_commands() -> None:
    assert blocks(GUIDES[0]) == blocks(GUIDES[1])


def test_the_guide_names_every_connector_and_what_its_connection_needs() -> None:
    from connectors import template

    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        for connector in template.OPTIONS:
            assert f"| `{connector}` |" in text, connector
        for key in ("host_key", "known_hosts", "private_key_file", "endpoint_url", "peer:zj", "yici agreement propose"):
            assert key in text, key


def test_following_it_ends_with_holdings(store: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command in order; ``yici`` in this process, which has imported the gate already, the rest in a shell."""
    from connectors.errors import YiciError
    from hub.cli import app

    here = tmp_path / "empty"
    here.mkdir()
    monkeypatch.chdir(here)
    home.current().pseudonym_key()
    shutil.copytree(home.current().keys, here / ".yici" / "keys")  # the store is the test's own and knows its key
    said = []
    for command in commands(GUIDES[0]):
        if not command.startswith("yici "):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"{command}\nenv -0 >.environment"], check=True, capture_output=True
            )
            said.append(done.stdout.decode())
            for pair in (here / ".environment").read_text(encoding="utf-8").split("\0"):
                name, _, value = pair.partition("=")
                if name in ("YICI_SOURCES", "YICI_HOME"):
                    monkeypatch.setenv(name, value)
            for path in here.glob("drop/*"):
                os.utime(path, OLD)  # the guide's reader waits the five seconds that a file must settle
            continue
        plain, _, otherwise = command.partition(" || ")
        result = CliRunner().invoke(app, shlex.split(plain)[1:])
        code = result.exception.exit_code if isinstance(result.exception, YiciError) else result.exit_code
        assert (code == 0) == (not otherwise), f"{command}: {code}\n{result.output}\n{result.exception!r}"
        if "exit code" in otherwise:
            assert code == 3
        said.append(result.output)
    text = "\n".join(said)
    assert "holder.holder:check-digit" in text and "holder.holder:unrecoverable" in text and "status:unlisted" in text
    with store.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM holding")) == 12
        states = connection.execute(sa.text("SELECT state, accepted FROM batch ORDER BY started_at")).all()
    assert [tuple(row) for row in states] == [("merged", 12), ("merged", 0), ("superseded", 0), ("merged", 0)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_following_it_in_a_shell(tmp_path: Path) -> None:
    """The same as a new user would: one shell, the real command, the embedded database of a fresh home."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("YICI", "AIRFLOW"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    script = "set -euo pipefail\n" + "\n".join(blocks(GUIDES[0]))
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=560,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert "exit code 3" in done.stdout
    finally:
        subprocess.run(
            ["yici", "down"], cwd=tmp_path, env=environment | {"YICI_HOME": str(tmp_path / ".yici")}, check=False
        )
