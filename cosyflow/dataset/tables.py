"""Tables that the extraction stages save: a torch file that holds a dictionary of lists of numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cosyflow import storage
from cosyflow.checkpoint.files import UnreadableError, read_file
from cosyflow.errors import CosyFlowError

UTT2EMBEDDING = "utt2embedding.pt"
SPK2EMBEDDING = "spk2embedding.pt"
UTT2SPEECH_TOKEN = "utt2speech_token.pt"  # noqa: S105


def read_table(uri: str, dtype: npt.DTypeLike) -> dict[str, np.ndarray]:
    """Reads a table such as `utt2speech_token.pt`: an array for each name.

    Raises:
        CosyFlowError: the file is absent, damaged, or no dictionary of lists of numbers.
    """
    with storage.local_copy(uri) as path:
        try:
            table = read_file(path)
        except UnreadableError as error:
            raise CosyFlowError(f"{uri}: damaged or not a torch file; make it again with its stage") from error
    if not isinstance(table, dict):
        raise CosyFlowError(f"{uri}: holds a {type(table).__name__}, not a dictionary of lists; make it again")
    return {str(name): _array(uri, name, table[name], dtype) for name in table}


def _array(uri: str, name: object, values: object, dtype: npt.DTypeLike) -> np.ndarray:
    try:
        array = np.asarray(values, dtype)
    except (TypeError, ValueError) as error:
        raise CosyFlowError(f"{uri}: the entry of {name} is not a list of numbers; make it again") from error
    if array.ndim != 1:
        raise CosyFlowError(f"{uri}: the entry of {name} is not a list of numbers; make it again")
    return array
