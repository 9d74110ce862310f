"""One process of a training run: `torchrun ... -m cosyflow.training OPTIONS`, with the options of `cosyflow train`."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from cosyflow.credentials import protect
from cosyflow.errors import RefusalError
from cosyflow.processes import make_user_known
from cosyflow.training.arguments import Arguments, add_arguments, check_supported, read_recipe
from cosyflow.training.failure import leaving_failure
from cosyflow.training.member import end_job, member_of_a_job

if TYPE_CHECKING:
    from cosyflow.training.loop import Ending
    from cosyflow.training.setup import Setup
    from cosyflow.training.stop import StopRequest

STOPPED = 143
"""Exit status after a request to stop: 128 and SIGTERM, so that whoever started the run knows it is not finished."""
ABANDONED = 75
"""Exit status of the rank that stopped the run because nobody follows it: EX_TEMPFAIL, the same command goes on."""


def main() -> None:
    make_user_known()
    protect()
    parser = argparse.ArgumentParser(prog="python -m cosyflow.training", allow_abbrev=False)
    add_arguments(parser)
    arguments = Arguments.of(parser.parse_args())
    with member_of_a_job(), leaving_failure(arguments.model_dir):  # before torch is imported, which takes seconds
        ending = run(arguments)
    if not ending.finished:
        if ending.reason:
            print(ending.reason, file=sys.stderr)  # noqa: T201
        print(how_it_stopped(ending), file=sys.stderr)  # noqa: T201
        sys.exit(ABANDONED if ending.reason else STOPPED)


def how_it_stopped(ending: Ending) -> str:
    """A line for a run that was asked to stop. What it had computed is in a checkpoint, if it had computed anything."""
    if not ending.position.update:
        return "stopped before the first update, nothing was saved; the same command begins again"
    return f"stopped after update {ending.position.update}, which is saved; the same command goes on"


def run(arguments: Arguments) -> Ending:
    """Trains as one of the processes that torchrun started, or alone.

    Raises:
        CosyFlowError: what is asked for is not there, or an input is wrong.
    """
    from cosyflow.backends import keep_freed_memory
    from cosyflow.checkpoint.state import Position
    from cosyflow.training.engine.problems import DEEPSPEED
    from cosyflow.training.folder import check_folder
    from cosyflow.training.heartbeat import HEARTBEAT_VARIABLE, watching
    from cosyflow.training.loop import Ending
    from cosyflow.training.parent import PARENT_VARIABLE, watching_parent
    from cosyflow.training.preflight import ask_nccl
    from cosyflow.training.ranks import process_group
    from cosyflow.training.setup import Setup
    from cosyflow.training.stop import StopRequest
    from cosyflow.training.turn import our_turn

    check_supported(arguments)
    recipe = read_recipe(arguments)
    ask_nccl()
    in_group = arguments.train_engine == DEEPSPEED  # which needs one, also for a process alone
    with process_group(arguments.dist_backend, arguments.timeout, in_group) as ranks, StopRequest().listening() as stop:
        heartbeat = os.environ.get(HEARTBEAT_VARIABLE, "") if ranks.is_first else ""
        parent = os.environ.get(PARENT_VARIABLE, "") if ranks.is_first else ""
        setup = Setup(arguments, recipe, ranks)
        _check_share(setup)
        with (
            watching(heartbeat, on_stale=stop.ask),
            watching_parent(parent, on_end=stop.ask),
            our_turn(arguments.model_dir, arguments.model, ranks, stop.__bool__, setup.log) as is_ours,
        ):
            if not is_ours:
                return Ending(Position(), finished=False, reason=stop.reason)
            if ranks.is_first:
                check_folder(arguments, setup.conf)
            if ranks.device.type == "cpu":
                keep_freed_memory()
            return _train(setup, stop)


def _check_share(setup: Setup) -> None:
    """Raises RefusalError when there are more ranks than batches in an update; warns where some of them would wait."""
    from cosyflow.training.engine.problems import share_problems

    for problem in share_problems(setup.conf, setup.arguments.section, setup.ranks.world_size):
        if not problem.is_warning:
            raise RefusalError([problem])
        setup.log(f"warning: {problem}")


def _train(setup: Setup, stop: StopRequest) -> Ending:
    """Trains the part, with checkpoints and metrics written by the first rank."""
    from cosyflow.checkpoint.background import BackgroundWriter
    from cosyflow.checkpoint.writer import CheckpointWriter
    from cosyflow.training.engine import ENGINES
    from cosyflow.training.loop import Training, train
    from cosyflow.training.parts import build_part, load_start
    from cosyflow.training.preflight import preflight
    from cosyflow.training.result import write_result
    from cosyflow.training.resumption import check_fits, choose_resumption
    from cosyflow.training.telemetry import Telemetry, peak_flops
    from cosyflow.training.tracking import Tracker
    from cosyflow.training.tracking.sinks import sinks
    from cosyflow.training.watch import Steps, watching_ranks

    arguments, conf, ranks = setup.arguments, setup.conf, setup.ranks
    setup.log(f"{setup.recipe.version} on {ranks.world_size} x {ranks.device.type}, {setup.compute_dtype}")
    resumption = choose_resumption(arguments, ranks, setup.log)
    part = build_part(setup)
    if resumption is None:
        load_start(part, setup)
    else:
        setup.log(f"goes on from {resumption.name}")
        if arguments.checkpoint:
            setup.log(
                f"--checkpoint {arguments.checkpoint} is not read: {arguments.model_dir} has a training already; to"
                " begin one there, give another --model_dir"
            )
        check_fits(part.objective.model, resumption)
    engine = ENGINES[arguments.train_engine](setup)
    training = Training(part.objective.to(ranks.device), part.data, conf, engine)

    writer, tracker = None, Tracker()
    if ranks.is_first:
        done = resumption.position.update if resumption else 0
        kept = (conf.keep_last, conf.keep_best)
        writer = BackgroundWriter(CheckpointWriter(arguments.model_dir, setup.settings, *kept, done), setup.log)
        tracker = Tracker(sinks(arguments, setup.settings, done))
    peak = peak_flops(ranks.device) if setup.compute_dtype == "bfloat16" else None
    telemetry = Telemetry(conf, ranks, setup.log, tracker.write, peak)
    finished = False
    try:
        preflight(ranks, setup.log)
        steps = Steps()
        with writer or nullcontext(), watching_ranks(steps, ranks, arguments.timeout, setup.say, end_job):
            ending = train(training, telemetry, writer, resumption, stop, arguments.max_steps, steps)
        finished = ending.finished
    finally:
        tracker.close(finished)
    if ranks.is_first and finished:
        write_result(arguments.model_dir, ending.position, ranks, telemetry.tokens_per_second(), setup.data_notes)
    ranks.barrier()
    return ending
