"""What the tests that cross packages share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sites import Site


@pytest.fixture
def make_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Site]:
    def make(name: str) -> Site:
        site = Site(tmp_path / name)
        monkeypatch.syspath_prepend(site.folder)
        return site

    return make


@pytest.fixture
def site(make_site: Callable[[str], Site]) -> Site:
    return make_site("site")
