"""The gate: a champion moves only when that is shown to be right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.config.gate import GateConf, Rule
from cosyflow.config.load import RecipeError, load_config
from cosyflow.evaluation.gate import Decision, decide
from cosyflow.evaluation.judges.named import Missing
from cosyflow.evaluation.measures import METRICS, Pairs
from tests.unit.packages import CHECKOUT

CONF = GateConf()
GOOD = {
    "wer": 0.08,
    "cer": 0.03,
    "similarity": 0.85,
    "dnsmos": 3.1,
    "quality": 4.0,
    "duration_ratio": 1.02,
    "failures": 0.0,
    "rtf": 0.4,
}
BETTER = {name: {"lower": -1, "higher": 1, "near 1": -1}[metric.better] for name, metric in METRICS.items()}


def measured(count: int = 30, spread: float = 0.0, seed: int = 0, **values: float | Missing) -> Pairs:
    """Measurements of utterances that have these values on average."""
    random = np.random.default_rng(seed)
    pairs: Pairs = {}
    for name, value in (GOOD | values).items():
        if isinstance(value, Missing):
            pairs[name] = value
        else:
            noise = random.normal(0, spread, count) if spread else np.zeros(count)
            pairs[name] = {f"u{number}": (value + float(each), 1.0) for number, each in enumerate(noise)}
    return pairs


def outcome(candidate: Pairs, champion: Pairs | None, **rest: Any) -> str:
    return decide(CONF, candidate, champion, **rest).outcome


@pytest.mark.parametrize("name", CONF.rules)
def test_one_better_metric_promotes_where_none_is_worse(name: str) -> None:
    champion = measured(**{name: GOOD[name] - BETTER[name] * 0.2})
    found = decide(CONF, measured(), champion)
    assert (found.outcome, found.findings[name].verdict) == ("promote", "better")


@pytest.mark.parametrize("name", CONF.rules)
def test_one_worse_metric_refuses_whatever_else_is_better(name: str) -> None:
    champion = measured(**{each: GOOD[each] - BETTER[each] * 0.2 for each in CONF.rules if each != name})
    candidate = measured(**{name: GOOD[name] - BETTER[name] * 0.2})
    found = decide(CONF, candidate, champion)
    assert found.outcome == "refuse"
    assert [reason.partition(":")[0] for reason in found.reasons] == [name]


@pytest.mark.parametrize("name", CONF.rules)
@pytest.mark.parametrize("whose", ["candidate", "champion", "both"])
def test_a_missing_metric_never_promotes(name: str, whose: str) -> None:
    gone = {name: Missing("its file is gone")}
    candidate = measured(**({"wer": 0.01, "dnsmos": 4.5} | (gone if whose != "champion" else {})))
    champion = measured(**(gone if whose != "candidate" else {}))
    found = decide(CONF, candidate, champion)
    assert found.outcome == "refuse"
    assert any(f"{name}: " in reason and "its file is gone" in reason for reason in found.reasons)


def test_an_equal_candidate_changes_nothing() -> None:
    assert decide(CONF, measured(), measured()).reasons == [
        "no metric is better than the champion's with 95% confidence"
    ]


def test_what_is_certain_may_be_too_little() -> None:
    found = decide(CONF, measured(dnsmos=GOOD["dnsmos"] + 0.01), measured())
    assert (found.outcome, found.findings["dnsmos"].verdict) == ("refuse", "as good")


def test_chance_is_no_improvement() -> None:
    """Of 60 equal pairs of noisy systems, at most a few look better, all metrics together."""
    lucky = [
        decide(CONF, measured(spread=0.02, seed=2 * seed), measured(spread=0.02, seed=2 * seed + 1)).outcome
        for seed in range(60)
    ]
    assert lucky.count("promote") <= 6


def test_a_list_of_other_utterances_is_no_comparison() -> None:
    assert outcome(measured(30, wer=0.01), measured(31)) == "refuse"


def test_few_utterances_decide_nothing() -> None:
    found = decide(CONF, measured(19, wer=0.01), measured(19))
    assert (found.outcome, found.reasons) == ("refuse", ["utterances: 19 are too few to decide, 20 are needed"])


def test_the_first_champion_reaches_every_bar() -> None:
    assert outcome(measured(), None) == "promote"
    for name, rule in CONF.rules.items():
        found = decide(CONF, measured(**{name: _beyond(name, rule)}), None)
        assert (found.outcome, found.findings[name].verdict) == ("refuse", "not reached")


def _beyond(name: str, rule: Rule) -> float:
    return float(np.exp(rule.bar * 1.1)) if name == "duration_ratio" else rule.bar - BETTER[name] * 0.05


def test_without_any_judge_nothing_is_judged() -> None:
    gone = dict.fromkeys(("wer", "cer", "similarity", "dnsmos", "quality"), Missing("no judges were named"))
    found = decide(CONF, measured(**gone), None)
    assert found == Decision("not-judged", ["no judges were named"])


def test_a_doubtful_prompt_refuses() -> None:
    found = decide(CONF, measured(wer=0.0), measured(), ["p.wav: its text is not what is heard in it"])
    assert (found.outcome, found.reasons) == ("refuse", ["p.wav: its text is not what is heard in it"])


@settings(max_examples=25)
@given(
    st.fixed_dictionaries({name: st.floats(0.5, 1.5) for name in GOOD}),
    st.fixed_dictionaries({name: st.floats(0.5, 1.5) for name in GOOD}),
)
def test_two_never_take_each_others_place(first: dict[str, float], second: dict[str, float]) -> None:
    """Else the champion would change at every run. Without margins."""
    strict = replace(CONF, **{name: replace(rule, margin=0.0) for name, rule in CONF.rules.items()})
    one = measured(**{name: GOOD[name] * factor for name, factor in first.items()})
    other = measured(**{name: GOOD[name] * factor for name, factor in second.items()})
    assert [decide(strict, one, other).outcome, decide(strict, other, one).outcome].count("promote") <= 1


def test_the_rules_stand_in_the_recipe(tmp_path: Path) -> None:
    recipe = CHECKOUT / "conf" / "cosyvoice2.tiny.yaml"
    found = load_config(recipe, ["gate.wer={margin: 0.1, bar: 0.5}", "gate.dnsmos=null", "gate.min_utterances=5"]).gate
    assert found.wer == Rule(margin=0.1, bar=0.5)
    assert "dnsmos" not in found.rules
    assert found.min_utterances == 5
    for setting in ("gate.mos={margin: 1, bar: 1}", "gate.wer={margin: -1, bar: 1}", "gate.confidence=2"):
        with pytest.raises(RecipeError, match=r"gate"):
            load_config(recipe, [setting])
