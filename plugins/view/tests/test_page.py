"""The page in a browser: each statement about it is seen in Chromium."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph_view import view
from plugins.view.tests.browser import PATH, browser
from plugins.view.tests.models import HOSTILE, Asking, flat_ir, hostile_ir, net_ir

pytestmark = [
    pytest.mark.skipif(PATH is None, reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.slow,
]
TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def chromium():
    with browser() as made:
        yield made


@pytest.fixture
def show(chromium, tmp_path):
    """Open the page of an IR; at the end, nothing may be in the console."""
    pages = []

    def opened(ir, dark=False, **options):
        path = tmp_path / "model.html"
        view(ir, path, **options)
        page = chromium.page(dark)
        page.open(path)
        pages.append((page, path))
        return page

    yield opened
    for page, path in pages:
        assert page.messages == []
        assert page.requests == [path.as_uri()]


def items(page):
    """Return the titles of the boxes that are in the picture."""
    code = "[...document.querySelectorAll('#picture .box > title')].map((each) => each.textContent)"
    return [each.replace(DASH, "-") for each in page.run(code)]


def panel(page):
    return page.run("document.getElementById('panel').innerText").replace(DASH, "-")


def rows(page):
    return page.run(
        "[...document.querySelectorAll('#outline > div')].map((each) => each.innerText.trim())"
    )


def selected(page):
    return page.run("document.querySelector('#outline [aria-selected]').innerText.trim()")


def click(page, title, times=1):
    """Click the title of a box with the mouse."""
    start = json.dumps(title.replace("-", DASH))
    find = f"""[...document.querySelectorAll('#picture .box')].find(
      (each) => each.querySelector('title').textContent.startsWith({start})
    ).querySelector(':scope > text')"""
    page.run(f"{find}.scrollIntoView({{block: 'center'}})")
    box = f"{find}.getBoundingClientRect()"
    x, y = page.run(f"(() => {{ const box = {box}; return [box.right - 4, box.y + 5]; }})()")
    for count in range(1, times + 1):
        for kind in ("mousePressed", "mouseReleased"):
            page.send(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=count
            )


# --- what a stranger's file cannot do ---


def test_text_of_a_model_runs_no_script(show):
    page = show(hostile_ir(), title=HOSTILE[1], diff=net_ir(2))
    assert page.run("document.querySelector('h1').textContent") == HOSTILE[1]
    for number, text in enumerate(HOSTILE[:-1]):
        page.run(f"goToNode({number + 1}, '')")
        assert f"a\n{text!r}" in panel(page) or f'a\n"{text}"' in panel(page)
        assert text in page.run("document.querySelector('#picture .selected').textContent")
    for each in ("guards", "changes", "help", "open-all"):
        page.run(f"document.getElementById('{each}').click()")
    page.run("byId('search').value = 'script'; showResults()")
    assert page.run("document.querySelectorAll('img, iframe, object, embed, a').length") == 0
    assert page.run("document.scripts.length") == 2
    assert (
        page.run("[...document.querySelectorAll('*')].filter((each) => each.onerror).length") == 0
    )


def test_the_policy_lets_nothing_else_run_or_load(chromium, tmp_path):
    view(net_ir(2), tmp_path / "model.html")
    page = chromium.page()
    page.open(tmp_path / "model.html")
    refused = "(async () => { try { %s; return 'done' } catch (error) { return error.name } })()"
    inserted = "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hacked=1>')"
    assert page.run(refused % inserted) == "TypeError"
    handler = "document.body.setAttribute('onclick', 'hacked=1')"
    assert page.run(refused % handler) == "TypeError"
    assert page.run(refused % "eval('1')") == "EvalError"
    assert page.run(refused % "await fetch('data:,x')") == "TypeError"
    page.run(
        "for (const name of ['img', 'iframe']) {"
        "  const made = document.createElement(name);"
        "  made.src = 'data:text/html,x'; document.body.append(made); }"
    )
    assert page.run("document.title") == "model"
    said = " ".join(page.messages)
    for each in ("TrustedHTML", "connect-src", "img-src", "frame-src"):
        assert each in said
    asked = [each for each in page.requests if not each.startswith("data:")]
    assert asked == [(tmp_path / "model.html").as_uri()]


def test_what_is_put_into_the_file_does_not_run(chromium, tmp_path):
    injected = "<script>hacked = 1</script><img src=x onerror=hacked=2><b onclick=hacked=3>x</b>"
    page_text = view(net_ir(2)).html
    (tmp_path / "model.html").write_text(page_text.replace("<header>", f"{injected}<header>"))
    page = chromium.page()
    page.open(tmp_path / "model.html")
    page.run("document.querySelector('b').click()")
    assert page.run("typeof hacked") == "undefined"
    assert " ".join(page.messages).count("script-src") >= 2


# --- what a user does ---


def test_equal_blocks_are_one_box_that_opens(show):
    page = show(net_ir())
    assert "linear - first" in items(page)
    click(page, "blocks", 2)
    assert any(each.startswith(f"module {TIMES} 12") for each in items(page))
    click(page, f"module {TIMES} 12", 2)
    assert {f"{number} - module · 6 nodes" for number in range(12)} <= set(items(page))
    click(page, "blocks", 2)
    assert not any(TIMES in each for each in items(page))


def test_attributes_and_neighbours_of_a_layer(show):
    page = show(net_ir(), args=[(2, 3)])
    click(page, "linear - first")
    said = panel(page)
    for each in (
        "in_features\n3",
        "path\nfirst",
        "parameters\n16",
        "FLOPs\n48",
        "Reads\nx - input float32[2, 3]",
        "Is read by\nblocks - sequential · 14 nodes float32[2, 4]",
    ):
        assert each in said
    page.run("[...document.querySelectorAll('#panel button')].at(-1).click()")
    assert selected(page).endswith("blocks sequential · 14 nodes")
    assert "parameters\n912 (0 of its own)" in panel(page)


def test_every_node_is_a_box_and_a_row(show):
    ir = net_ir(5)
    page = show(ir)
    page.run("openAll()")
    graphs = [each.graphs[-1] for each in ir.values()]
    # The root, one group, and the two ends of its values; "last" is called twice, and is a leaf.
    count = sum(len(graph.nodes) for graph in graphs)
    assert len(items(page)) == count + 1 + 1 + 2
    assert len(rows(page)) == count + 1 + 1
    edges = sum(len(graph.edges) for graph in graphs)
    assert page.run("document.querySelectorAll('.edge').length") == edges + 2
    assert page.run("document.getElementById('status').textContent") == "All boxes are open"
    page.run("closeAll()")
    assert len(rows(page)) == len(ir["root"].graphs[-1].nodes) + 1


def test_both_modes(show):
    page = show(net_ir())
    assert not any("dropout" in each for each in items(page))
    page.run("byId('mode').value = 'training'; byId('mode').dispatchEvent(new Event('change'))")
    assert any("dropout" in each for each in items(page))
    assert page.run("byId('mode').hidden") is False
    assert show(flat_ir(3)).run("byId('mode').hidden") is True


def test_the_keyboard_is_enough(show):
    page = show(net_ir())
    page.press("/", *"blocks.7.up", "Enter")
    assert selected(page).endswith("linear up")
    assert page.run("document.activeElement.getAttribute('aria-label')") == "linear, up"
    page.press("ArrowDown")
    assert selected(page).endswith("relu relu")
    page.press("ArrowDown", "ArrowDown", "ArrowDown")
    assert selected(page).endswith("output")
    page.press("ArrowDown")
    assert selected(page).endswith("8 module · 6 nodes")
    page.press("Enter", "ArrowDown")
    assert selected(page).endswith("x input")
    page.press("ArrowUp", "Enter")
    assert page.run("document.activeElement.getAttribute('aria-expanded')") == "false"
    page.press("Escape", "Escape", "ArrowLeft")
    assert selected(page).endswith("linear first")
    page.press("Home")
    assert selected(page).endswith("model module")
    page.press("/", *"no such", "Escape")
    assert page.run("document.activeElement.dataset.key") == "model"


def test_the_outline_is_a_tree(show):
    page = show(net_ir())
    page.run("document.querySelector('#outline [tabindex=\"0\"]').focus()")
    page.press("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowDown")
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    found = [(each["role"]["value"], each["name"]["value"]) for each in tree if not each["ignored"]]
    assert ("treeitem", f"module {TIMES} 12 0 … 11") in found
    assert ("tree", "Outline of the model") in found
    assert ("button", "linear, first") in found
    assert ("status", "") in found
    row = page.run(
        "['level', 'posinset', 'setsize', 'expanded'].map("
        "(each) => document.activeElement.getAttribute('aria-' + each))"
    )
    assert row == ["3", "2", "3", "false"]
    page.press("ArrowLeft")
    assert selected(page).endswith("blocks sequential · 14 nodes")
    page.press("ArrowLeft")
    assert len(rows(page)) == 7


def test_guards_lead_to_their_nodes(show):
    page = show(lg.to_ir(Asking(), (torch.ones(2, 3),)))
    page.run("byId('guards').click()")
    assert "models.py, line" in panel(page)
    page.run("[...document.querySelectorAll('#panel button')].at(-1).click()")
    assert "operator.gt(size, 1) is True" in panel(page)
    assert selected(page).startswith("·\nguard") or "guard" in selected(page)


def test_bodies_open(show):
    page = show(lg.to_ir(Asking(), (torch.ones(2, 3),)))
    page.run("openAll()")
    assert sum(each.endswith("- body") for each in items(page)) == 2
    assert any(each.startswith("cos") for each in items(page))


def test_changes_are_marked(show):
    old, new = net_ir(), net_ir()
    new["blocks.3.up"].data["bias"] = False
    page = show(new, diff=old)
    assert page.run("byId('changes').textContent") == "Changes (1)"
    assert [each for each in rows(page) if "~" in each] == [
        each for each in rows(page) if "blocks" in each or "model" in each
    ]
    page.run("byId('changes').click()")
    page.run("document.querySelector('#panel button').click()")
    assert "~ attribute bias: True -> False" in panel(page)
    assert "changed" in page.run("document.querySelector('#picture .selected').classList.value")
    assert show(new, diff=new).run("byId('changes').textContent") == "Changes (0)"


def test_five_thousand_nodes(show):
    ir = flat_ir(5000)
    page = show(ir)
    assert len(items(page)) < 60
    for number in (0, 17, 2503, 4999):
        page.run(f"byId('search').value = 'add_{number}'; showResults()")
        page.run("byId('results').querySelector('button').click()")
        assert f"add_{number} = torch.add(" in panel(page)
        reads = {src for src, sink in ir["root"].edges if sink == f"add_{number}"}
        for each in reads:
            assert each in panel(page).split("Is read by")[0]
    page.run("openAll()")
    assert "stay closed" in page.run("byId('status').textContent")


def test_deeply_nested_layers(show):
    model = nn.ReLU()
    for _ in range(60):
        model = nn.Sequential(model)
    page = show(lg.to_ir(model))
    page.run("openAll()")
    assert any(each.startswith("relu") for each in items(page))


def test_dark(show):
    colour = "getComputedStyle(document.body).backgroundColor"
    assert show(net_ir()).run(colour) == "rgb(255, 255, 255)"
    assert show(net_ir(), dark=True).run(colour) == "rgb(22, 24, 28)"


def test_the_saved_picture_is_svg(show):
    page = show(hostile_ir())
    text = page.run("pictureFile(view.svg, byId('picture-style').textContent)")
    assert HOSTILE[1] in "".join(ET.fromstring(text).itertext())
    assert "var(" not in text


def test_small_models(show):
    assert items(show(lg.to_ir(nn.Linear(2, 3)))) == ["model - linear"]
    assert len(items(show(lg.to_ir(nn.Sequential())))) == 3
