"""The Makefile's set-up: once, whole or again from nothing. A stand-in for Python records what it is asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PYTHON = """#!/bin/sh
echo "$*" >> "{calls}"
case "$*" in
  *"--require-hashes"*) if [ -e "{fail}" ]; then exit 1; fi ;;
  *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; printf '#!/bin/sh\\nexit 0\\n' > .venv/bin/yici; chmod +x .venv/bin/yici ;;
esac
exit 0
"""


class Checkout:
    """A folder, with a space in its name, that holds the Makefile and a lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a checkout"
        self.folder.mkdir()
        self.calls, self.fail = folder / "calls", folder / "fail"
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder / name)
        (self.folder / "requirements.lock").write_text("")
        self.python = folder / "python"
        self.python.write_text(PYTHON.format(calls=self.calls, fail=self.fail))
        self.python.chmod(0o755)

    def make(self, target: str) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        command = ["make", target, f"PYTHON={self.python}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=60, env=environment, check=False
        )

    def asked(self, words: str) -> bool:
        return words in self.calls.read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    return Checkout(tmp_path)


def test_setup_installs_with_hashes_and_makes_only_the_environment(checkout: Checkout) -> None:
    before = set(checkout.folder.iterdir())
    assert checkout.make("setup").returncode == 0
    assert checkout.asked("install --quiet --require-hashes --no-deps -r requirements.lock")
    assert checkout.asked("--no-build-isolation --editable .")
    assert set(checkout.folder.iterdir()) - before == {checkout.folder / ".venv"}


def test_setup_is_not_repeated(checkout: Checkout) -> None:
    checkout.make("setup")
    assert checkout.make("setup").returncode == 0
    assert not checkout.asked("install")


def test_a_new_lock_is_installed_into_the_same_environment(checkout: Checkout) -> None:
    checkout.make("setup")
    later = (checkout.folder / ".venv" / "ready").stat().st_mtime + 10
    os.utime(checkout.folder / "requirements.lock", (later, later))
    assert checkout.make("setup").returncode == 0
    assert checkout.asked("--require-hashes") and not checkout.asked("-m venv")


def test_an_installation_that_was_cut_off_is_made_again_from_nothing(checkout: Checkout) -> None:
    checkout.fail.touch()
    assert checkout.make("setup").returncode != 0
    assert not (checkout.folder / ".venv" / "ready").exists()
    checkout.fail.unlink()
    assert checkout.make("setup").returncode == 0
    assert checkout.asked("-m venv --clear .venv")


def test_stop_before_setup_is_fine(checkout: Checkout) -> None:
    assert checkout.make("stop").returncode == 0
    assert not (checkout.folder / ".venv").exists()


def test_help_names_every_target(checkout: Checkout) -> None:
    shown = checkout.make("help").stdout
    declared = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    for target in declared.split()[1:]:
        assert target == "help" or f"make {target} " in shown
