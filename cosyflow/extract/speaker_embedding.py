"""Stage 1: one vector for each utterance and each speaker, from CAM++."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from cosyflow import storage
from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE
from cosyflow.errors import CosyFlowError, PlaceError
from cosyflow.extract.device import AUTO
from cosyflow.extract.inputs import speaker_fbank
from cosyflow.extract.job import Extractor, Item, UnitResult
from cosyflow.extract.model import SPEAKER, Array, ModelError, ModelFile, OnnxModel, RunTime, require_model
from cosyflow.extract.outputs import extract_corpus, save_table
from cosyflow.extract.speaker_means import speaker_means
from cosyflow.progress import say
from cosyflow.stage import StageResult

EMBEDDING_SIZE = 192
UTT2EMBEDDING = "utt2embedding.pt"
SPK2EMBEDDING = "spk2embedding.pt"
SPEAKERS = "speakers"
"""The names of the speakers, one a line."""


@dataclass(frozen=True)
class SpeakerEmbedder:
    """Works with a model of CAM++'s signature; fbanks of equal length go through it as one batch."""

    model: OnnxModel

    @classmethod
    def load(cls, file: ModelFile, device: int = 0) -> SpeakerEmbedder:
        return cls(OnnxModel.load(file, SPEAKER, device))

    def loader(self) -> Callable[[int], Extractor]:
        return partial(SpeakerEmbedder.load, self.model.file)

    def extract(self, items: Sequence[Item]) -> UnitResult:
        result = UnitResult()
        by_length: dict[int, list[tuple[str, torch.Tensor]]] = {}
        for item in items:
            try:
                fbank = speaker_fbank(item.wav)
            except PlaceError:
                raise
            except CosyFlowError as error:
                result.rejects[item.utt] = str(error)
            else:
                by_length.setdefault(len(fbank), []).append((item.utt, fbank))
        for group in by_length.values():
            if self.model.takes_batches:
                self._embed(group, result)
            else:
                for one in group:
                    self._embed([one], result)
        return result

    def _embed(self, group: Sequence[tuple[str, torch.Tensor]], result: UnitResult) -> None:
        fbanks = torch.stack([fbank for _, fbank in group]).numpy()  # [B, T, 80]
        try:
            embeddings = self._run(fbanks, result.run_time)
        except ModelError as error:
            if len(group) == 1:
                result.rejects[group[0][0]] = str(error)
                return
            for one in group:
                self._embed([one], result)
            return
        for (utt, _), embedding in zip(group, embeddings, strict=True):
            if np.isfinite(embedding).all():
                result.values[utt] = embedding.tolist()
            else:
                result.rejects[utt] = "its embedding is not finite"

    def _run(self, fbanks: Array, run_time: RunTime) -> Array:
        embeddings = self.model.run(fbanks, run_time=run_time).reshape(len(fbanks), -1)
        if embeddings.shape[1] != EMBEDDING_SIZE:
            name, size = self.model.file.name, embeddings.shape[1]
            raise CosyFlowError(f"{name}: its embeddings have {size} numbers, CosyVoice needs {EMBEDDING_SIZE}")
        return embeddings


def extract_speaker_embeddings(
    kaldi_dir: str,
    output_dir: str,
    onnx_path: str,
    num_processes: int = 1,
    max_reject_share: float = DEFAULT_MAX_REJECT_SHARE,
    num_threads: int = 0,
    name: str = "",
    device: str = AUTO,
) -> StageResult:
    """Embeds every utterance of a Kaldi folder and averages the embeddings of each speaker.

    Writes `utt2embedding.pt` and `spk2embedding.pt` (dictionaries of lists of 192 floats, as torch saves them, in the
    order of wav.scp), `speakers` and `rejects.tsv`. A speaker's embedding is the mean over those of its utterances that
    are not far off (see cosyflow.extract.speaker_means). An interrupted call goes on where it stopped when it is made
    again.

    Args:
        kaldi_dir: folder with wav.scp and the other Kaldi files, local or s3://.
        output_dir: where the files go; it may be the same folder.
        onnx_path: CAM++ or a model with its signature.
        num_processes: above 1, a corpus of thousands of utterances is divided among that number of processes.
        max_reject_share: fail when more than this share of the utterances cannot be used.
        num_threads: how many work at once; 0 is one for each core.
        name: the subset, for the progress lines.
        device: where the model computes: auto, cpu, or cuda.
    Raises:
        CosyFlowError: no or another model, no CUDA where it is asked for, unusable Kaldi files, too many rejects.
    """
    require_model(onnx_path)
    with storage.local_copy(onnx_path) as path:
        embedder = SpeakerEmbedder.load(ModelFile(str(path), onnx_path, device))
        extraction = extract_corpus(
            "speaker-embedding",
            kaldi_dir,
            output_dir,
            embedder,
            num_threads,
            num_processes,
            max_reject_share,
            name,
        )
    speakers = speaker_means(extraction.data.utterances_by_speaker, extraction.values)
    save_table(storage.join(output_dir, UTT2EMBEDDING), extraction.values)
    save_table(storage.join(output_dir, SPK2EMBEDDING), speakers.means)
    storage.write_text(storage.join(output_dir, SPEAKERS), "".join(f"{speaker}\n" for speaker in speakers.means))
    if speakers.left_out:
        far_off = f"{len(speakers.left_out)} utterances are far off, e.g. {speakers.left_out[0]}"
        say(f"speaker-embedding {name}".rstrip(), f"{far_off}: they are in no speaker's mean")
    counts = {"speakers": len(speakers.means), "left_out_of_means": len(speakers.left_out)}
    return extraction.finish(output_dir, [UTT2EMBEDDING, SPK2EMBEDDING, SPEAKERS], counts)
