"""`yici synth` as a user runs it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "YICI_LANG": "en", "NO_COLOR": "1", "COLUMNS": "160"}
    command = [sys.executable, "-m", "hub", "synth", *words]
    # A suite started in the background has SIGINT ignored, and its children would inherit that.
    attend = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=-1, stderr=-1, preexec_fn=attend)


def run(*words: str) -> tuple[int, str, str]:
    process = start(*words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_made_then_left_alone_then_refused(tmp_path: Path) -> None:
    words = ["--people", "300", "--companies", "80", "--out", str(tmp_path / "d"), "--json"]
    code, out, err = run(*words, "--seed", "1")
    first = json.loads(out)
    assert code == 0 and first["made"] and "records in" in err
    assert first["files"]["ga/residents.jsonl"]["bytes"] == (tmp_path / "d/ga/residents.jsonl").stat().st_size
    code, out, err = run(*words, "--seed", "1")
    again = json.loads(out)
    assert code == 0 and not again["made"] and again["files"] == first["files"] and "nothing was changed" in err
    code, out, err = run(*words, "--seed", "2")
    assert code == 2 and json.loads(out)["error"]["exit_code"] == 2 and "other parameters" in err and "--out" in err


def test_usage(tmp_path: Path) -> None:
    code, out, _ = run("--help")
    assert code == 0 and "yici synth --people 2000" in out
    assert all(f"{folder}/" in out for folder in ("ga", "ga-zj", "mca", "amr", "hrss", "mnr", "nhc", "moe", "truth"))
    code, _, err = run("--people", "0", "--companies", "1", "--seed", "1", "--out", str(tmp_path / "d"))
    assert code == 2 and "--people" in err and not (tmp_path / "d").exists()


def test_interrupted_leaves_nothing(tmp_path: Path) -> None:
    process = start("--people", "3000000", "--companies", "0", "--seed", "1", "--out", str(tmp_path / "d"))
    end = time.monotonic() + 30
    while not list(tmp_path.glob(".d.*.partial")) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(tmp_path.iterdir()), "it never began"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
