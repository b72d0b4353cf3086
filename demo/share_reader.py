"""``python -m demo.share_reader PROFILE``: all tables of a share as its stock Delta Sharing client reads them, counted, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import delta_sharing


def main(arguments: Sequence[str]) -> int:
    [profile] = arguments
    found = {}
    for table in delta_sharing.SharingClient(profile).list_all_tables():
        read = delta_sharing.load_as_pandas(f"{profile}#{table.share}.{table.schema}.{table.name}")
        found[table.name] = {"rows": len(read), "columns": list(read.columns)}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
