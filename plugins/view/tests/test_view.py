"""Pictures and diagrams, and what the page is made of."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.resources
import json
import re
import xml.etree.ElementTree as ET

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import ArgumentError, FileError, InvalidIrError, ShapeError
from layergraph.ir import Implementation, Ir, Node, Ref, graph_from_nodes
from layergraph_shapes.forms import Forms
from layergraph_view import View, formats, view
from layergraph_view.groups import MOST_ITEMS, Group, grouped
from layergraph_view.layout import Edge, lay_out
from plugins.view.tests.models import HOSTILE, Asking, flat_ir, hostile_ir, net_ir

TIMES = "\N{MULTIPLICATION SIGN}"
SUFFIXES = [".html", ".svg", ".mmd", ".dot", ".explorer.json"]


def data_of(page):
    found = re.search(r'id="data">([A-Za-z0-9+/=]*)</script>', page)
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


# --- groups ---


def test_equal_steps_in_a_row_are_one_group():
    steps = [0, 1, 2, 1, 2, 1, 2, 3]
    calls = [False] + [True] * 7
    assert grouped(steps, calls, range(8)) == [Group(1, 7, 3)]


def test_two_equal_steps_are_no_group():
    assert grouped([0, 1, 1, 2], [True] * 4, range(4)) == []


def test_functions_alone_are_no_repeat():
    assert grouped([1] * 9, [False] * 9, range(9)) == []


@pytest.mark.parametrize("count", [1, MOST_ITEMS, MOST_ITEMS + 1, 1000, 5000, 70_000])
def test_no_level_has_too_many_boxes(count):
    def check(groups, start, end):
        boxes = (end - start) - sum(each.end - each.start - 1 for each in groups)
        assert boxes <= MOST_ITEMS
        place = start
        for each in groups:
            assert place <= each.start < each.end <= end
            check(each.groups, each.start, each.end)
            place = each.end

    reach = [min(place + 1, count - 1) for place in range(count)]
    check(grouped(list(range(count)), [True] * count, reach), 0, count)
    check(grouped([0, 1, 2] * count, [True] * 3 * count, [0] * 3 * count), 0, 3 * count)


def test_a_section_ends_where_few_values_cross():
    reach = [35 if place < 36 else 60 for place in range(61)] + list(range(61, 80))
    first = grouped(list(range(80)), [False] * 80, reach)[0]
    assert first.end == 36


def test_layers_of_one_form_differ_in_names_only():
    ir = net_ir(3)
    forms = Forms(ir)
    assert forms.of("blocks.0") == forms.of("blocks.2")
    assert forms.of("blocks.0") != forms.of("root")
    ir["blocks.1.up"].data["bias"] = False
    forms = Forms(ir)
    assert forms.of("blocks.0") == forms.of("blocks.2") != forms.of("blocks.1")


def test_a_layer_that_differs_is_outside_of_the_group():
    ir = net_ir(7)
    ir["blocks.3.up"].data["out_features"] = 9
    shown = view(ir).mermaid(2)
    assert shown.count(f"{TIMES} 3") == 2
    assert f"module {TIMES} 7" in view(net_ir(7)).mermaid(2)


# --- the page ---


def test_the_page_holds_no_text_of_the_model():
    page = view(hostile_ir(), title=HOSTILE[0]).html
    assert "alert(" not in re.sub(r"<(title|h1)>.*?</\1>", "", page)
    assert "&lt;/script&gt;" in page
    layers = data_of(page)["layers"]
    assert [layer["type"] for layer in layers[1:-1]] == HOSTILE[:-1]
    assert layers[-1]["type"] == "\\u202eevil\\u2066"


def test_the_page_is_small_and_the_same_each_time(tmp_path):
    ir = flat_ir(5000)
    page = view(ir).html
    assert len(page.encode()) < 1_000_000
    assert page == view(ir.copy()).html
    view(ir, tmp_path / "model.html")
    assert (tmp_path / "model.html").read_text(encoding="utf-8") == page


def test_the_page_has_nothing_from_elsewhere():
    page = view(net_ir()).html
    shell = re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL)
    addresses = re.findall(r"https?://[^\s\"'<]+", shell)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\s(src|href|action)=", shell)
    assert "default-src 'none'" in shell


def test_a_layer_stands_once_however_often_it_is_called():
    ir = net_ir(2)
    layers = data_of(view(ir).html)["layers"]
    assert [layer["name"] for layer in layers] == list(ir)


def test_parameters_shapes_and_cost():
    ir = net_ir(2)
    plain, full = (data_of(view(ir, args=args).html) for args in (None, [(5, 3)]))
    layers = {layer["name"]: layer for layer in full["layers"]}
    cost = lg.cost(ir, [(5, 3)])
    for each in cost.layers:
        assert layers[each.name]["parameters"] == each.parameters
        assert layers[each.name]["flops"] == each.flops
    assert all("flops" not in layer for layer in plain["layers"])
    assert [each["parameters"] for each in plain["layers"]] == [
        each["parameters"] for each in full["layers"]
    ]
    shapes = [shape for _, _, shape in layers["root"]["levels"][-1]["edges"]]
    assert shapes[0] == "float32[5, 3]"
    assert not any(shape for _, _, shape in plain["layers"][0]["levels"][-1]["edges"])


def test_shapes_with_names_and_stored_annotations():
    annotated = lg.annotate_shapes(net_ir(2), [("batch", 3)])
    assert "float32#91;batch, 3#93;" in view(annotated).mermaid()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError):
        view(net_ir(2), args=[(5, 4)])


def test_a_layer_that_cannot_be_built_has_no_parameters():
    ir = Ir([Implementation("acme_thing", name="root")], "root")
    made = data_of(view(ir).html)
    assert "parameters" not in made["layers"][0]
    assert "acme_thing" in made["notes"][0]


def test_guards_have_their_lines():
    ir = lg.to_ir(Asking(), (torch.ones(2, 3),))
    made = data_of(view(ir).html)
    said = [(made["layers"][layer]["name"], *rest) for layer, *rest in made["guards"]]
    assert said == [
        (each.implementation, each.node, each.says, each.where, each.when) for each in ir.guards
    ]
    assert any("models.py, line" in where for _, _, _, where, _ in said)


def test_long_texts_are_cut():
    ir = lg.to_ir(nn.Sequential(nn.Linear(2, 3)))
    ir["0"].data["acme.list"] = list(range(100_000))
    assert len(view(ir).html) < 200_000
    assert f"{len(repr(list(range(100_000)))):,} characters" in str(
        data_of(view(ir).html)["layers"][1]["notes"]
    )


def test_changes_are_marked():
    old, new = net_ir(2), net_ir(2)
    new["first"].data["out_features"] = 5
    new["root"].nodes["first"].data["acme.note"] = 1
    made = data_of(view(new, diff=old).html)
    by_name = {layer["name"]: layer for layer in made["layers"]}
    assert by_name["first"]["changes"] == ["~ attribute out_features: 4 -> 5"]
    assert len(made["changes"]) == 2
    assert "changes" not in data_of(view(new).html)
    assert data_of(view(new, diff=new).html)["changes"] == []


def test_the_library_in_the_page_is_the_one_of_the_note():
    folder = importlib.resources.files("layergraph_view").joinpath("page")
    note = folder.joinpath("THIRD_PARTY.txt").read_text("utf-8")
    assert hashlib.sha256(folder.joinpath("dagre.min.js").read_bytes()).hexdigest() in note
    page = view(net_ir(2)).html
    assert folder.joinpath("dagre-LICENSE.txt").read_text("utf-8") in page
    assert "sourceMappingURL" not in page


# --- pictures and diagrams ---


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_svg_is_well_formed_and_shows_each_box(depth):
    texts = ET.fromstring(view(net_ir(), args=[(2, 3)]).svg(depth)).itertext()
    texts = list(texts)
    assert (f"module {TIMES} 12  0 … 11" in texts) == (depth == 3)
    assert (f"module {TIMES} 12" in texts) == (depth == 2)
    assert "float32[2, 3]" in texts
    assert "var(" not in str(texts)


def test_svg_and_diagrams_hold_hostile_texts_as_texts():
    shown = view(hostile_ir(), title=HOSTILE[1])
    svg = ET.fromstring(shown.svg())
    assert {each.tag.rpartition("}")[2] for each in svg.iter()} <= set(
        "svg title style defs marker path g rect text".split()
    )
    assert HOSTILE[0] in "".join(svg.itertext())
    for text in (shown.mermaid(), shown.dot()):
        assert "<img" not in text
        assert "</script" not in text


def test_boxes_of_a_layout_do_not_overlap():
    generator = torch.Generator().manual_seed(0)
    count = 40
    sizes = [(30.0 + 5 * (each % 9), 20.0 + each % 3) for each in range(count)]
    pairs = {
        (min(a, b), max(a, b))
        for a, b in torch.randint(0, count, (70, 2), generator=generator).tolist()
        if a != b
    }
    edges = [Edge(a, b, 40.0 * (a % 2)) for a, b in sorted(pairs)]
    middles, width, height = lay_out(sizes, edges)
    for one in range(count):
        (x, y), (w, h) = middles[one], sizes[one]
        assert w / 2 - 1e-6 <= x <= width - w / 2 + 1e-6
        assert h / 2 - 1e-6 <= y <= height - h / 2 + 1e-6
        for other in range(one):
            (x2, y2), (w2, h2) = middles[other], sizes[other]
            assert abs(x - x2) >= (w + w2) / 2 or abs(y - y2) >= (h + h2) / 2
    for edge in edges:
        assert middles[edge.src][1] < middles[edge.sink][1]
        assert [y for _, y in edge.points] == sorted(y for _, y in edge.points)


def test_dot_has_clusters():
    text = view(net_ir(2)).dot(2)
    assert "subgraph cluster_n2" in text
    assert text.count("{") == text.count("}")
    assert 'label="linear\\nfirst"' in text


def test_model_explorer_connects_what_the_flat_graph_connects():
    ir = net_ir(3)
    [graph] = json.loads(view(ir, args=[(2, 3)]).model_explorer())
    nodes = {each["id"]: each for each in graph["nodes"]}
    assert len(nodes) == len(graph["nodes"])
    reads = {
        name: [edge["sourceNodeId"] for edge in each["incomingEdges"]]
        for name, each in nodes.items()
    }
    assert all(source in nodes for each in reads.values() for source in each)

    def real(name):  # a node that computes, behind inputs and outputs of composites
        while nodes[name]["label"] in ("input", "output") and reads[name]:
            [name] = reads[name]
        return nodes[name]["label"]

    flat = ir.flatten()["root"].evaluation or ir.flatten()["root"]
    labels = {
        name: node.type if node.is_call or node.type == "input" else node.implementation
        for name, node in flat.nodes.items()
    }
    wanted = [
        (labels[name], sorted(labels[src] for src in set(node.sources())))
        for name, node in flat.nodes.items()
        if node.type not in ("input", "output")
    ]
    found = [
        (each["label"], sorted(map(real, reads[name])))
        for name, each in nodes.items()
        if each["label"] not in ("input", "output")
    ]
    assert sorted(found) == sorted(wanted)
    assert nodes["blocks/_0/up"]["namespace"] == "blocks/_0"
    assert nodes["first"]["outputsMetadata"][0]["attrs"][0]["value"] == "float32[2, 4]"


def test_model_explorer_refuses_what_grows_without_bound():
    levels = [Implementation("relu", name="l0")]
    for number in range(1, 20):
        name = f"l{number - 1}"
        calls = [Node(each, levels[-1].type, name, (Ref(read),)) for each, read in ("ax", "ba")]
        output = Node("output", "output", "output", (Ref("b"),))
        graph = graph_from_nodes([Node("x", "input", "x"), *calls, output])
        own = f"l{number}" if number < 19 else "root"
        levels.append(Implementation("module", name=own, nodes=graph.nodes, edges=graph.edges))
    ir = Ir(reversed(levels), "root")
    shown = view(ir)
    assert len(shown.html) < 200_000
    with pytest.raises(ArgumentError, match=r"write an \.html"):
        shown.model_explorer()


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(2, 3),
        nn.Sequential(),
        nn.Sequential(nn.Sequential(nn.Sequential())),
        nn.ModuleList([nn.Linear(1, 1)]),
    ],
    ids=["leaf", "empty", "nested", "no graph"],
)
def test_small_models(model):
    if isinstance(model, nn.ModuleList):
        ir = Ir([Implementation("module", name="root", children={})], "root")
    else:
        ir = lg.to_ir(model)
    shown = view(ir)
    for depth in (1, 5):
        assert shown.svg(depth)
        assert shown.mermaid(depth)
        assert shown.dot(depth)
    assert json.loads(shown.model_explorer())[0]["nodes"]
    assert data_of(shown.html)["layers"]


def test_bodies_are_shown():
    ir = lg.to_ir(Asking(), (torch.ones(2, 3),), values="both")
    text = view(ir).mermaid(3)
    assert text.count("<br>body") == 2
    assert "sin<br>sin" in text


# --- files ---


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_save_writes_each_format(suffix, tmp_path):
    ir = net_ir(2)
    path = tmp_path / f"Net{suffix.upper()}"
    lg.save(ir, path)
    text = path.read_text(encoding="utf-8")
    view(ir, tmp_path / f"Net{suffix}")
    assert (tmp_path / f"Net{suffix}").read_text(encoding="utf-8") == text
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, f"Net{suffix}"]
    assert "Net" in text or suffix in (".mmd",)
    with pytest.raises(FileError, match="no installed package reads"):
        lg.load(path) if suffix != ".explorer.json" else lg.load(tmp_path / "Net.svg")


def test_save_takes_the_options_of_view(tmp_path):
    lg.save(net_ir(2), tmp_path / "n.mmd", depth=2, args=[(7, 3)])
    assert "float32#91;7, 3#93;" in (tmp_path / "n.mmd").read_text()
    assert "subgraph" in (tmp_path / "n.mmd").read_text()


def test_the_formats_are_those_that_view_writes():
    assert [each.suffix for each in formats()] == SUFFIXES


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    folder = tmp_path / "model.html"
    folder.mkdir()
    with pytest.raises(FileError, match="check the path"):
        view(net_ir(2), folder)
    with pytest.raises(FileError, match="check the path"):
        view(net_ir(2), tmp_path / "missing" / "model.html")
    assert [each.name for each in tmp_path.iterdir()] == ["model.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "model.png"}, ".html, .svg"),
        ({"depth": 0}, "from 1 on"),
        ({"depth": True}, "from 1 on"),
        ({"diff": nn.Linear(1, 1)}, "stands where the Ir belongs"),
    ],
)
def test_arguments_are_checked(arguments, said):
    with pytest.raises(ArgumentError, match=re.escape(said)):
        view(net_ir(2), **arguments)


def test_a_model_is_no_ir():
    with pytest.raises(ArgumentError, match="to_ir"):
        view(nn.Linear(1, 1))


def test_an_ir_that_breaks_a_rule_is_refused():
    ir = net_ir(2)
    ir["root"].nodes["output"].args = (Ref("missing"),)
    with pytest.raises(InvalidIrError):
        view(ir)


def test_a_view_in_a_notebook_is_in_a_frame_without_rights():
    shown = view(net_ir(2), title="Net")
    assert isinstance(shown, View)
    frame = shown._repr_html_()
    assert frame.startswith('<iframe sandbox="allow-scripts allow-downloads"')
    assert "allow-same-origin" not in frame
    assert frame.count('"') == 8
    assert repr(shown) == "View('Net', 10 implementations)"
