"""A rank that keeps the others waiting is named, with what it was doing; in real jobs, and as a rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.errors import CosyFlowError
from cosyflow.launch.local import run_locally
from cosyflow.training.preflight import UNKNOWN, gloo_interface, nccl_network
from cosyflow.training.stalls import COMPUTES, PHASES, READS, WAITS, Doing, Seen, who_is_slow, who_stalls

TOY = "tests.unit.training.toy"
PATIENCE = 10.0
EVEN = ("--accum-grad", "3", "--sequences", "12")
"""Each of three ranks has a batch in every update."""


def seen(phase: str, seconds: float, silent: float = 0.0, work: float = 0.0) -> Seen:
    return Seen(Doing(7, phase, ["ann_1", "ben_2"], seconds, work), silent)


def test_who_is_elsewhere_is_named() -> None:
    ranks = {0: seen(WAITS, 60), 1: seen(READS, 62), 2: seen(WAITS, 61)}
    named = "rank 1 reads its batches for 62 s at update 7, with ann_1, ben_2; others have waited for 61 s"
    assert who_stalls(ranks, PATIENCE) == named


def test_who_is_silent_is_named_before_who_is_elsewhere() -> None:
    """What it said last is old news: it may have waited, or read."""
    ranks = {0: seen(WAITS, 60), 1: seen(WAITS, 3, silent=58), 2: seen(COMPUTES, 61)}
    assert who_stalls(ranks, PATIENCE).startswith("rank 1 has said nothing for 58 s: its process stands still")


def test_where_all_wait_it_is_what_lies_between_them() -> None:
    assert "look at the network between them" in who_stalls({0: seen(WAITS, 60), 1: seen(WAITS, 60)}, PATIENCE)


def test_what_takes_all_ranks_long_is_no_stall() -> None:
    """The first update, with a compiler at work, takes minutes."""
    assert who_stalls({0: seen(COMPUTES, 600), 1: seen(COMPUTES, 600)}, PATIENCE) == ""


RANKS = st.dictionaries(st.integers(0, 7), st.tuples(st.sampled_from(PHASES), st.floats(0, 100), st.floats(0, 20)))


@given(RANKS)
def test_a_sentence_comes_when_somebody_has_waited_and_names_nobody_who_waits(
    ranks: dict[int, tuple[str, float, float]],
) -> None:
    reason = who_stalls({rank: seen(*each) for rank, each in ranks.items()}, PATIENCE)
    speaking = {rank: each for rank, each in ranks.items() if each[2] <= PATIENCE / 2}
    waits = [rank for rank, (phase, seconds, _) in speaking.items() if phase == WAITS and seconds > PATIENCE]
    assert bool(reason) == bool(waits)
    named = {int(number) for number in re.findall(r"rank (\d)", reason)}
    assert named <= ranks.keys() - {rank for rank, (phase, _, _) in speaking.items() if phase == WAITS}


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=9))
def test_the_slow_are_fewer_than_half(works: list[float]) -> None:
    slow = who_is_slow({rank: seen(COMPUTES, 0, work=work) for rank, work in enumerate(works)})
    assert len(slow) <= len(works) / 2
    assert all(works[rank] > 1.3 * sorted(works)[(len(works) - 1) // 2] for rank in slow)


def test_a_slow_rank_is_named_with_the_figures() -> None:
    ranks = {rank: seen(WAITS, 0, work=work) for rank, work in enumerate((0.5, 0.8, 0.52))}
    assert who_is_slow(ranks) == {
        1: "rank 1 takes 1.5 times as long as the median of the ranks: 0.80 s of its own work an update, against"
        " 0.52 s; it is at update 7, with ann_1, ben_2"
    }
    assert who_is_slow({**ranks, 3: seen(READS, 0)}) == {}, "one has not done enough updates yet"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("stops", r"rank 1 has said nothing for \d+ s: .*; it was last heard of at update \d+, with utt\d+"),
        ("reads", r"rank 1 reads its batches for \d+ s at update \d+, with utt\d+"),
    ],
)
def test_a_rank_that_stands_still_ends_the_job_with_its_name(tmp_path: Path, how: str, reason: str) -> None:
    """Before the time-out of the operation for which the others wait, and a warning comes earlier."""
    log = tmp_path / "train.log"
    words = [str(tmp_path), *EVEN, "--epochs", "50", "--timeout", "20", "--ill", how, "1"]
    with pytest.raises(CosyFlowError, match=f"^{reason}"):
        run_locally(TOY, words, 3, log, on_cpu=True)
    assert re.search(f"warning: {reason}", log.read_text())


@pytest.mark.slow
def test_a_slow_rank_is_warned_of_and_an_even_job_of_nothing(tmp_path: Path) -> None:
    """What the ranks share is measured before the first update."""
    for ill, is_warned in ((["--ill", "slow", "2"], True), ([], False)):
        log = tmp_path / f"{is_warned}.log"
        words = [str(tmp_path / f"{is_warned}"), *EVEN, "--epochs", "30", "--timeout", "20", *ill]
        run_locally(TOY, words, 3, log, on_cpu=True)
        warnings = re.findall(r"warning: rank (\d) takes [\d.]+ times as long", log.read_text())
        assert warnings == ["2"] * is_warned
        assert re.search(r"gloo over .*: 3 ranks add up 16 MiB in \d+\.\d+ s", log.read_text())


def test_the_interface_of_gloo_is_the_one_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert gloo_interface()
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    assert gloo_interface() == "eth7"


@pytest.mark.parametrize(
    ("messages", "network"),
    [
        ("node:1:1 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.5<0>\n", "Socket eth0"),
        ("node:1:1 [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [RO]; OOB eth0:10.0.0.5<0>\n", "IB mlx5_0"),
        ("node:1:1 [0] NCCL INFO Channel 00/1 via P2P/CUMEM\n", UNKNOWN),
    ],
)
def test_the_network_of_nccl_is_what_it_wrote_down(messages: str, network: str) -> None:
    assert nccl_network(messages) == network
