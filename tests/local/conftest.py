"""The corpus of most trainings here; a file whose trainings need another one has its own."""

from __future__ import annotations

import pytest

from tests.local.token_corpus import TokenCorpus, make_token_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenCorpus:
    return make_token_corpus(tmp_path_factory.mktemp("corpus"))
