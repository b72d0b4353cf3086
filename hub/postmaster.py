"""Which process is the server of a data folder, told without asking it: one that does not answer is not dead."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def of(folder: Path) -> int | None:
    """The process number in ``postmaster.pid`` of ``folder`` if that process is alive and works on this folder.

    None where the file is a leftover: its process is dead, or the number is another program's by now.
    """
    try:
        pid = int((folder / "postmaster.pid").read_text().split("\n", 1)[0])
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or not _works_on(process, folder):
            return None
    except (FileNotFoundError, NotADirectoryError, ValueError, psutil.NoSuchProcess):
        return None
    return pid


def _works_on(process: psutil.Process, folder: Path) -> bool:
    """By how it was called, or where it is if the folder was moved since; yes where that cannot be seen."""
    try:
        words = process.cmdline()
    except psutil.AccessDenied:
        return True
    if not words or Path(words[0]).name != "postgres" or "-D" not in words[1:-1]:
        return False
    places = [words[words.index("-D") + 1]]
    with contextlib.suppress(psutil.AccessDenied):
        places.append(process.cwd())
    for place in places:
        with contextlib.suppress(OSError):
            if folder.samefile(place):
                return True
    return False
