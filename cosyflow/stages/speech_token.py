"""Stage 2, speech-token: discrete speech tokens of a subset's utterances."""

from __future__ import annotations

from collections.abc import Sequence

from cosyflow import storage
from cosyflow.pretrained import SPEECH_TOKENIZERS, locate
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe
from cosyflow.stages.selected import run_selected


def run(
    prepared: Manifest,
    data_root: str,
    recipe: str,
    overrides: Sequence[str],
    pretrained_dir: str,
    num_processes: int,
    max_reject_share: float,
    activity: Activity,
) -> Manifest:
    """Writes utt2speech_token.pt with the speech tokenizer of the recipe's version."""
    version = load_recipe(recipe, overrides).version
    model = locate(pretrained_dir, SPEECH_TOKENIZERS[version].file) if activity is Activity.WORKS else ""

    def work(output: str) -> StageResult:
        from cosyflow.extract.speech_token import extract_speech_tokens

        return extract_speech_tokens(
            prepared.uri,
            output,
            model,
            num_processes=num_processes,
            max_reject_share=max_reject_share,
            name=prepared.name,
        )

    return run_selected(
        "speech-token",
        prepared.name,
        storage.join(data_root, version),
        inputs=[prepared],
        settings={"model": storage.digest(model) if model else "", "max_reject_share": max_reject_share},
        activity=activity,
        work=work,
        code=["cosyflow.audio", "cosyflow.extract"],
    )
