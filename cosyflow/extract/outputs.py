"""From a Kaldi folder to the files of an extraction stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cosyflow import storage
from cosyflow.corpus.kaldi import KaldiData, read_kaldi
from cosyflow.corpus.rejects import REJECTS, RejectTable, read_rejects
from cosyflow.extract.job import Extractor, Workers, job_identity, plan_units, run_job
from cosyflow.extract.model import OnnxModel, RunTime
from cosyflow.extract.parts import Parts
from cosyflow.progress import say
from cosyflow.stage import StageResult


@dataclass(frozen=True)
class Extraction:
    """The finished work of an extraction stage, before its files are written.

    Attributes:
        values: a list of numbers by utterance, in the order of wav.scp.
        rejects: the utterances that have none.
        run_time: of the utterances that were worked on now, not in an interrupted earlier run.
    """

    data: KaldiData
    values: dict[str, list[Any]]
    rejects: RejectTable
    run_time: RunTime
    model: OnnxModel
    parts: Parts

    def finish(
        self,
        output_dir: str,
        files: Sequence[str],
        counts: Mapping[str, int],
        details: Mapping[str, Any] | None = None,
    ) -> StageResult:
        """Writes the table of rejects, removes the parts and returns what was made. The other files must be there."""
        self._keep_rejects_of_other_utterances(output_dir)
        self.rejects.write(output_dir)
        self.parts.remove()
        total = len(self.data.utterances)
        return StageResult(
            counts={"inputs": total, "outputs": len(self.values), "rejects": total - len(self.values), **counts},
            files=[*files, REJECTS],
            details={
                "device": self.model.provider,
                "outside_onnx": round(self.run_time.outside_model, 3),
                **(details or {}),
            },
            stand_ins=self.model.is_stand_in,
        )

    def _keep_rejects_of_other_utterances(self, output_dir: str) -> None:
        """Where the output folder is the corpus itself, its table also lists utterances that never came this far."""
        ours = {utterance.utt for utterance in self.data.utterances}
        for utt, reason in read_rejects(output_dir).items():
            if utt not in ours:
                self.rejects.add(utt, reason)


def extract_corpus(
    kind: str,
    kaldi_dir: str,
    output_dir: str,
    extractor: Extractor,
    num_threads: int,
    num_processes: int,
    max_reject_share: float,
    name: str,
) -> Extraction:
    """Runs a model over all utterances of a Kaldi folder.

    Args:
        kind: name of the stage.
        extractor: makes a list of numbers of each utterance.
        name: the subset, for the progress lines.
    Raises:
        CosyFlowError: unusable Kaldi files, or more than `max_reject_share` of the utterances are rejected; the parts
            written until then serve the next attempt.
    """
    data = read_kaldi(kaldi_dir)
    model = extractor.model
    label = f"{kind} {name}".strip()
    workers = Workers.choose(num_threads, num_processes, len(data.utterances))
    why_not = f" (no CUDA: {model.why_no_cuda})" if model.why_no_cuda else ""
    say(label, f"{storage.name(model.file.name)} on {model.provider}{why_not}, {workers}")
    parts = Parts(output_dir, job_identity(kind, storage.digest(model.file.path), data))
    result = run_job(plan_units(data, kaldi_dir), extractor, parts, workers, label)
    rejects = RejectTable()
    for utterance in data.utterances:
        if utterance.utt in result.rejects:
            rejects.add(utterance.utt, result.rejects[utterance.utt])
    rejects.check(len(data.utterances), max_reject_share)
    values = {each.utt: result.values[each.utt] for each in data.utterances if each.utt in result.values}
    return Extraction(data, values, rejects, result.run_time, model, parts)


def save_table(uri: str, values: Mapping[str, Sequence[float]]) -> None:
    """Saves a dictionary of lists in torch's format, atomically; `torch.load(weights_only=True)` reads it."""
    with storage.open_write(uri) as stream:
        torch.save(dict(values), stream)
