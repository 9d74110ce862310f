"""Does one stage of a small real run in a folder, after those before it; the last line tells its manifest, as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError
from cosyflow.run import config
from cosyflow.run.chain import inputs_of
from cosyflow.run.execute import execute, find_work
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from cosyflow.standins.models import make_stand_ins
from tests.unit.run.world import make_wav

SUBSETS = ("train-a", "dev")
UTTERANCES = 8
OVERRIDES = ("train_conf.max_epoch=2", "train_conf.save_per_step=2")


def make_inputs(folder: Path) -> None:
    """Speech and stand-ins for the pretrained models, unless they are there."""
    mark = folder / "inputs"
    if mark.exists():
        return
    for subset in SUBSETS:
        for number in range(UTTERANCES):
            utterance = folder / "speech" / subset / "84" / "121" / f"84_121_{number:06}_00000{len(subset)}"
            make_wav(utterance.with_suffix(".wav"), pitch=number + 1, seconds=1.5 + number / 10)
            utterance.with_suffix(".normalized.txt").write_text(f"This is sentence {number} of {subset}.")
    make_stand_ins(folder / "pretrained")
    mark.write_text("")


def record_of(folder: Path) -> Record:
    return Record.of(
        config.from_parameters(
            {
                "data_root": str(folder / "data"),
                "recipe": "cosyvoice2.tiny",
                "data_url": str(folder / "speech"),
                "pretrained_dir": str(folder / "pretrained"),
                "train_subsets": ["train-a"],
                "dev_subsets": ["dev"],
                "test_subsets": ["none"],
                "overrides": list(OVERRIDES),
                "average_num": 2,
                "num_processes": 1,
                "max_reject_share": 0.0,
                "checkpoint": "",
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("stage")
    parser.add_argument("--forget", action="store_true", help="removes the stage's work")
    args = parser.parse_args()
    make_inputs(args.folder)
    record = record_of(args.folder)
    record.write()
    digests = Digests(record.digests)
    made: dict[tuple[str, str], Manifest] = {}
    try:
        for stage in STAGES.values():
            for name in stage.names(record):
                inputs = [made[before.name, subset] for before, subset in inputs_of(stage, name, record)]
                work = find_work(stage, record, name, inputs, digests)
                if stage.name == args.stage and args.forget:
                    storage.remove(work.folder)
                    continue
                made[stage.name, name] = execute(work, record)
            if stage.name == args.stage:
                break
    except CosyFlowError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(asdict(list(made.values())[-1]) if made else {}))


if __name__ == "__main__":
    main()
