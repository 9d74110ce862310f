"""Speak a few texts with the checkpoints of a training as they come, for TensorBoard and MLflow."""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from cosyflow.errors import Problem, RefusalError
from cosyflow.families import part_names


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--train_dir", required=True, help="folder of a training, with its checkpoints")
    parser.add_argument("--pretrained_dir", required=True, help="model directory that has the parts of the others")
    parser.add_argument("--list", required=True, metavar="FILE", help="what to speak, as for cosyflow evaluate")
    parser.add_argument("--config", default="", help="recipe; by default recipe.yaml of the training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replaces a recipe's setting")
    parser.add_argument("--part", choices=part_names(), help="that is trained; by default as the checkpoints say")
    parser.add_argument("--num_utts", type=int, default=3, help="the first of the list that are spoken; 0 is all")
    parser.add_argument("--every", type=int, default=0, help="updates between checkpoints that are heard; 0 hears all")
    parser.add_argument("--follow", action="store_true", help="go on with the newest until the training has ended")
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between two looks of --follow")
    parser.add_argument("--tensorboard_dir", default="", help="for audio and pictures")
    parser.add_argument("--mlflow_uri", default="", help="tracking server of the training's run, for artifacts")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")


def run(args: argparse.Namespace) -> None:
    from cosyflow import storage
    from cosyflow.evaluation.evaluate import refuse_prompts
    from cosyflow.evaluation.listing import read_list
    from cosyflow.evaluation.progress import LABEL, Listening
    from cosyflow.evaluation.shown import show_on, to_mlflow, to_tensorboard
    from cosyflow.progress import say
    from cosyflow.run.recipes import load_recipe
    from cosyflow.run.stages.train import RECIPE_FILE

    _refuse(args)
    config = args.config or storage.join(args.train_dir, RECIPE_FILE)
    if not args.config and not storage.exists(config):
        raise RefusalError([Problem("--config", f"{config} is not there; name the recipe of the training")])
    entries = read_list(args.list)[: args.num_utts or None]
    refuse_prompts(entries, args.list)
    with nullcontext(config) if args.config else storage.local_copy(config) as place:
        recipe = load_recipe(str(place), args.set)
    part = args.part or ""
    listening = Listening(args.train_dir, args.pretrained_dir, recipe, entries, part, args.every, args.seed)
    places = {}
    if args.tensorboard_dir:
        places["TensorBoard"] = to_tensorboard(args.tensorboard_dir)
    if args.mlflow_uri:
        places["MLflow"] = to_mlflow(args.mlflow_uri, args.train_dir)
    show = show_on(places)
    count = listening.follow(show, args.interval) if args.follow else listening.speak_all(show)
    say(LABEL, f"{count} checkpoints were heard")


def _refuse(args: argparse.Namespace) -> None:
    problems = [
        Problem(f"--{name}", f"{value} is negative; give 0 or more")
        for name in ("num_utts", "every", "interval")
        if not (value := getattr(args, name)) >= 0
    ]
    if problems:
        raise RefusalError(problems)
