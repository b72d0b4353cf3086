"""``make demo``. Everything slow to load comes after the first moment at which Ctrl-C is answered properly."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """The exit code: 0 when every run succeeded, 130 when interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _nothing_to_stop)
    from demo import course

    return course.main()


def _nothing_to_stop(number: int, frame: FrameType | None) -> None:
    """Until the course begins, and sets its own answer to these signals, nothing has been started. Not by an exception:
    an import may drop it."""
    os.write(sys.stderr.fileno(), "interrupted 已中断\n".encode())
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
