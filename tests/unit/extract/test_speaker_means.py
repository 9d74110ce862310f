"""A speaker's mean is the official one, but for utterances that are nothing like the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.extract.speaker_embedding import extract_speaker_embeddings
from cosyflow.extract.speaker_means import MAX_SHARE, SpeakerMeans, speaker_means

SIZE = 192
SPEECH_NORM, SILENCE_NORM = 16.0, 104.0
"""As the official CAM++ gives them."""


def voice(seed: int, others: int = 0, norm: float = SPEECH_NORM) -> list[float]:
    """An embedding of a person: the direction is the person's, with a difference at each recording."""
    person = np.random.default_rng(seed).normal(size=SIZE)
    recording = person + 0.5 * np.random.default_rng([seed, others]).normal(size=SIZE)
    return list(norm * recording / np.linalg.norm(recording))


def means_of(**embeddings: Sequence[float]) -> SpeakerMeans:
    """Of utterances that are called SPEAKER_NUMBER, beside a corpus of other speakers."""
    corpus = {f"other{number}_0": voice(100 + number) for number in range(9)} | embeddings
    speakers: dict[str, list[str]] = {}
    for utterance in corpus:
        speakers.setdefault(utterance.partition("_")[0], []).append(utterance)
    return speaker_means(speakers, corpus)


def test_silence_is_in_no_mean() -> None:
    speech = {f"a_{number}": voice(1, number) for number in range(3)}
    means = means_of(**speech, a_silent=voice(7, norm=SILENCE_NORM))
    assert means.left_out == ["a_silent"]
    np.testing.assert_allclose(means.means["a"], np.mean(list(speech.values()), axis=0), rtol=1e-6)


def test_of_two_utterances_the_corpus_tells_which_is_silent() -> None:
    means = means_of(a_0=voice(1), a_1=voice(7, norm=SILENCE_NORM))
    assert means.left_out == ["a_1"]
    np.testing.assert_allclose(means.means["a"], voice(1), rtol=1e-6)


def test_somebody_else_is_in_no_mean() -> None:
    assert means_of(**{f"a_{number}": voice(1, number) for number in range(4)}, a_9=voice(2)).left_out == ["a_9"]


def test_a_speaker_with_one_utterance_keeps_it() -> None:
    means = means_of(a_0=voice(7, norm=SILENCE_NORM))
    assert means.left_out == []
    np.testing.assert_allclose(means.means["a"], voice(7, norm=SILENCE_NORM), rtol=1e-6)


def test_a_speaker_who_is_unusual_throughout_keeps_everything() -> None:
    loud = {f"a_{number}": voice(1, number, norm=SILENCE_NORM) for number in range(3)}
    assert means_of(**loud, a_3=voice(1, 3)).left_out == []


def test_speakers_without_an_embedding_have_no_mean() -> None:
    assert speaker_means({"a": ["a_0"], "b": ["b_0"]}, {"b_0": voice(1)}).means.keys() == {"b"}
    assert speaker_means({"a": ["a_0"]}, {}) == SpeakerMeans({}, [])


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from([0.0, 1e-3, 1.0, SPEECH_NORM, SILENCE_NORM])),
        min_size=1,
        max_size=20,
    )
)
def test_at_most_half_of_a_speaker_is_left_out_and_the_rest_makes_the_mean(
    utterances: list[tuple[int, int, float]],
) -> None:
    embeddings = {f"u{place}": voice(person, place, norm) for place, (_, person, norm) in enumerate(utterances)}
    speakers: dict[str, list[str]] = {}
    for place, (speaker, _, _) in enumerate(utterances):
        speakers.setdefault(f"s{speaker}", []).append(f"u{place}")
    result = speaker_means(speakers, embeddings)
    assert result.means.keys() == speakers.keys()
    for speaker, names in speakers.items():
        kept = [name for name in names if name not in result.left_out]
        assert len(names) - len(kept) <= MAX_SHARE * len(names)
        official = torch.tensor([embeddings[name] for name in kept]).mean(dim=0).tolist()
        assert result.means[speaker] == official


@given(st.permutations(range(6)))
def test_the_order_of_utterances_does_not_matter(order: list[int]) -> None:
    embeddings = {f"a_{number}": voice(1, number) for number in range(5)} | {"a_5": voice(7, norm=SILENCE_NORM)}
    result = speaker_means({"a": [f"a_{number}" for number in order]}, embeddings)
    assert result.left_out == ["a_5"]


@pytest.mark.medium
def test_the_stage_says_how_many_are_left_out(
    corpus: Path, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16000), 16000)
    for file, value in (("wav.scp", silent), ("text", "nothing"), ("utt2spk", "a")):
        with (corpus / file).open("a") as stream:
            stream.write(f"a_silent {value}\n")
    result = extract_speaker_embeddings(str(corpus), str(tmp_path / "out"), str(models / "campplus.onnx"))
    assert result.counts["left_out_of_means"] == 1
    assert "1 utterances are far off, e.g. a_silent: they are in no speaker's mean" in capsys.readouterr().out
    assert (tmp_path / "out/speakers").read_text().split() == ["c", "a", "b"]
