"""Stage 0, prepare: the Kaldi files of a subset."""

from __future__ import annotations

from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.download import source_folder
from cosyflow.stages.selected import run_selected


def run(downloaded: Manifest, data_root: str, instruct: str, max_reject_share: float, activity: Activity) -> Manifest:
    """Writes wav.scp, text, utt2spk and spk2utt.

    Args:
        instruct: a sentence that is written as the instruction of every utterance; empty: none.
        max_reject_share: above this share of unusable utterances the stage fails.
    """

    def work(output: str) -> StageResult:
        from cosyflow.corpus.prepare import prepare

        return prepare(source_folder(downloaded), output, instruct=instruct or None, max_reject_share=max_reject_share)

    return run_selected(
        "prepare",
        downloaded.name,
        data_root,
        inputs=[downloaded],
        # the Kaldi files name the speech by its place, so they are of no use when it lies elsewhere
        settings={"source": source_folder(downloaded), "instruct": instruct, "max_reject_share": max_reject_share},
        activity=activity,
        work=work,
        code=["cosyflow.corpus"],
    )
