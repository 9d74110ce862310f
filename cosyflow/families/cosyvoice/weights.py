"""How weights of CosyVoice are recognised."""

from __future__ import annotations

from cosyflow.families.recognition import Identity, Shapes, has, is_flow, looks_ahead, upsampling_stages, vocoder_part

NUMBERED = "cosyvoice1"


def recognise(shapes: Shapes) -> Identity | None:
    """What of CosyVoice the tensors seem to be; None where they seem to be of another family."""
    if "text_encoder.after_norm.weight" in shapes:
        return Identity(NUMBERED, "llm")
    if (
        is_flow(shapes)
        and not has(shapes, "decoder.estimator.transformer_blocks.")
        and not has(shapes, "encoder.up_layer.")
    ):
        return Identity(NUMBERED, "flow")
    if (part := vocoder_part(shapes)) and upsampling_stages(shapes) == 2 and not looks_ahead(shapes):
        return Identity(NUMBERED, part)
    return None
