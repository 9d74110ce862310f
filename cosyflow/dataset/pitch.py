"""f0 of utterances, measured once when the data is made, at the mel frames that the speech tokens stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cosyflow.audio.f0 import dio_f0, harvest_f0
from cosyflow.audio.speech import load_speech
from cosyflow.dataset.alignment import Alignment

F0Method = Literal["none", "harvest", "fast"]
_ESTIMATORS = {"harvest": harvest_f0, "fast": dio_f0}


@dataclass(frozen=True)
class F0Measure:
    """Measures f0 by a method on aligned speech. It can be pickled."""

    method: Literal["harvest", "fast"]
    alignment: Alignment

    def __call__(self, audio: bytes, utterance: str, tokens: int) -> np.ndarray:
        """float32 [mel frames of the tokens] in Hz, 0 where there is no voice.

        Raises:
            CosyFlowError: the audio cannot be decoded or does not belong to the tokens.
        """
        waveform = load_speech(audio, self.alignment.sample_rate, f"utterance {utterance}")
        aligned = self.alignment.align(waveform, tokens, utterance)
        f0 = _ESTIMATORS[self.method](aligned, self.alignment.sample_rate, self.alignment.hop_size)
        return f0.astype(np.float32)
