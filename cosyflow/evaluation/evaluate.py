"""An evaluation as a whole: the list is spoken, judged, compared with the champion, and reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cosyflow import storage
from cosyflow.audio.locator import Locator
from cosyflow.config.gate import GateConf
from cosyflow.content import Digests
from cosyflow.errors import AudioError, CosyFlowError, Problem, RefusalError
from cosyflow.evaluation.gate import decide
from cosyflow.evaluation.hearing import Utterance, hear
from cosyflow.evaluation.judges import TRANSCRIPT
from cosyflow.evaluation.judges.named import Judges, Missing
from cosyflow.evaluation.listing import Entry, digest_of, recordings_of
from cosyflow.evaluation.measures import UNHEARD
from cosyflow.evaluation.report import REPORT, Subject, build_report
from cosyflow.evaluation.rows import CANDIDATE, CHAMPION, RECORDED, RESYNTHESIS, Row, judge_row
from cosyflow.evaluation.sound import load_sound
from cosyflow.evaluation.speaking import Model, speak, speech_key
from cosyflow.evaluation.words import errors, words_of
from cosyflow.evaluation.workers import Workers, workers
from cosyflow.synthesis.request import Request

UNLIKE = 0.7
"""Word error rate of a prompt from which it does not say its text, whatever the judge's own errors."""
FEWEST_WORDS = 3


@dataclass(frozen=True)
class Evaluation:
    """What is asked for."""

    entries: Sequence[Entry]
    list_uri: str
    candidate: Model
    champion: Model | None
    judges: Judges
    output_dir: str
    gate: GateConf
    cache_dir: str = ""
    """Where speech and answers are kept, for later evaluations too; by default in the output folder."""
    seed: int = 0
    language: str = "en"
    num_processes: int = 1


def evaluate(wanted: Evaluation) -> Any:
    """Does an evaluation and writes `report.json` last. An interrupted one goes on where it stopped.

    Returns:
        the report, see docs/evaluation.md.

    Raises:
        RefusalError: prompts of the list cannot be used, with a line for each.
        CosyFlowError: a model or a recording cannot be used.
    """
    refuse_prompts(wanted.entries, wanted.list_uri)
    list_digest = digest_of(wanted.entries, _contents(recordings_of(wanted.entries)))
    with workers(wanted.num_processes) as pool:
        run = _Run(wanted, list_digest, pool)
        rows = {row.name: row for row in run.rows()}
        problems = run.unlike_prompts(rows[RECORDED])
    champion = rows[CHAMPION].pairs if CHAMPION in rows else None
    decision = decide(wanted.gate, rows[CANDIDATE].pairs, champion, problems)
    models = {CANDIDATE: wanted.candidate} | ({CHAMPION: wanted.champion} if wanted.champion else {})
    subject = Subject(
        wanted.list_uri,
        list_digest,
        wanted.seed,
        wanted.language,
        wanted.judges,
        models,
        run.absent,
        problems,
        wanted.gate,
    )
    report = build_report(subject, wanted.entries, rows, decision)
    storage.write_json(storage.join(wanted.output_dir, REPORT), report)
    return report


def refuse_prompts(entries: Sequence[Entry], list_uri: str) -> None:
    """Raises RefusalError with a line for each recording that is missing, damaged, too long or silent."""
    problems: dict[str, Problem] = {}
    for entry in entries:
        if entry.prompt_wav not in problems and (reason := _why_not(entry)):
            problems[entry.prompt_wav] = Problem("list", f"{list_uri}: {entry.utt}: {reason}; name another recording")
    if problems:
        raise RefusalError(problems.values())


def _why_not(entry: Entry) -> str | None:
    try:
        Request(entry.text, entry.prompt_wav, entry.prompt_text)
        prompt = load_sound(entry.prompt_wav)
    except CosyFlowError as error:
        return str(error)
    if prompt.is_empty or prompt.is_silent:
        return f"{entry.prompt_wav}: silent, so it has no voice"
    if entry.wav:
        try:
            load_sound(entry.wav)
        except AudioError as error:
            return str(error)
    return None


