"""The code in READMEs and docs runs, and prints the output that the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, Block, blocks

EXAMPLES = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
    if block.is_code
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_example(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block.run()


SHORT = {
    "run-passes": [
        "Fold batch norm",
        "Delete dropout",
        "Fuse convolution",
        "Quantize every Linear",
    ],
    "edit-a-model": [
        "Insert a layer",
        "Rename a layer",
        "Change an attrib",
        "Quantize every Linear",
    ],
    "extract-a-part": ["Extract a part"],
    "list-every-edge-with-its-shape": ["Edges"],
}


@pytest.mark.parametrize(
    ("name", "heading"), [(name, each) for name, headings in SHORT.items() for each in headings]
)
def test_a_task_takes_few_lines(name: str, heading: str) -> None:
    page = ROOT / "docs" / "how-to" / f"{name}.md"
    (line,) = (
        number
        for number, text in enumerate(page.read_text().splitlines())
        if text.lstrip("# ").startswith(heading) and text.startswith("#")
    )
    example = next(block for block in blocks(page) if block.is_code and block.line > line)
    own = [
        text
        for text in example.text.splitlines()
        if text and not text.startswith(("import ", "from ", "model = "))
    ]
    assert len(own) <= 6, own
    assert not any(";" in text for text in own)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_code_is_overlooked(page: Path) -> None:
    for language in ("python", "console"):
        fences = re.findall(rf"^ *`+{language}\b.*$", page.read_text(), re.MULTILINE)
        assert len(fences) == sum(block.language == language for block in blocks(page)), fences


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", prose):
        assert (page.parent / target).exists(), target
        if page.is_relative_to(ROOT / "docs"):
            # The site has the pages in docs/ only. A link to another file works in the repository.
            assert (page.parent / target).resolve().is_relative_to(ROOT / "docs"), target


def test_every_plugin_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for folder in (ROOT / "plugins").iterdir():
        if (folder / "pyproject.toml").exists():
            assert f"(plugins/{folder.name}/README.md)" in readme


PRECEDENCE = (ROOT / "docs/explanation/precedence.md").read_text()
# An item of a list, with its continuation lines.
CLAIM = re.compile(r"^(?:\d+\.|-) .*\n(?:  .*\n)*", re.MULTILINE)
LINK = re.compile(r"^ +`([\w/]+\.py)::(\w+)`$", re.MULTILINE)


def test_precedence_is_told_alike() -> None:
    from layergraph import plugins

    listed = re.compile(r"^\d\. .*$", re.MULTILINE)
    told = (plugins.__doc__ or "").replace("`", "")
    assert len(listed.findall(told)) == 6
    assert listed.findall(PRECEDENCE.replace("`", "")) == listed.findall(told)


@pytest.mark.parametrize("claim", CLAIM.findall(PRECEDENCE), ids=lambda claim: claim[:50])
def test_each_claim_of_precedence_has_its_tests(claim: str) -> None:
    links = LINK.findall(claim)
    assert links, "a claim without a test"
    for file, name in links:
        assert f"\ndef {name}(" in (ROOT / file).read_text(), f"there is no {file}::{name}"


def test_each_link_of_precedence_belongs_to_a_claim() -> None:
    assert len(LINK.findall("".join(CLAIM.findall(PRECEDENCE)))) == PRECEDENCE.count(".py::")
