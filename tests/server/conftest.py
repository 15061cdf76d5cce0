from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import Served
from tiny import TinyModel


@pytest.fixture(scope="module")
def served(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPS_LOCAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        one = Served(tiny_model())
        yield one
        one.worker.close()
