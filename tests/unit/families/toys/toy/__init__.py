"""A family of one part, which counts: all that there is of it is in this folder."""

from __future__ import annotations

from cosyflow.families.family import Family, Part, SpeechTokenizer

FAMILY = Family(
    name="toy",
    text_tokenizer="toy.txt",
    speech_tokenizer=SpeechTokenizer("toy.onnx", codebook_size=17, tokens_per_second=25),
    parts={"counter": Part("counter", weights=("counter.pt",), conf="train_conf", reads=("counter", "train_conf"))},
)
