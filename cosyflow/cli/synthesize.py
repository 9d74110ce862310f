"""Speak a text in the voice of a short recording."""

from __future__ import annotations

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model_dir", required=True, help="complete model directory, as export --pretrained_dir makes")
    parser.add_argument("--config", default="", help="recipe of the model; by default the settings in its directory")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replaces a recipe's setting")
    parser.add_argument("--text", required=True, help="what to speak, as one utterance")
    parser.add_argument("--prompt_wav", required=True, help="recording of the voice: 16 kHz or more, at most 30 s")
    parser.add_argument("--prompt_text", required=True, help="what is said there")
    parser.add_argument("-o", "--output", required=True, help="wav file to write")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")


def run(args: argparse.Namespace) -> None:
    from cosyflow.cli.model_recipe import recipe_of_model
    from cosyflow.progress import say
    from cosyflow.synthesis import synthesize
    from cosyflow.synthesis.wav import write_wav

    recipe = recipe_of_model(args.model_dir, args.config, args.set)
    waveform, sample_rate = synthesize(args.model_dir, recipe, args.text, args.prompt_wav, args.prompt_text, args.seed)
    write_wav(waveform, sample_rate, args.output)
    say("synthesize", f"{len(waveform) / sample_rate:.2f} s of speech in {args.output}")
