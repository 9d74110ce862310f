"""Stage 7: export a trained model as TorchScript and ONNX, or as a complete model directory."""

from __future__ import annotations

import argparse

from cosyflow.errors import Problem, RefusalError
from cosyflow.families import part, part_names


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="recipe, e.g. conf/cosyvoice2.yaml")
    parser.add_argument("--output_dir", required=True, help="folder to write to")
    one = parser.add_argument_group("one part")
    one.add_argument("--model", choices=part_names(), default=part_names()[0], help="which part the weights are of")
    one.add_argument("--checkpoint", default="", help="weights to export, e.g. the averaged llm.pt")
    complete = parser.add_argument_group(
        "a complete model directory, from which the official code and synthesize speak"
    )
    complete.add_argument(
        "--pretrained_dir", default="", help="gives the parts that are not trained, tokenizers and speaker model"
    )
    for name in part_names():
        complete.add_argument(f"--{name}_model", default="", help=_help_of_weights(name))


def _help_of_weights(name: str) -> str:
    """A vocoder's file has another name in a training than in a model directory, as the official ones do."""
    spoken, *trained = part(name).weights
    if not trained:
        return "trained weights"
    return f"trained weights: {trained[0]}, as average writes it; {spoken} of a model directory is its generator alone"


def run(args: argparse.Namespace) -> None:
    from cosyflow.config.load import load_config
    from cosyflow.lease import held
    from cosyflow.release.export import export_model
    from cosyflow.release.model_dir import assemble_model_dir

    trained = {part: weights for part in part_names() if (weights := getattr(args, f"{part}_model"))}
    if bool(args.checkpoint) == bool(args.pretrained_dir):
        text = "give it to export one part, or --pretrained_dir to make a model directory, and not both"
        raise RefusalError([Problem("--checkpoint", text)])
    if trained and not args.pretrained_dir:
        options = [f"--{part}_model" for part in part_names()]
        text = f"is missing; {', '.join(options[:-1])} and {options[-1]} need it, which has the other parts"
        raise RefusalError([Problem("--pretrained_dir", text)])
    recipe = load_config(args.config)
    with held(args.output_dir, f"export {args.output_dir}"):
        if args.pretrained_dir:
            assemble_model_dir(recipe, trained, args.pretrained_dir, args.output_dir)
        else:
            export_model(recipe, args.model, args.checkpoint, args.output_dir)
