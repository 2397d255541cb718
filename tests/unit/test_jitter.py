"""Jitter: within its bounds, whatever the kernel gives, and not always the same."""

from __future__ import annotations

import os

import pytest

from domain_events.jitter import between, fraction


@pytest.mark.parametrize(("byte", "low", "high"), [(0x00, 0.0, 0.0), (0x80, 0.5, 0.51), (0xFF, 0.99, 1.0)])
def test_a_fraction_is_from_0_on_and_below_1(
    monkeypatch: pytest.MonkeyPatch, byte: int, low: float, high: float
) -> None:
    monkeypatch.setattr(os, "urandom", lambda size: bytes([byte]) * size)
    assert low <= fraction() <= high
    assert fraction() < 1
    assert 3 + 2 * low <= between(3, 5) <= 3 + 2 * high


def test_fractions_differ() -> None:
    assert len({fraction() for _ in range(100)}) == 100
