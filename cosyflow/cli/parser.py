"""Command-line options that accept the official spelling (`--num_utts_per_parquet`) and hyphens alike."""

from __future__ import annotations

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose options can be written with underscores or hyphens, and whose help shows defaults."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """As argparse's, but an option gets its other spelling too."""
        spelled = list(names)
        for name in names:
            if name.startswith("--"):
                other = "--" + name[2:].replace("_", "-")
                if other not in spelled:
                    spelled.append(other)
        if spelled[0].startswith("--"):
            settings.setdefault("dest", spelled[0][2:].replace("-", "_").replace(".", "_"))
        return super().add_argument(*spelled, **settings)
