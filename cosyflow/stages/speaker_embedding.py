"""Stage 1, speaker-embedding: CAM++ embeddings of a subset's utterances and speakers."""

from __future__ import annotations

from cosyflow import storage
from cosyflow.pretrained import SPEAKER_MODEL, locate
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.selected import run_selected


def run(
    prepared: Manifest,
    data_root: str,
    pretrained_dir: str,
    num_processes: int,
    max_reject_share: float,
    activity: Activity,
) -> Manifest:
    """Writes utt2embedding.pt and spk2embedding.pt with the pretrained directory's campplus.onnx."""
    model = locate(pretrained_dir, SPEAKER_MODEL) if activity is Activity.WORKS else ""

    def work(output: str) -> StageResult:
        from cosyflow.extract.speaker_embedding import extract_speaker_embeddings

        return extract_speaker_embeddings(
            prepared.uri,
            output,
            model,
            num_processes=num_processes,
            max_reject_share=max_reject_share,
            name=prepared.name,
        )

    return run_selected(
        "speaker-embedding",
        prepared.name,
        data_root,
        inputs=[prepared],
        settings={"model": storage.digest(model) if model else "", "max_reject_share": max_reject_share},
        activity=activity,
        work=work,
        code=["cosyflow.audio", "cosyflow.extract"],
    )
