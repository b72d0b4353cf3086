"""Private memory of processes, looked at from outside a few times a second while something is measured.

Counted are ``RssAnon`` and ``VmSwap`` of ``/proc/<pid>/status``: pages that belong to no file and to no shared segment, so
that neither PostgreSQL's shared buffers nor the code of libraries is in the figure. Pages that a forked worker still shares
with its parent count for both, so the figure is never too low. ``smaps_rollup`` would say nearly the same, but walks the
page tables each time, which holds up a large process; its ``Private_*`` count a page of shared buffers that only one
process has touched so far, and its ``Pss_Anon`` makes a process look smaller while its workers run.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

INTERVAL = 0.2  # seconds
PROC = Path("/proc")


def private(pid: int) -> int:
    """Bytes that the process alone holds; 0 when it is gone."""
    with contextlib.suppress(OSError):
        lines = (PROC / str(pid) / "status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "VmSwap:")))
    return 0


def family(pid: int) -> Iterator[int]:
    """The process and all that descend from it."""
    yield pid
    for thread in _listed(PROC / str(pid) / "task"):
        with contextlib.suppress(OSError):
            for child in (thread / "children").read_text().split():
                yield from family(int(child))


def title(pid: int) -> str:
    """How the process calls itself: a PostgreSQL backend names its database there."""
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


class Watch:
    """The largest private memory of any one process, in bytes, while the context lasts: ``peaks`` by name of the family.

    ``families``: name -> process number at its head. ``counts``: which processes matter, all by default.
    """

    def __init__(self, families: dict[str, int], counts: Callable[[int], bool] = lambda pid: True) -> None:
        self.families, self.counts = families, counts
        self.peaks = dict.fromkeys(families, 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            for name, head in self.families.items():
                self.peaks[name] = max(self.peaks[name], self._largest(family(head)))
            if self._over.wait(INTERVAL):
                return

    def _largest(self, pids: Iterable[int]) -> int:
        return max((private(pid) for pid in pids if self.counts(pid)), default=0)


def _listed(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []
