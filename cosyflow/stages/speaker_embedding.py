"""Stage 1, speaker-embedding: CAM++ embeddings of a subset's utterances and speakers."""

from __future__ import annotations

from dataclasses import replace

from cosyflow import storage
from cosyflow.pretrained import SPEAKER_MODEL, is_stand_in, locate
from cosyflow.stage import Manifest, StageResult, run_stage


def run(
    prepared: Manifest, data_root: str, pretrained_dir: str, num_processes: int, max_reject_share: float, active: bool
) -> Manifest:
    """Writes utt2embedding.pt and spk2embedding.pt with the pretrained directory's campplus.onnx."""
    model = locate(pretrained_dir, SPEAKER_MODEL) if active else ""

    def work(output: str) -> StageResult:
        from cosyflow.extract.speaker_embedding import extract_speaker_embeddings

        made = extract_speaker_embeddings(
            prepared.uri, output, model, num_processes=num_processes, max_reject_share=max_reject_share
        )
        return replace(made, stand_ins=is_stand_in(pretrained_dir))

    return run_stage(
        "speaker-embedding",
        prepared.name,
        data_root,
        inputs=[prepared],
        settings={"model": storage.digest(model) if active else "", "max_reject_share": max_reject_share},
        active=active,
        work=work,
        code=["cosyflow.audio", "cosyflow.extract"],
    )
