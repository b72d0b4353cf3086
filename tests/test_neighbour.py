"""The demo's second hub: started beside the first, safe to start again, gone with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from connectors import connections, hub
from connectors import source as sources
from demo import neighbour, neighbour_runs
from hub import embedded, services
from hub.home import Home
from tests import licences

ZJ = ("zj-amr-enterprises",)


@pytest.fixture
def main_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """Shanghai's home; what lives in it is stopped however the test ends."""
    for name in ("YICI_DATABASE_URL", "YICI_LANDING_URL", "YICI_HUB", "YICI_REGION"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory(prefix="yici-neighbour-") as folder:
        Path(folder).chmod(0o711)
        home = Home(Path(folder) / "home")
        home.create()
        monkeypatch.setenv("YICI_HOME", str(home.path))
        try:
            yield home
        finally:
            services.stop_all(home)
            for held in (neighbour.home_of(home), home):
                embedded.release(held)


@pytest.mark.slow
def test_a_second_hub(main_home: Home, tmp_path: Path) -> None:
    companies = [
        licences.row(number, code=licences.credit_code(number, "330106"), province="浙江") for number in range(20)
    ]
    licences.write(tmp_path / "2019-浙江.csv", companies)
    os.utime(tmp_path / "2019-浙江.csv", (1, 1))
    entries = {"zj-amr": {"url": str(tmp_path)}}
    with services.exclusive(main_home):
        started = neighbour.start(main_home, entries, (*ZJ, "sh-amr-enterprises", "zj-not-there"))
        assert started.names == ZJ, "what has no connection, or is not there, is not run"
        [run] = started.wait()
    assert run["state"] == "success", run
    assert (run["source"], run["state"], run["accepted"]) == (ZJ[0], "success", 20)
    assert Path(neighbour_runs.told_to(started.home.path, "sh")).stat().st_mode & 0o777 == 0o600
    entry = started.connection()
    steps = hub.check(sources.load("zj-hub-index"), connections._from_fields("zj-hub", entry, "test"))
    assert all(step.ok for step in steps), steps
    assert "business-licence" in steps[-2].detail and steps[-2].detail.endswith("20")

    with services.exclusive(main_home):
        again = neighbour.start(main_home, entries, ZJ)
        assert [run["fetched"] for run in again.wait()] == [0], "no new file: nothing to do"
    assert again.connection() == entry and again.api == started.api, "the peer keeps its secrets"

    services.stop_all(main_home)
    assert services.processes(started.home) == [] and not embedded._answers(started.home)
    assert not [process for process in psutil.process_iter() if str(main_home.path) in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_home_within_is_stopped_with_it(main_home: Home) -> None:
    assert services.inner_homes(main_home) == []
    inner = neighbour.home_of(main_home)
    inner.create()
    assert services.inner_homes(main_home) == [inner]
    assert services.stop_all(main_home) == 0
