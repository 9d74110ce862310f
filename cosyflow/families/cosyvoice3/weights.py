"""How weights of CosyVoice 3 are recognised."""

from __future__ import annotations

from cosyflow.families.recognition import Identity, Shapes, has, is_flow, looks_ahead, vocoder_part


def recognise(shapes: Shapes) -> Identity | None:
    """What of CosyVoice 3 the tensors seem to be; None where they seem to be of another family."""
    if has(shapes, "llm.model.model.") and "llm_embedding.weight" not in shapes:
        return Identity("cosyvoice3", "llm")
    if is_flow(shapes) and has(shapes, "decoder.estimator.transformer_blocks."):
        return Identity("cosyvoice3", "flow")
    if (part := vocoder_part(shapes)) and looks_ahead(shapes):
        return Identity("cosyvoice3", part)
    return None
