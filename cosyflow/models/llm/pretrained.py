"""Starting weights from a Qwen2 folder in the Hugging Face form, such as `CosyVoice-BlankEN`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from cosyflow.checkpoint.official import differences, shapes_of
from cosyflow.config.llm import Qwen2Config
from cosyflow.errors import CosyFlowError
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.unexpected import describe


def read_qwen2_config(directory: Path) -> Qwen2Config:
    """Reads the sizes of a Qwen2 folder.

    Raises:
        CosyFlowError: `config.json` is absent, damaged or describes another kind of model.
    """
    path = directory / "config.json"
    try:
        return Qwen2Config.from_huggingface(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise CosyFlowError(f"{path}: cannot be read ({error.strerror}); a Qwen2 folder has it") from error
    except (ValueError, TypeError) as error:
        raise CosyFlowError(f"{path}: {error}") from error
    except Exception as error:
        raise CosyFlowError(f"{path}: not the config.json of a Qwen2 folder ({describe(error)})") from error


def load_qwen2_folder(model: SpeechLM, directory: Path) -> None:
    """Loads the decoder and the text table; speech embedding, special embedding and speech head stay as they are.

    Raises:
        CosyFlowError: a file is absent or damaged, or the sizes are not those of the model.
    """
    found, expected = asdict(read_qwen2_config(directory)), asdict(model.config.qwen2)
    for name, value in expected.items():
        if found[name] != value:
            raise CosyFlowError(f"{directory / 'config.json'}: {name} is {found[name]}, the model has {value}")
    tensors = {
        key.removeprefix("model."): value for key, value in _read_folder(directory).items() if key != "lm_head.weight"
    }
    decoder = model.decoder
    wrong = differences(shapes_of(decoder.state_dict()), shapes_of(tensors))
    if wrong:
        raise CosyFlowError(f"{directory}: its weights do not fit: {'; '.join(wrong[:5])}")
    decoder.load_state_dict(tensors)


def _read_folder(directory: Path) -> dict[str, Tensor]:
    """All tensors of the folder, in whatever files of the Hugging Face form they are, in float32."""
    from transformers import Qwen2ForCausalLM

    try:
        model, found = cast(Any, Qwen2ForCausalLM).from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # of many kinds: absent, damaged or half-copied files
        reason = str(error).strip().split("\n")[0]
        raise CosyFlowError(f"{directory}: its weights cannot be read ({reason}); copy the folder again") from error
    if found["missing_keys"] or found["mismatched_keys"]:
        wrong = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
        raise CosyFlowError(f"{directory}: its weights do not fit its config.json: {', '.join(wrong[:5])}")
    tensors: dict[str, Tensor] = model.state_dict()
    return tensors
