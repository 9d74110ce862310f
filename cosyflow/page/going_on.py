"""Where more is to be seen, and the commands to listen and to go on with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from cosyflow import storage
from cosyflow.evaluation.rows import CANDIDATE
from cosyflow.page.elements import Child, element, link, missing
from cosyflow.page.sources import Sources

MODEL, PROMPT, LIST = "exp/model", "prompt.wav", "list.tsv"
"""What stands in a command where the run does not say more."""


def links(sources: Sources) -> list[Element]:
    """The run in the Kubeflow UI, and its trainings in MLflow and TensorBoard."""
    items: list[Element] = []
    url = sources.kubeflow
    items.append(
        element("li", "The run in the Kubeflow UI: ", link(url))
        if url
        else element("li", "The run has no page in a Kubeflow UI.", class_="missing")
    )
    tracking = sources.record.tracking if sources.record else ""
    if not tracking:
        items.append(element("li", "No MLflow is known of the run.", class_="missing"))
    elif tracking.startswith(("http://", "https://")):
        items.append(element("li", "MLflow: ", link(tracking)))
    else:
        items.append(element("li", "MLflow: ", _command(["mlflow", "ui", "--backend-store-uri", tracking])))
    for manifest in sources.manifests("train"):
        run = str(manifest.details.get("mlflow_run_id") or "")
        if run and tracking.startswith(("http://", "https://")):
            address = f"{tracking.rstrip('/')}/#/runs/{run}"
            items.append(element("li", f"Training of {manifest.name} in MLflow: ", link(address)))
        elif run:
            items.append(element("li", f"Training of {manifest.name} in MLflow: run {run}"))
        events = storage.join(manifest.uri, "tensorboard")
        if storage.is_folder(events):
            items.append(element("li", f"Training of {manifest.name}: ", _command(["tensorboard", "--logdir", events])))
    return [element("ul", *items)]


def commands(sources: Sources, report: Any, report_uri: str) -> list[Element]:
    """How to listen, to evaluate, to promote, and where the settings are."""
    rows = [element("li", f"{words}: ", shown) for words, shown in _commands(sources, report, report_uri)]
    if sources.record:
        rows.append(element("li", "All settings of the run: ", element("code", sources.record.uri)))
    return [element("ul", *rows)]


def stages(sources: Sources) -> Element:
    """What each stage made or reused, or why it failed."""
    rows: list[list[Child]] = []
    for end in sources.ends:
        manifest = end.read_manifest()
        made = end.error or (manifest.uri if manifest else "")
        seconds = f"{end.seconds:.1f}" if end.seconds else ""
        rows.append([end.stage, end.name, element("span", end.state, class_=end.state), seconds, made])
    if not rows:
        return missing("No stage has ended.")
    head = element("tr", *(element("th", name) for name in ("stage", "of", "", "seconds", "")))
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    return element("table", element("thead", head), element("tbody", *body), class_="stages")


def _commands(sources: Sources, report: Any, report_uri: str) -> Iterator[tuple[str, Element]]:
    recipe = sources.record.recipe_file if sources.record else "RECIPE"
    model = MODEL
    if report is not None:
        model = str(report["models"][CANDIDATE]["uri"])
    else:
        for averaged in sources.manifests("average"):
            part = next((name for name in sorted(averaged.files) if name.endswith(".pt")), "")
            if part:
                option = f"--{part.removesuffix('.pt')}_model"
                words = ["cosyflow", "export", "--config", recipe, "--pretrained_dir", "PRETRAINED_DIR", option]
                words += [storage.join(averaged.uri, part), "--output_dir", model]
                yield "Make a model directory that speaks", _command(words)
    speak = ["cosyflow", "synthesize", "--model_dir", model, "--config", recipe, "--prompt_wav", PROMPT]
    yield "Listen", _command([*speak, "--prompt_text", "What is said in it.", "--text", "Hello!", "-o", "speech.wav"])
    if report is None:
        judged = ["cosyflow", "evaluate", "--model_dir", model, "--config", recipe, "--list", LIST]
        judged += ["--judges", "exp/judges", "--output_dir", "exp/eval"]
        yield "Let judges hear it, for figures and samples on this page", _command(judged)
        again = ["cosyflow", "page", sources.uri, "--evaluation", "exp/eval"]
        yield "Then make this page again", _command(again)
    for manifest in sources.manifests("register"):
        for name, version in sorted((manifest.details.get("versions") or {}).items()):
            words = ["cosyflow", "models", "promote", str(name), str(version)]
            yield "Make it the champion", _command([*words, "--report", report_uri or "exp/eval/report.json"])


def _command(words: list[str]) -> Element:
    return element("code", shlex.join(words))
