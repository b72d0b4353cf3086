"""``python -m tests.contract SOURCE…`` is ``yici sources expect``: it writes ``expected.csv`` and ``expected_rejects.csv``
anew. Read the difference before keeping it."""

from __future__ import annotations

import sys

from connectors import source
from hub import contracts

if __name__ == "__main__":
    for name in sys.argv[1:]:
        accepted, kept = contracts.expect(source.read(contracts.folder_of(name)))
        print(f"{name}: {accepted} accepted, {kept} kept back")