@dataclass(frozen=True)
class _Run:
    wanted: Evaluation
    list_digest: str
    pool: Workers
    absent: dict[str, str] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """Each row that can be made; `absent` says why one cannot."""
        wanted = self.wanted
        yield self._speak(CANDIDATE, wanted.candidate)
        if wanted.champion is not None:
            yield self._speak(CHAMPION, wanted.champion)
        recorded = [entry.recording for entry in wanted.entries]
        yield self._judge(RECORDED, recorded, self._folder(f"recorded-{self.list_digest[:16]}"))
        try:
            yield self._speak(RESYNTHESIS, wanted.candidate)
        except CosyFlowError as error:  # a recording may be too long for the speech tokenizer
            self.absent[RESYNTHESIS] = str(error)

    def _speak(self, name: str, model: Model) -> Row:
        """Candidate and champion share what equal models speak."""
        kind = RESYNTHESIS if name == RESYNTHESIS else "speech"
        folder = self._folder(f"{kind}-{speech_key(kind, model, self.list_digest, self.wanted.seed)}")
        resynthesis = name == RESYNTHESIS
        wavs = speak(self.pool, name, model, self.wanted.entries, folder, self.wanted.seed, resynthesis)
        return self._judge(name, wavs, folder)

    def _judge(self, name: str, wavs: Sequence[str], folder: str) -> Row:
        answers = storage.join(folder, "heard")
        return judge_row(name, wavs, self.wanted.entries, self.wanted.judges, self.pool, answers, self.wanted.language)

    def _folder(self, name: str) -> str:
        return storage.join(self.wanted.cache_dir or storage.join(self.wanted.output_dir, "cache"), name)

    def unlike_prompts(self, recorded: Row) -> list[str]:
        """A line for each prompt in which its text cannot be heard: noise, another text or another language."""
        judge = self.wanted.judges[TRANSCRIPT]
        if isinstance(judge, Missing):
            return []
        known = {
            (wav, facts.said): recorded.transcript(number)
            for number, (wav, facts) in enumerate(zip(recorded.wavs, recorded.facts, strict=True))
        }
        prompts = {(entry.prompt_wav, entry.prompt_text): entry for entry in self.wanted.entries}
        others = {prompt: entry for prompt, entry in prompts.items() if prompt not in known}
        folder = self._folder(f"recorded-{self.list_digest[:16]}/prompts")
        utterances = [Utterance(entry.utt, entry.prompt_wav, entry.prompt_wav) for entry in others.values()]
        heard = hear(self.pool, "hear prompts", {TRANSCRIPT: judge}, utterances, folder, self.wanted.language, UNHEARD)[
            TRANSCRIPT
        ]
        if isinstance(heard, Missing):
            return []
        known |= {prompt: str(answer) for prompt, answer in zip(others, heard, strict=True)}
        return list(self._unlike({prompt: known[prompt] or "" for prompt in prompts}))

    def _unlike(self, prompts: Mapping[tuple[str, str], str]) -> Iterator[str]:
        for (wav, text), heard in prompts.items():
            found = errors(text, heard, self.wanted.language)
            if len(words_of(text, self.wanted.language)) >= FEWEST_WORDS and found.words > UNLIKE * found.of_words:
                yield (
                    f"{wav}: its text is not what is heard in it ({heard[:60]!r}); noise, another text or another"
                    " language; name another recording, or its --language"
                )


def _contents(wavs: Sequence[str]) -> dict[str, str]:
    """What each recording is by content: the digest of its file, and which part of it is meant."""
    files = {wav: Locator.parse(wav).file for wav in wavs}
    digests = Digests().files(list(files.values()))
    return {wav: digests[file] + wav.removeprefix(file) for wav, file in files.items()}
