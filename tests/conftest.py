"""Fixtures of the tests that cross packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environment import CHECKOUT, PACKAGES, THIRD_PARTY, Environment, build
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


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    build(folder, CHECKOUT, *PACKAGES, *THIRD_PARTY)
    return folder


@pytest.fixture(scope="session")
def wheel(wheels: Path) -> Callable[[str], Path]:
    def find(distribution: str) -> Path:
        (found,) = wheels.glob(f"{distribution.replace('-', '_')}-*.whl")
        return found

    return find


@pytest.fixture(scope="session")
def core_only(
    tmp_path_factory: pytest.TempPathFactory, wheel: Callable[[str], Path]
) -> Environment:
    environment = Environment.create(tmp_path_factory.mktemp("core_only"))
    environment.pip("install", wheel("layergraph-core"))
    return environment


@pytest.fixture(scope="session")
def complete(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Environment:
    environment = Environment.create(tmp_path_factory.mktemp("complete"), "rich", "typer")
    # Install the files, not the names: an index may have another package of the same name.
    ours = sorted(wheels.glob("layergraph[-_]*.whl"))
    environment.pip("install", "--find-links", wheels, *ours)
    return environment
