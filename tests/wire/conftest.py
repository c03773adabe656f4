from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.wire.wires import Wire


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()
    gc.collect()
