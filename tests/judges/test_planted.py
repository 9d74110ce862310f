"""Planted candidates get the right verdicts by real judges: `make judges`. It takes minutes, and is not part of CI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cosyflow.config.gate import GateConf
from cosyflow.corpus.prepare import prepare
from cosyflow.evaluation.gate import decide
from cosyflow.evaluation.judges.named import Judges, Missing, find_judges
from cosyflow.evaluation.judges.packaged import write_packaged_judges
from cosyflow.evaluation.listing import Entry
from cosyflow.evaluation.rows import CANDIDATE, Row, judge_row
from cosyflow.evaluation.statistics import interval
from cosyflow.evaluation.workers import Workers, workers
from tests.judges.planted import FIRST, SECOND, SPEECH, SUBSETS, Case, choose, plant

UTTERANCES = 24
BAD = ("worse", "missing", "not reached")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SPEECH.exists(), reason=f"{SPEECH} has the recordings")]


@pytest.fixture(scope="session")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Judges:
    folder = tmp_path_factory.mktemp("judges")
    write_packaged_judges(str(folder))
    found = find_judges(str(folder))
    assert not [judge for judge in found.values() if isinstance(judge, Missing)]
    return found


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Kaldi folders of the recordings."""
    root = tmp_path_factory.mktemp("kaldi")
    for subset in SUBSETS:
        prepare(str(SPEECH / "LibriTTS-mini" / subset), str(root / subset))
    return [str(root / subset) for subset in SUBSETS]


@pytest.fixture(scope="session")
def pool() -> Iterator[Workers]:
    with workers(0) as found:
        yield found


class Heard:
    """What judges make of each kind of candidate, once."""

    def __init__(self, entries: Sequence[Entry], seed: int, judges: Judges, pool: Workers, folder: Path) -> None:
        self.entries, self.seed, self.judges, self.pool, self.folder = entries, seed, judges, pool, folder
        self.rows: dict[str, Row] = {}

    def row(self, kind: str) -> Row:
        if kind not in self.rows:
            wavs = plant(kind, self.entries, self.folder / kind, self.seed)
            answers = str(self.folder / f"{kind}-heard")
            self.rows[kind] = judge_row(CANDIDATE, wavs, self.entries, self.judges, self.pool, answers, "en")
        return self.rows[kind]

    def without(self, kind: str, role: str) -> Row:
        """As if one judge were missing."""
        self.row(kind)
        judges = self.judges | {role: Missing("it was taken out")}
        answers = str(self.folder / f"{kind}-heard")
        return judge_row(CANDIDATE, self.rows[kind].wavs, self.entries, judges, self.pool, answers, "en")


@pytest.fixture(scope="session", params=[(1, FIRST), (2, SECOND)], ids=["first", "second"])
def twelve(
    request: pytest.FixtureRequest,
    folders: list[str],
    judges: Judges,
    pool: Workers,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Heard, Sequence[Case]]:
    seed, cases = request.param
    entries = choose(folders, seed, UTTERANCES)
    assert len(entries) == UTTERANCES
    return Heard(entries, seed, judges, pool, tmp_path_factory.mktemp("planted")), cases


@pytest.mark.parametrize("number", range(12))
def test_a_planted_candidate_gets_the_right_verdict(twelve: tuple[Heard, Sequence[Case]], number: int) -> None:
    heard, cases = twelve
    case = cases[number]
    kinds = [case.candidate, *([case.champion] if case.champion else [])]
    rows = [heard.without(kind, case.without) if case.without else heard.row(kind) for kind in kinds]
    found = decide(GateConf(), rows[0].pairs, rows[1].pairs if case.champion else None)
    texts = "\n".join(finding.text for finding in found.findings.values())
    assert found.outcome == case.outcome, f"{case.name}:\n{texts}"
    if case.metric:
        assert found.findings[case.metric].verdict in BAD, f"{case.name}:\n{texts}"


def test_recorded_speech_is_understood(twelve: tuple[Heard, Sequence[Case]]) -> None:
    """All of these recordings together: about 8 % of the words."""
    heard, _ = twelve
    pairs = heard.row("recorded").pairs["wer"]
    assert isinstance(pairs, dict)
    assert interval(list(pairs.values())).value < 0.2
