"""The stages as KFP components: parse, call the library, describe the outputs.

They are lightweight components: KFP copies a function's source into the pipeline, so everything a function needs is
imported inside it, from the library that its image has installed.
"""

from __future__ import annotations

from components.average.component import average
from components.download.component import download
from components.export.component import export
from components.merge.component import merge
from components.parquet.component import parquet
from components.plan.component import plan
from components.prepare.component import prepare
from components.register.component import register
from components.report.component import report
from components.speaker_embedding.component import speaker_embedding
from components.speech_token.component import speech_token
from components.train.component import train

__all__ = [
    "average",
    "download",
    "export",
    "merge",
    "parquet",
    "plan",
    "prepare",
    "register",
    "report",
    "speaker_embedding",
    "speech_token",
    "train",
]
