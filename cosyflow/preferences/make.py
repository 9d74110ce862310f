"""Makes the rejected half of pairs: samples of a reference model, in the form that `parquet --dpo` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cosyflow import storage
from cosyflow.corpus.kaldi import SPK2UTT, TEXT, UTT2SPK, WAV_SCP, KaldiUtterance, read_kaldi
from cosyflow.corpus.rejects import DEFAULT_MAX_REJECT_SHARE, REJECTS, RejectTable
from cosyflow.dataset.tables import UTT2SPEECH_TOKEN, read_table
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.evaluation.judges.named import Judges
from cosyflow.evaluation.workers import workers
from cosyflow.extract.outputs import save_table
from cosyflow.preferences.judging import LEAST, Comparisons, compare
from cosyflow.preferences.sampling import Sample, Sampling, sample_corpus
from cosyflow.stage import StageResult

REPORT = "report.json"
SAMPLES, ANSWERS = "samples", "heard"
"""Folders of what is kept for a later call: one file a sample, and one a judge's answer."""
EQUAL = "the sample is the recording's own speech"


@dataclass(frozen=True)
class Wanted:
    """What is asked for."""

    src_dir: str
    """A Kaldi folder."""
    des_dir: str
    sampling: Sampling
    token_dir: str = ""
    """Folder with the recordings' utt2speech_token.pt; src_dir when it is there, else they are tokenised."""
    judges: Judges | None = None
    least: Mapping[str, float] = field(default_factory=lambda: LEAST)
    language: str = "en"
    max_reject_share: float = DEFAULT_MAX_REJECT_SHARE
    num_processes: int = 1


def make_reject_samples(wanted: Wanted) -> StageResult:
    """Samples all utterances and writes `utt2speech_token.pt` of those that make pairs, and what became of the others.

    Every utterance is a pair or in `rejects.tsv` with its reason. `equal` of the counts have the recording's own speech
    as sample, `alike` are not worse by the judges. An interrupted call goes on where it stopped.

    Raises:
        RefusalError: both folders are the same.
        CosyFlowError: unusable Kaldi files or tables, a part of the model does not fit, no judge judged, too many
            utterances cannot be sampled, or no pair is left.
    """
    _refuse_one_folder(wanted)
    if not storage.is_remote(wanted.des_dir):  # wav.scp names the samples by it
        wanted = replace(wanted, des_dir=str(Path(wanted.des_dir).absolute()))
    data = read_kaldi(wanted.src_dir)
    chosen = _chosen_tokens(wanted)
    place = storage.join(wanted.des_dir, SAMPLES)
    with workers(wanted.num_processes) as pool:
        found = sample_corpus(pool, data.utterances, chosen, wanted.sampling, place)
        rejects = RejectTable()
        for each in data.utterances:
            if each.utt in found.rejects:
                rejects.add(each.utt, found.rejects[each.utt])
        rejects.check(len(data.utterances), wanted.max_reject_share)
        pairs = {utt: sample for utt, sample in found.made.items() if not _is_equal(sample, chosen)}
        comparisons = None
        if wanted.judges is not None and pairs:
            candidates = [each for each in data.utterances if each.utt in pairs]
            answers = storage.join(wanted.des_dir, ANSWERS, wanted.sampling.key)
            comparisons = compare(
                pool, wanted.judges, candidates, pairs, wanted.least, answers, wanted.language, wanted.sampling.seed
            )
    equal = [utt for utt in found.made if utt not in pairs]
    alike = _why_alike(comparisons)
    for utt in found.made:
        if utt in alike or utt not in pairs:
            rejects.add(utt, alike.get(utt, EQUAL))
    kept = [each for each in data.utterances if each.utt in pairs and each.utt not in alike]
    counts = {
        "inputs": len(data.utterances),
        "outputs": len(kept),
        "rejects": len(rejects),
        "equal": len(equal),
        "alike": len(alike),
        "endless": sum(not pairs[each.utt].ended for each in kept),
    }
    if not kept:
        raise CosyFlowError(
            f"{wanted.src_dir}: none of {len(data.utterances)} utterances makes a pair ({len(equal)} samples are equal"
            f" to the recording, {len(alike)} not worse); sample with another seed, prompt or an earlier checkpoint"
        )
    return _write(wanted, kept, pairs, rejects, comparisons, counts)


