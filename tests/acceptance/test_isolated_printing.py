from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from runtime.pilots import asking, make_model

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.acceptance, pytest.mark.alone, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.mark.parametrize(
    "act",
    [
        "for _ in range(1_000): print('x' * 20_000)",
        "for _ in range(1_000): sys.stderr.write('x' * 20_000)",
        "for _ in range(1_000): os.write(1, b'x' * 20_000)",
        "c = ctypes.CDLL(None)\nfor _ in range(1_000): c.puts(b'x' * 20_000)\nc.fflush(None)",
        "for _ in range(50_000): print(end='x', flush=True)",
        "print('half \\ud800')",
        "sys.stdout.close(); os.close(1); os.close(2)",
    ],
)
async def test_what_is_printed_holds_up_nobody(act: str, tmp_path: Path) -> None:
    async with asking(make_model(tmp_path / "v")) as made:
        slowest, asked = 0.0, made.submit(act)
        while asked.result is None:
            begun = time.perf_counter()
            await asyncio.sleep(0)
            slowest = max(slowest, time.perf_counter() - begun)
        assert asked.p == 2
        assert slowest < 0.25
        assert made.lane.restarts == 0
