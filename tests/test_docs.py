"""The code in READMEs and docs runs, and prints what it says it prints."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("core/*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("plugins/*/*.md"),
    ]
)
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\s*prints\s*```text\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
EXAMPLES = [
    pytest.param(page, match, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, match in enumerate(BLOCK.finditer(page.read_text()))
]


@pytest.mark.parametrize(("page", "match"), EXAMPLES)
def test_example(page, match):
    line = page.read_text().count("\n", 0, match.start("code"))
    code = compile("\n" * line + match["code"], str(page), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "example"})
    if match["output"] is not None:
        assert printed.getvalue().strip("\n").splitlines() == [
            line.rstrip() for line in match["output"].strip("\n").splitlines()
        ]


def test_there_are_examples():
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_plugin_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for folder in (ROOT / "plugins").iterdir():
        if (folder / "pyproject.toml").exists():
            assert f"(plugins/{folder.name}/README.md)" in readme


def test_precedence_is_told_alike():
    from layergraph import plugins

    listed = re.compile(r"^\d\. .*$", re.MULTILINE)
    page = (ROOT / "docs/plugins.md").read_text().replace("`", "")
    told = (plugins.__doc__ or "").replace("`", "")
    assert listed.findall(page) == listed.findall(told)
