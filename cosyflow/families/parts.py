"""What the parts of the CosyVoice families have in common, and the files of their pretrained directories."""

from __future__ import annotations

from cosyflow.families.family import Part

QWEN2_FOLDER = "CosyVoice-BlankEN"
QWEN2_TOKENIZER = ("vocab.json", "merges.txt")
QWEN2_SIZES = "config.json"
WHISPER_RANKS = "multilingual.tiktoken"
VOCODERS = ("hift.pt", "hifigan.pt")
"""Names of a vocoder's weights: the generator alone, or with the discriminators of its training."""


def language_model(text_model: str) -> Part:
    """Text to speech tokens; see `Part.text_model`."""
    return Part(
        name="llm",
        weights=("llm.pt",),
        conf="train_conf",
        reads=("llm", "sample_rate", "filter", "use_spk_embedding", "train_conf"),
        unread={"train_conf": ("frames_per_step",)},
        for_inference={"llm": ("sampling",)},
        preferences="dpo",
        text_model=text_model,
        compiles=True,
    )


FLOW = Part(
    name="flow",
    weights=("flow.pt",),
    conf="train_conf",
    reads=("flow", "sample_rate", "token_frame_rate", "mel", "filter", "use_spk_embedding", "train_conf"),
    unread={"train_conf": ("tokens_per_step",)},
    for_inference={"flow.matching": ("inference_cfg_rate", "n_timesteps")},
)
"""Speech tokens to a mel spectrogram."""

HIFIGAN = Part(
    name="hifigan",
    weights=VOCODERS,
    conf="train_conf_gan",
    reads=("hifigan", "sample_rate", "token_frame_rate", "mel", "filter", "train_conf_gan"),
    unread={"train_conf_gan": ("tokens_per_step",)},
    reads_f0=True,
    takes_turns=True,
    cut_by="flow",
)
"""A mel spectrogram to a waveform: the vocoder, trained against its discriminators."""


def in_order(*parts: Part) -> dict[str, Part]:
    """The parts by their names."""
    return {part.name: part for part in parts}
