"""Let a model speak a fixed list, let judges hear it, and decide whether it may take the champion's place."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from cosyflow.errors import Problem, RefusalError

if TYPE_CHECKING:
    from cosyflow.evaluation.listing import Entry


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model_dir", required=True, help="complete model directory, as export --pretrained_dir makes")
    parser.add_argument(
        "--list",
        required=True,
        nargs="+",
        metavar="FILE",
        help="tab-separated, header `utt prompt_wav prompt_text text`, and if wanted `wav` (a recording of the text)"
        " and `spk`; or Kaldi folders, of which a list is made",
    )
    parser.add_argument("--output_dir", required=True, help="for report.json, and the speech")
    parser.add_argument("--judges", default="", help="folder or YAML file of judges, local or s3://")
    parser.add_argument("--champion", default="", help="model directory to compare with")
    parser.add_argument("--config", default="", help="recipe of the model; by default the settings in its directory")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replaces a recipe's setting")
    parser.add_argument("--champion_config", default="", help="recipe of the champion; by default --config")
    parser.add_argument("--cache_dir", default="", help="keeps speech and answers; by default OUTPUT_DIR/cache")
    parser.add_argument("--num_utts", type=int, default=0, help="of Kaldi folders: at most that many; 0 is all")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--language", default="en", help="of the texts, as Whisper abbreviates it")
    parser.add_argument("--num_processes", type=int, default=0, help="0 is one for each core")
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one JSON document, the report"
    )


def run(args: argparse.Namespace) -> None:
    from cosyflow.cli.model_recipe import recipe_of_model
    from cosyflow.evaluation.evaluate import Evaluation, evaluate
    from cosyflow.evaluation.judges.named import find_judges
    from cosyflow.evaluation.report import table
    from cosyflow.evaluation.speaking import inspect_model

    _refuse(args)
    recipe = recipe_of_model(args.model_dir, args.config, args.set, "--config")
    candidate = inspect_model(args.model_dir, recipe)
    champion = None
    if args.champion:
        config = args.champion_config or args.config
        champion = inspect_model(args.champion, recipe_of_model(args.champion, config, args.set, "--champion_config"))
    wanted = Evaluation(
        entries=_entries(args),
        list_uri=" ".join(args.list),
        candidate=candidate,
        champion=champion,
        judges=find_judges(args.judges),
        output_dir=args.output_dir,
        gate=recipe.gate,
        cache_dir=args.cache_dir,
        seed=args.seed,
        language=args.language,
        num_processes=args.num_processes,
    )
    with redirect_stdout(sys.stderr if args.format == "json" else sys.stdout):
        report = evaluate(wanted)
    if args.format == "json":
        print(json.dumps(report, indent=2, ensure_ascii=False))
        return
    print(*table(report), sep="\n")
    _print_decision(report["decision"])


def _print_decision(decision: Any) -> None:
    print(f"decision: {decision['outcome']}", *decision["reasons"], sep="\n  ")


def _refuse(args: argparse.Namespace) -> None:
    problems = []
    for name in ("num_utts", "num_processes"):
        if getattr(args, name) < 0:
            problems.append(Problem(f"--{name}", f"{getattr(args, name)} is negative; give 0 or more"))
    if problems:
        raise RefusalError(problems)


def _entries(args: argparse.Namespace) -> list[Entry]:
    from cosyflow import storage
    from cosyflow.evaluation.listing import make_list, read_list, write_list

    folders = [place for place in args.list if storage.is_folder(place)]
    if not folders and len(args.list) == 1:
        return read_list(args.list[0])
    if len(folders) < len(args.list):
        raise RefusalError([Problem("--list", f"{' '.join(args.list)}: name one file, or Kaldi folders alone")])
    entries = make_list(folders, args.seed, args.num_utts)
    write_list(entries, storage.join(args.output_dir, "list.tsv"))
    return entries
