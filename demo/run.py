"""``make demo``. Everything slow to load comes after the first moment at which Ctrl-C is answered properly."""

from __future__ import annotations

import sys


def main() -> int:
    """The exit code: 0 when every run succeeded, 130 when interrupted."""
    try:
        from demo import course

        return course.main()
    except KeyboardInterrupt:
        print("interrupted 已中断", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
