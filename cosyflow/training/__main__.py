"""One process of a training run: `torchrun ... -m cosyflow.training OPTIONS`, with the options of `cosyflow train`."""

from __future__ import annotations

import argparse
import signal
import sys

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from cosyflow.errors import CosyFlowError
from cosyflow.training.arguments import Arguments, add_arguments
from cosyflow.training.lifeline import end_with_parent

STOPPED = 143
"""Exit status after a request to stop: 128 and SIGTERM, so that whoever started the run knows it is not finished."""


def main() -> None:
    end_with_parent(signal.SIGKILL)  # torchrun, whose sessions of their own keep other signals from its processes
    parser = argparse.ArgumentParser(prog="python -m cosyflow.training", allow_abbrev=False)
    add_arguments(parser)
    arguments = Arguments.of(parser.parse_args())
    errors = get_error_handler()
    errors.initialize()
    from cosyflow.training.process import run

    try:
        ending = run(arguments)
    except Exception as error:
        errors.record_exception(error)  # for the launcher, which tells the error of the rank that failed first
        if not isinstance(error, CosyFlowError):
            raise
        sys.exit(f"error: {error}")
    if not ending.finished:
        print(f"stopped after update {ending.position.update}; the same command goes on", file=sys.stderr)  # noqa: T201
        sys.exit(STOPPED)


if __name__ == "__main__":
    main()
