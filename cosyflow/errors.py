"""The errors that a user of CosyFlow can cause and can correct."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cosyflow.redaction import redact


class CosyFlowError(Exception):
    """A problem with the input, the settings or the environment, reported in one line.

    The message names the file, line, key or utterance that is wrong and what to do about it. The command line prints
    it without a traceback and exits with status 1; anything else that is raised is a defect of CosyFlow. Secrets in the
    message are redacted.
    """

    def __init__(self, message: str) -> None:
        super().__init__(redact(" ".join(message.split())))


class MissingError(CosyFlowError):
    """There is nothing at an address."""


class PlaceError(CosyFlowError):
    """A store or a disk failed or refused. It says nothing about what is in the file that was asked for."""


class DiskError(PlaceError):
    """A place of this machine could not be written, as when the disk is full."""


class StoreError(PlaceError):
    """A store refused, or gave other bytes than it has, also when asked again.

    Attributes:
        code: what the store calls it, e.g. "AccessDenied", or the name of what happened on the way.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class MissingObjectError(StoreError, MissingError):
    """A store has no object of that name."""


class OutageError(StoreError):
    """A store did not answer for so long that waiting ended."""


class StoppedError(CosyFlowError):
    """Work was asked to end (SIGTERM), and did so in good order; the same command goes on."""


class MachineError(CosyFlowError):
    """This machine lacks what it should have, and another may have it; the same work goes on there."""


class NotFiniteError(CosyFlowError):
    """A loss or gradient of a training that is not finite. It may be the fault of the machine, unless it comes again.

    Attributes:
        update: number of the update, over all starts of the training.
    """

    def __init__(self, message: str, update: int) -> None:
        super().__init__(message)
        self.update = update


class AudioError(CosyFlowError):
    """Audio that cannot be used; the message names the file and says what is wrong."""


REMEDY = "; change it"
"""Where a problem's text does not say more."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with the settings: which one, what is wrong with it, and what to do."""

    setting: str
    text: str
    is_warning: bool = False
    """It cannot be known here whether it is wrong: it is shown, and nothing is refused for it."""

    def __str__(self) -> str:
        return redact(f"{self.setting}: {' '.join(self.text.split())}")


class RefusalError(CosyFlowError):
    """What was asked for cannot work, found before any work began. Command lines print a line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))

    @property
    def lines(self) -> list[str]:
        """One line for each problem, as standard error shows them: `error: SETTING: what is wrong; what to do`."""
        return [f"error: {problem}{'' if ';' in problem.text else REMEDY}" for problem in self.problems]
