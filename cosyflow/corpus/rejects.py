"""The table of utterances that a stage cannot use, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator

from cosyflow import storage
from cosyflow.corpus.names import printable
from cosyflow.errors import CosyFlowError

REJECTS = "rejects.tsv"
HEADER = "utt\treason"
DEFAULT_MAX_REJECT_SHARE = 0.05


class RejectTable:
    """Collects rejected utterances; the first reason of an utterance counts."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def add(self, utt: str, reason: str) -> None:
        """The names of files need not be text: what is not is escaped in the reason."""
        text = reason.encode("utf-8", "backslashreplace").decode()
        self._reasons.setdefault(utt, " ".join(text.split()))

    def __len__(self) -> int:
        return len(self._reasons)

    def __contains__(self, utt: str) -> bool:
        return utt in self._reasons

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._reasons.items())

    def check(self, total: int, max_reject_share: float) -> None:
        """Raises CosyFlowError when more than `max_reject_share` (0 to 1) of `total` are rejected, or all."""
        if not 0 <= max_reject_share <= 1:
            raise CosyFlowError(f"max_reject_share must lie between 0 and 1, not {max_reject_share}")
        if not self._reasons:
            return
        rejected = len(self._reasons)
        first, reason = next(iter(self))
        share = (
            f"{rejected} of {total} utterances ({rejected / total:.1%}) cannot be used, the first is"
            f" {printable(first)}: {reason}"
        )
        if rejected > max_reject_share * total:
            raise CosyFlowError(
                f"{share}; correct them, or raise max_reject_share (now {max_reject_share:g}) to go on without them"
            )
        if rejected >= total:
            raise CosyFlowError(f"{share}; there is nothing left to go on with")

    def write(self, directory: str) -> None:
        """Writes `rejects.tsv` (columns utt and reason, sorted by utterance) into a folder, also when it is empty."""
        lines = [HEADER, *(f"{printable(utt)}\t{reason}" for utt, reason in sorted(self))]
        storage.write_text(storage.join(directory, REJECTS), "\n".join(lines) + "\n")


def read_rejects(directory: str) -> dict[str, str]:
    """The reason by utterance of a folder's `rejects.tsv`; empty when the folder has none."""
    path = storage.join(directory, REJECTS)
    if not storage.exists(path):
        return {}
    header, *lines = storage.read_text(path).removesuffix("\n").split("\n")
    if header != HEADER or any(line.count("\t") != 1 for line in lines):
        raise CosyFlowError(f"{path}: not a table of rejects; its columns must be utt and reason")
    return dict(line.split("\t") for line in lines)
