"""How weights of CosyVoice 2 are recognised."""

from __future__ import annotations

from cosyflow.families.recognition import Identity, Shapes, has, is_flow, looks_ahead, upsampling_stages, vocoder_part


def recognise(shapes: Shapes) -> Identity | None:
    """What of CosyVoice 2 the tensors seem to be; None where they seem to be of another family."""
    if has(shapes, "llm.model.model.") and "llm_embedding.weight" in shapes:
        return Identity("cosyvoice2", "llm")
    if is_flow(shapes) and has(shapes, "encoder.up_layer."):
        return Identity("cosyvoice2", "flow")
    if (part := vocoder_part(shapes)) and upsampling_stages(shapes) == 3 and not looks_ahead(shapes):
        return Identity("cosyvoice2", part)
    return None
