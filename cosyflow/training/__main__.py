"""One process of a training run: `torchrun ... -m cosyflow.training OPTIONS`, with the options of `cosyflow train`."""

from __future__ import annotations

import argparse
import sys

from cosyflow.training.arguments import Arguments, add_arguments
from cosyflow.training.failure import leaving_failure
from cosyflow.training.member import member_of_a_job

STOPPED = 143
"""Exit status after a request to stop: 128 and SIGTERM, so that whoever started the run knows it is not finished."""
LEFT_ALONE = 75
"""Exit status of the rank that stopped the run because nobody follows it: EX_TEMPFAIL, the same command goes on."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m cosyflow.training", allow_abbrev=False)
    add_arguments(parser)
    arguments = Arguments.of(parser.parse_args())
    with member_of_a_job(), leaving_failure(arguments.model_dir):
        from cosyflow.training.process import run

        ending = run(arguments)
    if not ending.finished:
        if ending.reason:
            print(ending.reason, file=sys.stderr)  # noqa: T201
        print(f"stopped after update {ending.position.update}; the same command goes on", file=sys.stderr)  # noqa: T201
        sys.exit(LEFT_ALONE if ending.reason else STOPPED)


if __name__ == "__main__":
    main()
