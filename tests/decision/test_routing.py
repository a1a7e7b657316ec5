from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decision.routing import Router, Sample


@pytest.mark.parametrize("percent", [1.0, 10.0, 50.0, 99.0])
def test_the_share_of_keys_and_of_keyless_calls_is_what_was_asked_for(percent: float) -> None:
    router = Router("tiny", percent)
    keyed = sum(router.to_canary(b'"key-%d"' % number) for number in range(20_000)) / 200
    assert keyed == pytest.approx(percent, abs=1.5)
    assert sum(router.to_canary(None) for _ in range(20_000)) / 200 == pytest.approx(percent, abs=0.1)


@given(st.binary(max_size=40), st.floats(0.1, 99.0), st.floats(0.1, 99.0))
def test_a_key_keeps_its_side_in_every_process_and_only_joins_the_canary_as_the_share_grows(
    key: bytes, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    assert Router("tiny", small).to_canary(key) == Router("tiny", small).to_canary(key)
    assert Router("tiny", large).to_canary(key) or not Router("tiny", small).to_canary(key)


def test_capabilities_do_not_share_which_keys_try_the_canary() -> None:
    one, other = Router("one", 50.0), Router("other", 50.0)
    same = sum(one.to_canary(b"%d" % number) == other.to_canary(b"%d" % number) for number in range(2_000))
    assert 800 < same < 1_200


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_a_sample_has_its_share_of_keys_and_of_keyless_calls(share: float) -> None:
    sample = Sample("tiny", share)
    assert sum(sample.takes(b'"key-%d"' % number) for number in range(20_000)) / 20_000 == pytest.approx(
        share, abs=0.01
    )
    assert sum(sample.takes(None) for _ in range(20_000)) / 20_000 == pytest.approx(share, abs=0.001)


@given(st.binary(max_size=40), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_key_stays_in_a_sample_as_its_share_grows(key: bytes, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert Sample("tiny", large).takes(key) or not Sample("tiny", small).takes(key)


def test_who_is_mirrored_does_not_depend_on_who_decides() -> None:
    router, sample = Router("tiny", 50.0), Sample("tiny", 0.5)
    same = sum(router.to_canary(b"%d" % number) == sample.takes(b"%d" % number) for number in range(2_000))
    assert 800 < same < 1_200
