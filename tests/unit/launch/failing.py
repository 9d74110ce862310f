"""A program for the launcher's tests: one process among others, which ends as it is told."""

from __future__ import annotations

import os
import signal
import sys
import time

from cosyflow.errors import CosyFlowError


def main(ending: str) -> None:
    rank = int(os.environ["RANK"])
    print(f"rank {rank} of {os.environ['WORLD_SIZE']}", flush=True)
    if ending == "devices":
        print(f"devices {os.environ['CUDA_VISIBLE_DEVICES']!r}", flush=True)
    if ending in ("well", "devices"):
        return
    if rank == 0 or ending == "waits":
        time.sleep(60)  # it must be ended when the other fails
    if ending == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    from cosyflow.training.member import member_of_a_job

    with member_of_a_job():
        raise CosyFlowError("utterance x: has no tokens") if ending == "user-error" else KeyError("something")


if __name__ == "__main__":
    main(sys.argv[1])
