"""Sample a reference model's own speech for each utterance, as the rejected half of pairs for --dpo."""

from __future__ import annotations

import argparse
import math

from cosyflow.errors import Problem, RefusalError


def configure(parser: argparse.ArgumentParser) -> None:
    from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE

    parser.add_argument("--src_dir", required=True, help="folder with wav.scp and the other Kaldi files")
    parser.add_argument("--des_dir", required=True, help="folder of the samples; parquet --dpo reads <src_dir>_reject")
    parser.add_argument("--ref_model", required=True, help="complete model directory of the reference")
    parser.add_argument(
        "--config", default="", help="recipe of the reference; by default the settings in its directory"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replaces a recipe's setting")
    parser.add_argument(
        "--token_dir", default="", help="folder with the recordings' utt2speech_token.pt, if not src_dir"
    )
    parser.add_argument(
        "--prompt", choices=("own", "other"), default="own", help="the utterance itself, or another of its speaker"
    )
    parser.add_argument("--spoken", action="store_true", help="speak the samples, and take the tokens of that speech")
    parser.add_argument("--judges", default="", help="folder or YAML file: only samples that they find worse are taken")
    parser.add_argument(
        "--least", action="append", default=[], metavar="METRIC=AMOUNT", help="how much worse counts for the judges"
    )
    parser.add_argument("--language", default="en", help="of the texts, as Whisper abbreviates it")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--num_processes", type=int, default=0, help="0 is one for each core")
    parser.add_argument(
        "--max_reject_share",
        type=float,
        default=DEFAULT_MAX_REJECT_SHARE,
        help="fail when more than this share cannot be sampled",
    )


def run(args: argparse.Namespace) -> None:
    from cosyflow.cli.model_recipe import recipe_of_model
    from cosyflow.evaluation.judges.named import find_judges
    from cosyflow.evaluation.speaking import inspect_model
    from cosyflow.lease import held
    from cosyflow.preferences.make import Wanted, make_reject_samples
    from cosyflow.preferences.sampling import LABEL, Sampling
    from cosyflow.progress import say

    least = _least(args)
    model = inspect_model(args.ref_model, recipe_of_model(args.ref_model, args.config, args.set, "--config"))
    judges = find_judges(args.judges) if args.judges else None
    sampling = Sampling(model, args.prompt, args.spoken, judges is not None, args.seed)
    wanted = Wanted(
        src_dir=args.src_dir,
        des_dir=args.des_dir,
        sampling=sampling,
        token_dir=args.token_dir,
        judges=judges,
        least=least,
        language=args.language,
        max_reject_share=args.max_reject_share,
        num_processes=args.num_processes,
    )
    with held(args.des_dir, f"{LABEL} {args.des_dir}"):
        counts = make_reject_samples(wanted).counts
    failed = counts["rejects"] - counts["equal"] - counts["alike"]
    say(
        LABEL,
        f"{counts['outputs']} pairs of {counts['inputs']} utterances; {counts['equal']} samples are equal to the"
        f" recording, {counts['alike']} not worse, {failed} utterances cannot be sampled ({args.des_dir}/rejects.tsv)",
    )


def _least(args: argparse.Namespace) -> dict[str, float]:
    from cosyflow.preferences.judging import LEAST

    found, problems = dict(LEAST), []
    for word in args.least:
        name, _, amount = word.partition("=")
        value = _number(amount)
        if name not in LEAST or value is None or value <= 0:
            problems.append(Problem("--least", f"{word}: write METRIC=AMOUNT, above 0, of {', '.join(LEAST)}"))
        else:
            found[name] = value
    if args.least and not args.judges:
        problems.append(Problem("--least", "has a meaning with --judges only; name them, or leave it out"))
    if args.num_processes < 0:
        problems.append(Problem("--num_processes", f"{args.num_processes} is negative; give 0 or more"))
    if not 0 <= args.max_reject_share <= 1:
        problems.append(Problem("--max_reject_share", f"{args.max_reject_share} is not a share; give 0 to 1"))
    if problems:
        raise RefusalError(problems)
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
