"""The errors that a user of CosyFlow can cause and can mend."""

from __future__ import annotations


class CosyFlowError(Exception):
    """A problem with the input, the settings or the environment, told in one line.

    The message names the file, line, key or utterance that is wrong and what to do about it. The command line prints
    it without a traceback and exits with status 1; anything else that is raised is a defect of CosyFlow.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class OutageError(CosyFlowError):
    """A store did not answer for so long that waiting ended. It says nothing about what was asked for."""


class AudioError(CosyFlowError):
    """Audio that cannot be used; the message names the file and says what is wrong."""
