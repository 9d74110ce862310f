"""Stage 2, speech-token: discrete speech tokens of a subset's utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cosyflow import storage
from cosyflow.pretrained import SPEECH_TOKENIZERS, is_stand_in, locate
from cosyflow.stage import Manifest, StageResult, run_stage
from cosyflow.stages.recipe import load_recipe


def run(
    prepared: Manifest,
    data_root: str,
    recipe: str,
    overrides: Sequence[str],
    pretrained_dir: str,
    num_processes: int,
    max_reject_share: float,
    active: bool,
) -> Manifest:
    """Writes utt2speech_token.pt with the speech tokenizer of the recipe's version."""
    version = load_recipe(recipe, overrides).version
    model = locate(pretrained_dir, SPEECH_TOKENIZERS[version].file) if active else ""

    def work(output: str) -> StageResult:
        from cosyflow.extract.speech_token import extract_speech_tokens

        made = extract_speech_tokens(
            prepared.uri, output, model, num_processes=num_processes, max_reject_share=max_reject_share
        )
        return replace(made, stand_ins=is_stand_in(pretrained_dir))

    return run_stage(
        "speech-token",
        prepared.name,
        storage.join(data_root, version),
        inputs=[prepared],
        settings={"model": storage.digest(model) if active else "", "max_reject_share": max_reject_share},
        active=active,
        work=work,
        code=["cosyflow.audio", "cosyflow.extract"],
    )
