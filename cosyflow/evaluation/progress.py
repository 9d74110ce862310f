"""Speech of a training as it goes: the same few texts with the weights of one checkpoint after the other."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from cosyflow import storage
from cosyflow.checkpoint.folder import Checkpoint, list_checkpoints
from cosyflow.config.recipe import Recipe
from cosyflow.errors import CosyFlowError, PlaceError
from cosyflow.evaluation.listing import Entry
from cosyflow.evaluation.speaking import file_name, seed_of
from cosyflow.progress import say
from cosyflow.synthesis.prompt import PromptReader
from cosyflow.synthesis.request import Request
from cosyflow.synthesis.synthesizer import Synthesizer
from cosyflow.synthesis.wav import write_wav
from cosyflow.training.result import RESULT_FILE

FOLDER = "samples"
"""In the folder of a training: a folder for each checkpoint that was heard."""
FACTS = "samples.json"
"""In such a folder, written last."""
LABEL = "samples"


@dataclass(frozen=True)
class Sample:
    """What a checkpoint made of a text."""

    utt: str
    text: str
    wav: str
    """Its file's name; "" when it could not speak."""
    problem: str = ""


@dataclass(frozen=True)
class Spoken:
    """All texts, spoken with one checkpoint."""

    checkpoint: str
    update: int
    part: str
    samples: list[Sample]


Shown = Callable[[str, Spoken], None]
"""Shows the samples of a folder somewhere."""


@dataclass(frozen=True)
class Listening:
    """What is spoken, and with what.

    Attributes:
        train_dir: folder of a training, with its checkpoints.
        pretrained_dir: complete model directory; the part that is trained need not be there.
        entries: texts with the voices that speak them.
        part: that is trained; "": as the checkpoints say.
        every: updates between two checkpoints that are heard.
    """

    train_dir: str
    pretrained_dir: str
    recipe: Recipe
    entries: Sequence[Entry]
    part: str = ""
    every: int = 0
    seed: int = 0

    def speak_all(self, show: Shown) -> int:
        """Speaks with each checkpoint that was not heard yet. Returns how many those were.

        Raises:
            CosyFlowError: a part of the model does not fit, or a prompt cannot be used.
        """
        count = 0
        for checkpoint in self.waiting():
            count += self._speak(checkpoint, show)
        return count

    def follow(self, show: Shown, interval: float) -> int:
        """Speaks with the newest checkpoint, again and again, until the training has ended and its last was heard.

        Args:
            interval: seconds between two looks.
        """
        count = 0
        while True:
            ended = self._last_of_result()
            if waiting := self.waiting():
                count += self._speak(waiting[-1], show)
            if ended and ended == self._newest():
                return count
            time.sleep(interval)

    def waiting(self) -> list[Checkpoint]:
        """The checkpoints that are to be heard, oldest first."""
        spoken = read_spoken(self.train_dir)
        names, updates = {each.checkpoint for each in spoken}, [each.update for each in spoken]
        found = []
        for checkpoint in self._checkpoints():
            before = max((update for update in updates if update <= checkpoint.update), default=-math.inf)
            # one of equal update has equal weights
            if checkpoint.name not in names and checkpoint.update - before >= max(self.every, 1):
                updates.append(checkpoint.update)
                found.append(checkpoint)
        return found

    def _checkpoints(self) -> list[Checkpoint]:
        return list_checkpoints(self.train_dir) if storage.exists(self.train_dir) else []

    def _newest(self) -> str:
        there = self._checkpoints()
        return there[-1].name if there else ""

    def _last_of_result(self) -> str:
        """The last checkpoint of a training that has ended; "" as long as it goes on."""
        uri = storage.join(self.train_dir, RESULT_FILE)
        result = storage.read_json(uri) if storage.exists(uri) else {}
        return str(result.get("checkpoint", "")) if isinstance(result, dict) else ""

    def _speak(self, checkpoint: Checkpoint, show: Shown) -> int:
        """1, or 0 when the training has removed the checkpoint meanwhile."""
        part = self.part or str(checkpoint.record.get("model", ""))
        if not part:
            raise CosyFlowError(f"{checkpoint.weights}: does not say which part it is of; name it with --part")
        try:
            with redirect_stdout(io.StringIO()):
                reader = PromptReader.load(self.pretrained_dir, self.recipe)
                weights = {part: checkpoint.weights}
                synthesizer = Synthesizer.load(self.pretrained_dir, self.recipe, weights=weights)
        except CosyFlowError:
            if storage.exists(checkpoint.weights):
                raise
            return 0
        folder = storage.join(self.train_dir, FOLDER, checkpoint.name)
        samples = []
        for number, entry in enumerate(self.entries):
            samples.append(self._sample(number, entry, reader, synthesizer, folder))
        spoken = Spoken(checkpoint.name, checkpoint.update, part, samples)
        storage.write_json(storage.join(folder, FACTS), asdict(spoken))
        say(LABEL, f"{len(samples)} texts with {checkpoint.name} of the {part} in {folder}")
        show(folder, spoken)
        return 1

    def _sample(self, number: int, entry: Entry, reader: PromptReader, synthesizer: Synthesizer, folder: str) -> Sample:
        request = Request(entry.text, entry.prompt_wav, entry.prompt_text)
        with redirect_stdout(io.StringIO()):
            prompt, seed = reader.read(request), seed_of(self.seed, entry.utt)
            tokens = list(synthesizer.speech_tokens(request, prompt, seed))
            if not tokens:
                return Sample(entry.utt, entry.text, "", "it speaks nothing")
            waveform = synthesizer.waveform(tokens, prompt, seed)
        name = file_name(number, entry.utt)
        write_wav(waveform, self.recipe.sample_rate, storage.join(folder, name))
        return Sample(entry.utt, entry.text, name)


def read_spoken(train_dir: str) -> list[Spoken]:
    """What was heard of a training, by update; what is damaged or unfinished does not count."""
    folder = storage.join(train_dir, FOLDER)
    if not storage.exists(folder):
        return []
    names = [file.path for file in storage.list_files(folder) if file.path.count("/") == 1]
    found = [_read(storage.join(folder, name)) for name in names if storage.name(name) == FACTS]
    return sorted((each for each in found if each is not None), key=lambda each: (each.update, each.checkpoint))


def folder_of(train_dir: str, spoken: Spoken) -> str:
    """Where the wavs are."""
    return storage.join(train_dir, FOLDER, spoken.checkpoint)


def _read(uri: str) -> Spoken | None:
    try:
        content = storage.read_json(uri)
    except PlaceError:
        raise
    except CosyFlowError:
        return None
    try:
        spoken: Spoken = TypeAdapter(Spoken).validate_python(content)
    except (ValueError, RecursionError):
        return None
    names = [spoken.checkpoint, *(sample.wav for sample in spoken.samples)]
    return spoken if all("/" not in name for name in names) else None


def spoken_wavs(folder: str, spoken: Spoken) -> Iterator[tuple[Sample, str]]:
    """Each sample that could be spoken, with its address."""
    for sample in spoken.samples:
        if sample.wav:
            yield sample, storage.join(folder, sample.wav)
