"""What the page of a run is made of: summary, manifests, metrics, samples, rejects, the report of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

from cosyflow.run.ends import End
from tests.fuzz.documents import Document, to_json
from tests.unit.page.conftest import FinishedRun, evaluate, summary_of, tone
from tests.unit.page.parsed import Parsed

TRAIN = "data/train/cosyvoice2.tiny-llm/k"


def make_pages(folder: Path) -> dict[str, Document]:
    run = FinishedRun(str(folder / "data"), folder)
    run.prepare("train-a", {"bad": "too long"})
    run.parquet("train-a", {"a-1": ("ann", 0.3)})
    run.train("cosyvoice2.tiny-llm")
    run.leave(End("export", "whole", "failed", error="no space"))
    summary_of(run, folder)
    evaluate(folder / "eval", {"u1": "One."}, seconds=0.2, heard="Won.")
    heard = folder / TRAIN / "samples" / "epoch_0_whole"
    heard.mkdir(parents=True)
    tone(heard / "0.wav", 0.2)
    samples = [{"utt": "a", "text": "A.", "wav": "0.wav", "problem": ""}]
    spoken = {"checkpoint": heard.name, "update": 10, "part": "llm", "samples": samples}
    (heard / "samples.json").write_bytes(to_json(spoken))
    jsons = (
        "summary.json",
        "eval/report.json",
        "data/runs/first/plan.json",
        f"{TRAIN}/manifest.json",
        f"{TRAIN}/samples/epoch_0_whole/samples.json",
    )
    documents = {name: Document.of(json.loads((folder / name).read_bytes()), to_json) for name in jsons}
    for name in (f"{TRAIN}/metrics.jsonl", "data/prepare/train-a/k/rejects.tsv"):
        documents[name] = Document((folder / name).read_bytes())
    return documents


def read_pages(folder: Path) -> None:
    """A page that is made is whole, and loads nothing, whatever it is made of."""
    from cosyflow.page.make import Wanted, make_page
    from tests.fuzz.texts import each

    def read(run: Path) -> None:
        page = Parsed(make_page(Wanted(str(run), str(folder / "eval"))))
        assert not page.all("script")
        assert all(found["src"].startswith("data:") for tag in ("img", "audio") for found in page.all(tag))

    each(lambda: read(folder), lambda: read(folder / "data" / "runs" / "first"))
