"""A processor that has fewer instructions than others: what is slow on it is refused, and the rest works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.jobs import train_command
from tests.local.token_corpus import REPOSITORY, make_token_corpus

AVX2_ALONE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.slow
def test_bfloat16_that_is_only_emulated_is_refused_with_the_reason(tmp_path: Path) -> None:
    corpus = make_token_corpus(tmp_path / "corpus")

    def train(dtype: str) -> subprocess.CompletedProcess[str]:
        words = train_command(corpus, tmp_path / dtype, 0, 1, f"train_conf.dtype={dtype}")
        command = [sys.executable, "-m", "cosyflow", *words]
        return subprocess.run(
            command, cwd=REPOSITORY, env={**os.environ, **AVX2_ALONE}, capture_output=True, text=True, timeout=600
        )

    refused = train("bfloat16")
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr == (
        "error: train_conf.dtype: this processor has no instruction that multiplies bfloat16 (AVX-512 BF16, AMX), and"
        " is several times as slow with it as with float32; give float32 or auto\n"
    )
    assert train("auto").returncode == 0
