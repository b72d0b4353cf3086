"""The demo's second hub: started beside the first, safe to start again, gone with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from connectors import source as sources
from connectors.errors import FatalError
from demo import exchange, neighbour, neighbour_runs
from hub import embedded, pipeline, services, stack
from hub.exchange import index_channel
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
    main_home.remember(hub="sh", region="310000")
    with services.exclusive(main_home):
        stack.start_api(main_home)
        listener = stack.start_exchange(main_home)
        started = neighbour.start(main_home, entries, (*ZJ, "sh-amr-enterprises", "zj-not-there"))
        assert started.names == ZJ, "what has no connection, or is not there, is not run"
        [run] = started.wait()
        stack.wait_exchange(main_home, listener)
    assert run["state"] == "success", run
    assert (run["source"], run["state"], run["accepted"]) == (ZJ[0], "success", 20)
    agreed = started.agree()
    steps = index_channel.check(sources.load("zj-hub-index"))
    assert all(step.ok for step in steps), [step for step in steps if not step.ok]
    assert [step.detail for step in steps if step.step == "agreement"] == [agreed]
    assert "business-licence" in steps[-1].detail and steps[-1].detail.endswith("20")
    assert pipeline.run("zj-hub-index")["accepted"] == 20

    published = neighbour.reported(started.begin("share", "publish"))
    profile = exchange.profile(main_home, started, agreed)
    assert profile.stat().st_mode & 0o777 == 0o600
    [table] = exchange.compared(published, neighbour.reported(exchange.read(main_home, profile)))
    assert (table["table"], table["version"], table["published"], table["rows"]) == ("business-licence", 0, 20, 20)
    offered = exchange.offer(main_home, started)
    assert offered != agreed and exchange.offer(main_home, started) == offered, "once, and the other way"
    proved = exchange.proved(started, None)
    assert proved["reconciled"]["equal"] and proved["reconciled"]["records"] == {"here": 20, "there": 20}
    for name in ("checks", "ledgers"):
        assert {hub: one["ok"] for hub, one in proved[name].items()} == {"sh": True, "zj": True}, proved[name]
    said = profile.read_bytes()
    assert exchange.profile(main_home, started, agreed).read_bytes() == said, "a good one is kept"
    with pytest.raises(FatalError, match="hub share"):
        neighbour.reported(started.begin("share", "profile", "ffffffff"))

    with services.exclusive(main_home):
        again = neighbour.start(main_home, entries, ZJ)
        assert [run["fetched"] for run in again.wait()] == [0], "no new file: nothing to do"
    assert again.agree() == agreed and (again.api, again.exchange) == (started.api, started.exchange)
    file = neighbour_runs.terms_of(again.home.path)
    file.write_text(file.read_text(encoding="utf-8").replace('"demo"', '"demo", "statistics"'), encoding="utf-8")
    assert again.agree() == agreed.replace("/1", "/2"), "other terms are the next version"
    assert pipeline.run("zj-hub-index")["fetched"] == 0

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
