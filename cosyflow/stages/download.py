"""Stage -1, download: one subset's archive, checked and unpacked, or a folder of one's own that is there already."""

from __future__ import annotations

import hashlib

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe
from cosyflow.stages.selected import run_selected

SOURCE = "source"


def run(subset: str, recipe: str, data_root: str, data_url: str, activity: Activity) -> Manifest:
    """Fetches `subset`.

    Args:
        data_url: base URL of `<subset>.tar.gz` and its checksums; or a folder (or s3:// prefix) that has `<subset>` as
            a LibriTTS tree or in Kaldi form, which is used in place; empty: the recipe's.
    """
    url = data_url or load_recipe(recipe).corpus.data_url
    is_web = url.startswith(("http://", "https://"))
    settings = {"data_url": url}
    if not is_web:
        settings["listing"] = _listing_digest(storage.join(url, subset))

    def fetch(output: str) -> StageResult:
        from cosyflow.corpus.download import download_subset

        return download_subset(subset, url, output)

    def use_in_place(output: str) -> StageResult:
        return describe_folder(storage.join(url, subset))

    return run_selected(
        "download",
        subset,
        data_root,
        inputs=[],
        settings=settings,
        activity=activity,
        work=fetch if is_web else use_in_place,
        code=["cosyflow.corpus"],
    )


def source_folder(downloaded: Manifest) -> str:
    """Where a downloaded subset's speech lies."""
    return str(downloaded.details.get(SOURCE) or storage.join(downloaded.uri, "LibriTTS", downloaded.name))


def describe_folder(folder: str) -> StageResult:
    """The result of using `folder` as it is. Raises CosyFlowError when it does not exist or is empty."""
    files = storage.list_files(folder)
    if not files:
        raise CosyFlowError(f"{folder}: no such folder, or nothing in it; give a LibriTTS tree or Kaldi files")
    counts = {"files": len(files), "bytes": sum(file.size for file in files)}
    return StageResult(counts, [], details={SOURCE: folder}, digest=_listing_digest(folder))


def _listing_digest(folder: str) -> str:
    listing = "\n".join(f"{file.path}\t{file.size}" for file in storage.list_files(folder))
    return hashlib.sha256(f"{folder}\n{listing}".encode()).hexdigest()
