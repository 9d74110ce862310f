"""The page of a run: what is on it, what is said to be missing, and that nothing from outside becomes part of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow import storage
from cosyflow.cli import main
from cosyflow.page import make
from cosyflow.page.data import kind_of
from cosyflow.page.elements import clean, document, element, link
from cosyflow.page.make import Wanted, make_page
from cosyflow.run.ends import End
from tests.unit.page.conftest import EVIL, FinishedRun, evaluate, summary_of, tone
from tests.unit.page.parsed import Parsed

SECTIONS = ("Listen", "Decision of the gate", "Figures", "Training", "Data", "Stages", "Further", "Listen and go on")


def page_of(run: str, **wanted: object) -> Parsed:
    return Parsed(make_page(Wanted(run, **wanted)))


def test_a_page_has_all_that_the_run_has_left(finished: FinishedRun, tmp_path: Path) -> None:
    page = page_of(finished.leave(), evaluation=evaluate(tmp_path / "eval", {"u1": "One.", "u2": "Two."}))
    assert len(page.all("audio")) == len(page.all("img")) == 4  # two texts, spoken and recorded
    assert {picture["aria-label"] for picture in page.all("svg")} >= {"loss", "duration", "text", "speakers"}
    assert len([picture for picture in page.all("svg") if picture["aria-label"] == "loss"]) == 2
    for words in ("3 utterances", "2 speakers", "least 1, median 1.5, mean 1.5, most 2", "cosyvoice2.tiny-flow"):
        assert words in page.text
    for words in ("N s, too long", "bad-1", "not-judged", "a doubtful prompt", "1.000 (1.000 to 1.000)"):
        assert words in page.text
    links = {attributes["href"] for attributes in page.all("a")}
    assert "http://kfp.example/#/runs/details/kfp-1" in links
    assert "http://mlflow.example:5000/#/runs/run-of-cosyvoice2.tiny-llm" in links
    assert "cosyflow models promote cosyvoice2.tiny-llm 3 --report" in page.text
    assert "cosyflow synthesize --model_dir exp/model" in page.text
    assert len(page.all("h2")) == len(SECTIONS)


def test_a_local_run_has_the_page_of_its_summary(finished: FinishedRun, tmp_path: Path) -> None:
    page = page_of(summary_of(finished, tmp_path / "run"))
    assert "cosyvoice2.tiny, llm" in page.text
    assert "3 utterances" in page.text


def test_what_comes_from_outside_is_text(finished: FinishedRun, tmp_path: Path) -> None:
    finished.leave(End("export", EVIL, "failed", error=EVIL))
    evaluation = evaluate(tmp_path / "eval", {EVIL: EVIL}, heard=EVIL)
    page = page_of(finished.uri, evaluation=evaluation)
    assert not page.all("script")
    assert not page.all("b")
    assert page.text.count(EVIL) >= 6  # name and text spoken, what was understood, reject, and failure
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)


def test_a_page_loads_nothing_and_is_equal_for_equal_content(finished: FinishedRun, tmp_path: Path) -> None:
    run, evaluation = finished.leave(), evaluate(tmp_path / "eval", {"u": "One."})
    html = make_page(Wanted(run, evaluation))
    assert html == make_page(Wanted(run, evaluation))
    page = Parsed(html)
    for tag in ("audio", "img"):
        assert all(attributes["src"].startswith("data:") for attributes in page.all(tag))
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_samples_that_do_not_fit_are_counted(
    finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = evaluate(tmp_path / "eval", {f"u{place}": "One." for place in range(6)}, seconds=2.0)
    monkeypatch.setattr(make, "LARGEST", 90_000)
    html = make_page(Wanted(finished.leave(), evaluation))
    assert len(html.encode()) < 90_000
    page = Parsed(html)
    assert 0 < len(page.all("audio")) < 12
    assert "more would make the page larger than it may be" in page.text


def test_what_is_missing_is_said_in_its_place(finished: FinishedRun) -> None:
    for manifest in finished.manifests:
        if manifest.stage in ("parquet", "train"):
            storage.remove(manifest.uri)
    page = page_of(finished.leave())
    assert page.text.count("The run was not evaluated") == 3
    assert page.text.count("neither a metrics.jsonl nor a checkpoint with losses") == 2
    assert "Its shards cannot be read" in page.text
    assert not page.all("svg")


def test_a_run_that_failed_at_once_has_a_page(tmp_path: Path) -> None:
    run = FinishedRun(str(tmp_path / "data"), tmp_path)
    page = page_of(run.leave(End("download", "train-a", "failed", error="no network")))
    for words in ("A stage failed", "no network", "Nothing was trained", "nothing to say of the data", "not evaluated"):
        assert words in page.text


def test_losses_that_are_not_finite_are_left_out_and_counted(finished: FinishedRun) -> None:
    metrics = Path(finished.manifests[-2].uri, "metrics.jsonl")
    metrics.write_text('{"update": 1, "train/loss": NaN}\n{"update": 2, "train/loss": 3.0}\n{"update": 3, "tr')
    assert "1 values are not finite and are left out" in page_of(finished.leave()).text


def test_what_a_training_sounded_like_is_played(finished: FinishedRun) -> None:
    """The first, the middle and the last of its checkpoints."""
    train = next(each.uri for each in finished.manifests if each.stage == "train")
    for update in (10, 20, 30, 40):
        folder = Path(train, "samples", f"epoch_{update}_whole")
        folder.mkdir(parents=True)
        tone(folder / "0.wav", 0.3)
        samples = [{"utt": "a", "text": EVIL, "wav": "0.wav", "problem": ""},
                   {"utt": "b", "text": "B", "wav": "", "problem": "it speaks nothing"}]  # fmt: skip
        spoken = {"checkpoint": folder.name, "update": update, "part": "llm", "samples": samples}
        (folder / "samples.json").write_text(json.dumps(spoken))
    page = page_of(finished.leave())
    assert len(page.all("audio")) == len(page.all("img")) == 3
    assert "The same texts after 10, 20, 40 updates, of 4 checkpoints" in page.text
    assert "epoch_10_whole: b it speaks nothing" in page.text
    assert EVIL in page.text


def test_metrics_that_are_damaged_are_named(finished: FinishedRun) -> None:
    Path(finished.manifests[-2].uri, "metrics.jsonl").write_text('{"update": 1}\nnonsense\n{"update": 2}\n')
    assert "metrics.jsonl:2: not a line of metrics; remove it" in page_of(finished.leave()).text


def test_curves_come_from_checkpoints_where_there_are_no_metrics(finished: FinishedRun) -> None:
    folder = Path(finished.manifests[-2].uri)
    (folder / "metrics.jsonl").unlink()
    for epoch in range(2):
        (folder / f"epoch_{epoch}_whole.pt").write_bytes(b"weights")
        record = {"epoch": epoch, "step": 10 * epoch + 10, "loss_dict": {"loss": 3.0 - epoch}}
        (folder / f"epoch_{epoch}_whole.yaml").write_text(json.dumps(record))
    page = page_of(finished.leave())
    assert len([picture for picture in page.all("svg") if picture["aria-label"] == "loss"]) == 2
    assert "validation" in page.text


def test_a_sample_that_is_gone_is_said(finished: FinishedRun, tmp_path: Path) -> None:
    evaluation = evaluate(tmp_path / "eval", {"u": "One."})
    (tmp_path / "eval" / "wavs" / "spoken000.wav").unlink()
    page = page_of(finished.leave(), evaluation=evaluation)
    assert len(page.all("audio")) == 1
    assert "It cannot be played" in page.text


def test_the_command_writes_the_page_into_the_folder_of_the_run(
    finished: FinishedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["page", finished.leave()]) == 0
    file = Path(finished.uri, "page.html")
    assert capsys.readouterr().out == f"page: {file}\n"
    assert Parsed(file.read_text()).all("title")
    assert main(["page", finished.uri]) == 0  # the page is not taken for the end of a task


@pytest.mark.medium
def test_a_run_in_a_store_has_its_page_there(s3_folder: str, tmp_path: Path) -> None:
    run = FinishedRun(s3_folder, tmp_path)
    run.parquet("train-a", {"a-1": ("ann", 1.0)})
    run.train("cosyvoice2.tiny-llm")
    assert main(["page", run.leave()]) == 0
    assert "1 utterances" in Parsed(storage.read_text(storage.join(run.uri, "page.html"))).text


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["{}/nowhere"], 1, "nowhere: no such folder; name the folder of a run"),
        (["{}"], 1, "has neither a summary.json nor a plan.json"),
        (["{}", "--samples", "-1"], 2, "error: --samples: -1 is negative; give 0 or more"),
        (["{}/data/runs/first", "--evaluation", "{}/none"], 1, "none/report.json: no such report"),
        (["{}/data/runs/first", "--evaluation", "{}/list.json"], 1, "not a report of cosyflow evaluate"),
        (["{}/data/runs/first", "--evaluation", "{}/half.json"], 1, "half.json: damaged or not a report"),
        (["{}/data/runs/first", "--output", "{}"], 1, "is a folder; name a file"),
    ],
)
def test_what_cannot_be_shown_is_named_in_one_line(
    finished: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str
) -> None:
    finished.leave()
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "half.json").write_text('{"format": 1, "utterances": {}}')
    assert main(["page", *(word.format(tmp_path) for word in words)]) == status
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data" / "runs" / "first" / "page.html").exists()


def test_reasons_are_counted_without_what_differs() -> None:
    assert kind_of("/a/b.wav: 35.20 s, the tokenizer takes 30 s at most") == "N s, the tokenizer takes N s at most"
    assert kind_of("s3://bucket/b.flac: damaged") == "damaged"
    assert kind_of("is not in utt2embedding.pt") == "is not in utt2embedding.pt"


@pytest.mark.medium
@settings(max_examples=50)
@given(st.text())
def test_every_text_comes_back_as_it_was(text: str) -> None:
    html = document("title", "", [element("p", text, title=text)])
    page = Parsed(html)
    (found,) = page.all("p")
    assert found["title"] == clean(text)
    assert page.text.partition("title")[2].strip("\n") == clean(text).strip("\n")


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "http:", "//[", "file:///etc/passwd"])
def test_only_web_addresses_are_links(address: str) -> None:
    assert link(address).tag == "span"


def test_no_password_is_on_a_page() -> None:
    made = link("http://me:hunter22@mlflow.example/#/runs/1")
    assert "hunter22" not in document("", "", [made])
