from __future__ import annotations

import math
import time

SECONDS = 0.003  # for each record


def answer(records: list[dict[str, float]]) -> list[dict[str, float]]:
    """The logistic function of `a`, slowly."""
    time.sleep(SECONDS * len(records))
    return [{"probability": 1 / (1 + math.exp(-record["a"]))} for record in records]
