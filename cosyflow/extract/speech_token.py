"""Stage 2: the speech tokens of each utterance, from a CosyVoice speech tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cosyflow import pretrained, storage
from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE
from cosyflow.errors import AudioError, CosyFlowError
from cosyflow.extract.device import AUTO
from cosyflow.extract.inputs import tokenizer_log_mel
from cosyflow.extract.job import Extractor, Item, UnitResult
from cosyflow.extract.model import TOKENIZER, ModelError, ModelFile, OnnxModel, require_model
from cosyflow.extract.outputs import extract_corpus, save_table
from cosyflow.stage import StageResult

UTT2SPEECH_TOKEN = "utt2speech_token.pt"  # noqa: S105 - the official file name, no secret


@dataclass(frozen=True)
class SpeechTokenizer:
    """Works with a model that takes the log-mel of one utterance at a time."""

    model: OnnxModel
    codebook_size: int

    @classmethod
    def load(cls, file: ModelFile, codebook_size: int, device: int = 0) -> SpeechTokenizer:
        return cls(OnnxModel.load(file, TOKENIZER, device), codebook_size)

    def loader(self) -> Callable[[int], Extractor]:
        return partial(SpeechTokenizer.load, self.model.file, self.codebook_size)

    def extract(self, items: Sequence[Item]) -> UnitResult:
        result = UnitResult()
        for item in items:
            try:
                log_mel = tokenizer_log_mel(item.wav).numpy()
                length = np.array([log_mel.shape[1]], np.int32)
                tokens = self.model.run(log_mel[None], length, run_time=result.run_time).flatten()
            except (ModelError, AudioError) as error:
                result.rejects[item.utt] = str(error)
                continue
            if tokens.size == 0:
                result.rejects[item.utt] = f"{item.wav}: {log_mel.shape[1]} frames of 10 ms give no speech token"
                continue
            self._check(item, int(tokens.min()), int(tokens.max()))
            result.values[item.utt] = tokens.tolist()
        return result

    def _check(self, item: Item, lowest: int, highest: int) -> None:
        wrong = lowest if lowest < 0 else highest
        if not 0 <= wrong < self.codebook_size:
            raise CosyFlowError(
                f"{self.model.file.name}: token {wrong} of {item.utt} is outside the codebook of {self.codebook_size}; "
                "is this the tokenizer of another version?"
            )


def extract_speech_tokens(
    kaldi_dir: str,
    output_dir: str,
    onnx_path: str,
    num_processes: int = 1,
    max_reject_share: float = DEFAULT_MAX_REJECT_SHARE,
    num_threads: int = 0,
    codebook_size: int | None = None,
    name: str = "",
    device: str = AUTO,
) -> StageResult:
    """Tokenizes every utterance of a Kaldi folder.

    Writes `utt2speech_token.pt` (a dictionary of lists of ints, as torch saves it, in the order of wav.scp) and
    `rejects.tsv`. Utterances over 30 s, without a token, or unreadable are rejected. An interrupted call goes on where
    it stopped when it is made again.

    Args:
        kaldi_dir: folder with wav.scp and the other Kaldi files, local or s3://.
        output_dir: where the files go; it may be the same folder.
        onnx_path: a speech tokenizer.
        num_processes: above 1, a corpus of thousands of utterances is divided among that number of processes.
        max_reject_share: fail when more than this share of the utterances cannot be used.
        num_threads: how many work at once; 0 is one for each core.
        codebook_size: token ids are below this; by default it is known from the name of the model's file.
        name: the subset, for the progress lines.
        device: where the model computes: auto, cpu, or cuda.
    Raises:
        CosyFlowError: no or another model, no CUDA where it is asked for, a token outside the codebook, unusable Kaldi
            files, too many rejects.
    """
    require_model(onnx_path)
    size = codebook_size or pretrained.codebook_size(onnx_path)
    with storage.local_copy(onnx_path) as path:
        tokenizer = SpeechTokenizer.load(ModelFile(str(path), onnx_path, device), size)
        extraction = extract_corpus(
            "speech-token",
            kaldi_dir,
            output_dir,
            tokenizer,
            num_threads,
            num_processes,
            max_reject_share,
            name,
        )
    save_table(storage.join(output_dir, UTT2SPEECH_TOKEN), extraction.values)
    tokens = {"tokens": sum(map(len, extraction.values.values()))}
    codes = {"codes": len(set().union(*extraction.values.values()))}
    return extraction.finish(output_dir, [UTT2SPEECH_TOKEN], tokens, codes)