def _write(
    wanted: Wanted,
    kept: Sequence[KaldiUtterance],
    pairs: Mapping[str, Sample],
    rejects: RejectTable,
    comparisons: Comparisons | None,
    counts: dict[str, int],
) -> StageResult:
    """The tokens last: what reads them finds the rest."""
    files = [REJECTS, REPORT]
    rejects.write(wanted.des_dir)
    storage.write_json(storage.join(wanted.des_dir, REPORT), _report(wanted, pairs, comparisons, counts))
    if all(pairs[each.utt].wav for each in kept):
        files += _write_kaldi(wanted.des_dir, kept, pairs)
    save_table(storage.join(wanted.des_dir, UTT2SPEECH_TOKEN), {each.utt: pairs[each.utt].tokens for each in kept})
    return StageResult(counts, [*files, UTT2SPEECH_TOKEN])


def _write_kaldi(directory: str, kept: Sequence[KaldiUtterance], pairs: Mapping[str, Sample]) -> list[str]:
    """The samples as a Kaldi folder, to listen to, and for other tokenizers."""
    speakers: dict[str, list[str]] = {}
    for each in kept:
        speakers.setdefault(each.spk, []).append(each.utt)
    tables = {
        WAV_SCP: {each.utt: pairs[each.utt].wav for each in kept},
        TEXT: {each.utt: each.text for each in kept},
        UTT2SPK: {each.utt: each.spk for each in kept},
        SPK2UTT: {speaker: " ".join(utts) for speaker, utts in speakers.items()},
    }
    for name, table in tables.items():
        text = "".join(f"{key} {value}\n" for key, value in table.items())
        storage.write_text(storage.join(directory, name), text)
    return list(tables)


def _report(
    wanted: Wanted, pairs: Mapping[str, Sample], comparisons: Comparisons | None, counts: Mapping[str, int]
) -> dict[str, Any]:
    sampling = wanted.sampling
    settings = {"prompt": sampling.prompt, "spoken": sampling.spoken, "seed": sampling.seed}
    report: dict[str, Any] = {
        "counts": dict(counts),
        "ref_model": {"uri": sampling.model.uri, "digest": sampling.model.digest},
        **settings,
    }
    if comparisons is None or wanted.judges is None:
        return report
    return report | {
        "judges": {role: asdict(judge) for role, judge in wanted.judges.items()},
        "missing": comparisons.missing,
        "least": dict(wanted.least),
        "differences": {utt: found.differences for utt, found in comparisons.by_utterance.items() if utt in pairs},
    }


def _why_alike(comparisons: Comparisons | None) -> dict[str, str]:
    found = comparisons.by_utterance if comparisons else {}
    return {utt: each.why_no_pair for utt, each in found.items() if each.why_no_pair}


def _chosen_tokens(wanted: Wanted) -> dict[str, np.ndarray] | None:
    """The recordings' tokens; None when they are to be extracted."""
    uri = storage.join(wanted.token_dir or wanted.src_dir, UTT2SPEECH_TOKEN)
    if not wanted.token_dir and not storage.exists(uri):
        return None
    return read_table(uri, np.int64)


def _is_equal(sample: Sample, chosen: Mapping[str, np.ndarray] | None) -> bool:
    own = sample.own if chosen is None else chosen[sample.utt].tolist()
    return sample.tokens == own


def _refuse_one_folder(wanted: Wanted) -> None:
    for option, folder in (("src_dir", wanted.src_dir), ("token_dir", wanted.token_dir)):
        if folder and _same(folder, wanted.des_dir):
            raise RefusalError(
                [Problem("--des_dir", f"{wanted.des_dir}: is --{option} too, whose tokens would be lost; name another")]
            )


def _same(one: str, other: str) -> bool:
    if storage.is_remote(one) or storage.is_remote(other):
        return one.rstrip("/") == other.rstrip("/")
    return Path(one).resolve() == Path(other).resolve()
