"""Documentation that tests check: every module, command and setting is named where a newcomer looks."""

from __future__ import annotations

import re

import pytest
import typer

from tests.conftest import ROOT

PACKAGES = ("connectors", "mappings", "quality", "hub", "demo", "dags")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
READMES = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
MODULES = sorted(
    path.relative_to(ROOT)
    for package in PACKAGES
    for path in (ROOT / package).glob("*.py")
    if not path.name.startswith("__")
)


def test_modules_were_found() -> None:
    assert len(MODULES) > 60


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_the_architecture_names_every_module(module) -> None:
    lines = [line for line in ARCHITECTURE.splitlines() if f"`{module.parts[0]}/" in line and f"{module.name}`" in line]
    assert lines, f"docs/architecture.md has no row for {module}"


def test_the_readmes_name_every_command() -> None:
    from hub.cli import app

    groups = typer.main.get_group(app).commands
    assert len(groups) > 12
    for name in groups:
        for readme in READMES:
            assert re.search(rf"yici {name}\b", readme), name


def test_the_readmes_name_every_setting() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hub").rglob("*.py"))
    for name in ("YICI_HOME", "YICI_DATABASE_URL", "YICI_LANDING_URL", "YICI_SOURCES", "YICI_LANG"):
        assert all(name in readme for readme in READMES)
        assert name in source or name in ("YICI_SOURCES", "YICI_LANG")


def test_no_registry_host_is_named() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "--hash=sha256:" in lock and "http" not in re.sub(r"^[a-z0-9.-]*http[a-z0-9.-]*==", "", lock, flags=re.M)
