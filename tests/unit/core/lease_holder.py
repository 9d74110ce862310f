"""A process that takes the lease of a folder, works there for a while, and writes its name into a file, twice."""

from __future__ import annotations

import argparse
import sys
import time

from cosyflow import lease, storage
from cosyflow.errors import CosyFlowError


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("name")
    parser.add_argument("--seconds", type=float, default=0.0, help="of work between the two writes")
    parser.add_argument("--silent", type=float, default=lease.SILENT_SECONDS)
    parser.add_argument("--elsewhere", action="store_true", help="as on another machine, whose processes nobody sees")
    args = parser.parse_args()
    times = lease.Times(renew=args.silent / 10, silent=args.silent, look=min(args.silent / 10, 0.2))
    if args.elsewhere:
        lease.records.this_process = lambda: ""  # type: ignore[assignment]
    made = storage.join(args.folder, "made.txt")
    try:
        with lease.held(args.folder, "some work", args.name, times=times):
            before = storage.read_text(made) if storage.exists(made) else ""
            storage.write_text(made, f"{before}{args.name} begins\n")
            time.sleep(args.seconds)
            storage.write_text(made, f"{before}{args.name} begins\n{args.name} ends\n")
    except CosyFlowError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
