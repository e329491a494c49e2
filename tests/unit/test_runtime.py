from __future__ import annotations

import time
from datetime import timedelta, timezone
from typing import TYPE_CHECKING

from esms_source.runtime import Clock

if TYPE_CHECKING:
    import pytest


def test_it_tells_utc():
    """Times that go into tables are UTC."""
    clock = Clock()
    assert clock.now().tzinfo is timezone.utc
    assert clock.now() - clock.started_at < timedelta(seconds=5)


def test_it_never_steps_back_with_the_wall_clock(monkeypatch: pytest.MonkeyPatch):
    """A wall clock that is set back in mid-run doesn't reach the tables."""
    clock = Clock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.now() >= before
