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
    if ending == "well":
        return
    if rank == 0:
        time.sleep(60)  # it must be ended when the other fails
    if ending == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    error = CosyFlowError("utterance x: has no tokens") if ending == "user-error" else KeyError("something")
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
    raise error


if __name__ == "__main__":
    main(sys.argv[1])
