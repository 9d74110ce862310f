"""Loads the judge of a role."""

from __future__ import annotations

from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.judges import DNSMOS, SPEAKER, TRANSCRIPT, Judge
from cosyflow.evaluation.judges.named import Missing
from cosyflow.extract.model import ModelFile


def load_judge(role: str, path: str, name: str, language: str, threads: int = 1) -> Judge | Missing:
    """The judge in a file or folder of this machine, or why it does not load.

    Args:
        name: the address that the user gave, for messages.
        language: of the speech, as Whisper abbreviates it.
    """
    file = ModelFile(path, name)
    try:
        return _load(role, file, language, threads)
    except CosyFlowError as error:
        return Missing(str(error))
    except ModuleNotFoundError as error:
        return Missing(f"{error.name} is not installed; install it with: pip install 'cosyflow[evaluation]'")
    except Exception as error:  # judges raise whatever they like, MemoryError and RuntimeError among it
        return Missing(f"{name}: it cannot be loaded ({describe(error)})")


def describe(error: Exception) -> str:
    """An exception of others in one line of bearable length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")


def _load(role: str, file: ModelFile, language: str, threads: int) -> Judge:
    is_onnx = file.name.endswith(".onnx")
    if role == TRANSCRIPT:
        from cosyflow.evaluation.judges.whisper import Whisper

        return Whisper(file.path, language, threads)
    if role == SPEAKER:
        from cosyflow.evaluation.judges.speaker import campplus, dvectors

        return campplus(file) if is_onnx else dvectors(file.path)
    from cosyflow.evaluation.judges.quality import DistillMos, Dnsmos, OnnxQuality

    if role == DNSMOS:
        return Dnsmos(file)
    return OnnxQuality(file) if is_onnx else DistillMos(file.path)
