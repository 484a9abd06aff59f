"""Changes documents as what they say: names, values, functions, sizes, and what is beside what."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

NAMES = [
    *(
        "",
        "x",
        "root",
        "self",
        "torch",
        "inf",
        "nan",
        "None",
        "True",
        "output",
        "forward",
        "training",
    ),
    *(
        "a.b",
        ".",
        "a..b",
        "0",
        "_",
        "__class__",
        "__dict__",
        "__import__",
        "_modules",
        "x\0",
        "ünï",
    ),
    *(
        "\ud800",
        "a" * 5000,
        "a." * 3000,
        "open('/etc/passwd')",
        "x)\n    import os\n    (",
        'a"b',
        "\\",
    ),
    *("torch.sparse_coo", "torch.sparse_csr", "torch.sparse_bsr", "torchao.Int8Tensor"),
    *("torchao.Float8Tensor", "torchao.Int4OpaqueTensor", "torchao.IntxUnpackedToInt8Tensor"),
    *("indices", "values", "qdata", "scale", "block_size", "PerGroup", "MappingType", "class"),
    *("_graph", "evaluation", "register_forward_hook", "os.system", "subprocess.Popen", "eval"),
]
SYMBOLS = ["torch.float32", "torch.int64", "torch.strided", "torch.sparse_coo", "torch.load", "os"]
FUNCTIONS = [
    *(
        "torch.relu",
        "torch.cat",
        "torch.add",
        "operator.getitem",
        "operator.setitem",
        "builtins.round",
    ),
    *("torch.Tensor.view", "torch.Tensor.resize_", "torch.Tensor.new", "torch.Tensor.as_strided"),
    *("torch.Tensor.set_", "torch.Tensor.numpy", "torch.Tensor.apply_", "torch.Tensor.data_ptr"),
    *(
        "torch.ops.aten.add",
        "torch.ops.aten.add.out",
        "torch.ops.aten.resize_",
        "torch.ops.aten._foobar",
    ),
    *("torch.ops.aten.embedding_dense_backward", "torch.ops.aten._index_put_impl_", "torch.load"),
    *("layergraph.set_grad_enabled", "layergraph.enter_autocast", "layergraph.exit_autocast"),
    *("layergraph.assume", "layergraph.assume_tensor", "layergraph.assume_container", "math.sqrt"),
    *("layergraph.assume_named", "layergraph.assume_distinct", "layergraph.attributes"),
    *("layergraph.truth", "layergraph.holds", "layergraph.choose", "layergraph.conditionally"),
    *("layergraph.loop", "layergraph.bound"),
    *(
        "torch.Tensor.grad",
        "torch.Tensor.data",
        "torch.dtype.is_complex",
        "os.system",
        "builtins.open",
    ),
    *(
        "torch.full",
        "torch.arange",
        "torch.empty",
        "torch.nn.functional.linear",
        "torch.segment_reduce",
    ),
]
TYPES = (
    "module body function state input output linear lstm batchnorm2d relu conv2d embedding".split()
)
FIELDS = (
    "inputs args kwargs when data edges tied value default fixed rank dtype children tensors "
    "packed parts kind shape stride persistent requires_grad tensor_kinds base"
).split()
PRIME = 2**61 - 1
# Were one of these written as code, as a call, the process would do what the watch hears of.
CALLS = [
    ("open", [["file", "opened"], ["mode", "w"]]),
    ("__import__", [["name", "antigravity"]]),
    ("exec", [["source", "import antigravity"]]),
    ("eval", [["source", "__import__('antigravity')"]]),
]


KNOWN = [
    ("builtins.dict_items", "items"),
    ("builtins.set", "items"),
    ("collections.ChainMap", "maps"),
    ("collections.OrderedDict", "items"),
    ("collections.defaultdict", "factory items"),
    ("collections.deque", "items maxlen"),
    ("numpy.str_", "value"),
    ("torch.distributions.normal.Normal", "loc scale _batch_shape sample"),
    ("torch.distributions.transforms.AffineTransform", "loc scale _inv _cached_x_y"),
    ("types.SimpleNamespace", "items"),
]


def changed(form: Any, chance: random.Random) -> Any:
    """A document with one thing in it changed."""
    places = [
        (holder, key)
        for holder in holders(form)
        for key in (holder if isinstance(holder, dict) else range(len(holder)))
    ]
    if not places:
        return value(chance)
    holder, key = chance.choice(places)
    other, other_key = chance.choice(places)
    how = chance.randrange(11)
    if how == 0:
        del holder[key]
    elif how == 1:
        holder[key] = _like(key, holder[key], chance)
    elif how == 2:
        holder[key] = copied(other[other_key])
    elif how == 3 and isinstance(holder, list):
        holder.insert(key, copied(holder[key]))
    elif how == 4 and isinstance(holder, dict):
        holder[chance.choice(FIELDS)] = holder.pop(key)
    elif how == 5 and isinstance(holder, dict):
        holder[chance.choice(FIELDS)] = value(chance)
    elif how in _SAYING:
        _SAYING[how](form, chance)
    else:
        holder[key] = value(chance)
    return form


def _say_default(form: Any, chance: random.Random) -> None:
    """Give an input, or a function, an argument by name."""
    nodes = [each for each in holders(form) if isinstance(each, dict) and "implementation" in each]
    inputs = [each for each in nodes if each.get("type") == "input"]
    if nodes:
        node = chance.choice(inputs if inputs and chance.random() < 0.5 else nodes)
        kwargs = node.setdefault("kwargs", {})
        if isinstance(kwargs, dict):
            name = "default" if node.get("type") == "input" else chance.choice(NAMES)
            kwargs[name] = nested(chance) if chance.random() < 0.5 else value(chance)


def _say_condition(form: Any, chance: random.Random) -> None:
    """Let a node run under a condition: another node, or a decision that is added for it."""
    listed = [each for each in holders(form) if isinstance(each, list) and len(each) > 1]
    graphs = [each for each in listed if all(map(_is_node, each))]
    if not graphs:
        return
    nodes = chance.choice(graphs)
    first, last = sorted(chance.sample(range(len(nodes)), 2))
    name = nodes[first].get("name", "x")
    if chance.random() < 0.7:
        # Two graphs of one implementation get the same decision this way, now and then.
        decided = f"decided_{first}"
        of = {"ref": name}
        implementation, args = chance.choice(
            [
                ("layergraph.truth", [of]),
                ("layergraph.holds", ["assume", of, value(chance, 9), "here"]),
                ("layergraph.choose", [chance.choice([of, True, None]), True, False]),
            ]
        )
        node = {"name": decided, "type": "function", "implementation": implementation, "args": args}
        if all(each.get("name") != decided for each in nodes):
            nodes.insert(first + 1, node)
            last += 1
        name = decided
    nodes[last]["when"] = [name, chance.random() < 0.5]
    if isinstance(form, dict) and chance.random() < 0.95:
        form["version"] = chance.choice([2, 3])


def _say_state(form: Any, chance: random.Random) -> None:
    """Let a node set a tensor, perhaps one that is there, to the value of another node."""
    nodes = [each for each in holders(form) if _is_node(each)]
    if not nodes:
        return
    states = [each for each in nodes if each.get("type") == "state"]
    node = chance.choice(states if states and chance.random() < 0.8 else nodes)
    node["type"] = "state"
    node["args"] = [{"ref": chance.choice(nodes).get("name", "x")}]
    if chance.random() < 0.3:
        node["args"].append(value(chance))
    if isinstance(form, dict) and chance.random() < 0.95:
        form["version"] = 6


_SAYING = {6: _say_default, 7: _say_default, 8: _say_condition, 9: _say_state}


def _is_node(form: Any) -> bool:
    return isinstance(form, dict) and "implementation" in form


def _like(key: object, was: Any, chance: random.Random) -> Any:
    """Something that may stand where something else stood."""
    if key == "implementation":
        return chance.choice([*FUNCTIONS, *NAMES])
    if key == "type":
        return chance.choice(TYPES)
    if isinstance(was, str):
        return chance.choice(NAMES)
    return _number(chance) if isinstance(was, int) else value(chance)


def _number(chance: random.Random) -> Any:
    numbers = [0, 1, 2, -1, 3, 64, 2**31, 2**53, 2**63, 10**15, -(2**63)]
    return chance.choice([*numbers, {"int": hex(PRIME)}, {"int": "0x" + "f" * 600}])


def value(chance: random.Random, depth: int = 0) -> Any:
    """A plain value, as documents have it."""
    inner: list[Callable[[], Any]] = [
        lambda: [value(chance, depth + 1) for _ in range(chance.randrange(3))],
        lambda: {"tuple": [value(chance, depth + 1) for _ in range(chance.randrange(3))]},
        lambda: {"dict": [[value(chance, 9), value(chance, depth + 1)]]},
        lambda: {"record": [chance.choice(NAMES), [["a", value(chance, depth + 1)]]]},
        lambda: {"record": ["R", [[chance.choice(NAMES), value(chance, depth + 1)]]]},
        lambda: {"slice": [value(chance, depth + 1) for _ in range(3)]},
        lambda: nested(chance),
        lambda: known(chance, depth),
    ]
    plain: list[Callable[[], Any]] = [
        lambda: _number(chance),
        lambda: chance.choice([None, True, False, 0.5, -0.0, 1e308, {"float": "nan"}]),
        lambda: chance.choice(NAMES),
        lambda: {"ref": chance.choice(["x", "lin", "mul", "output", "getitem", "scale"])},
        lambda: {"body": chance.choice(["root/loop", "root", "lin", *NAMES])},
        lambda: {"symbol": chance.choice([*SYMBOLS, *NAMES])},
        lambda: chance.choice([{"ellipsis": None}, {"bytes": "AAAA"}, {"complex": [0.0, 1.0]}]),
    ]
    return chance.choice(plain if depth > 3 else [*plain, *inner])()


def known(chance: random.Random, depth: int) -> Any:
    """A record of a class of the closed table, with parts of any kind."""
    name, fields = chance.choice(KNOWN)
    return {"record": [name, [[each, value(chance, depth + 1)] for each in fields.split()]]}


def nested(chance: random.Random) -> Any:
    """A record whose name is that of something to call, inside of other values or of none."""
    name, fields = chance.choice(CALLS)
    inside: Any = {"record": [name, copied(fields)]}
    for _ in range(chance.randrange(4)):
        inside = chance.choice(
            [
                [inside],
                {"tuple": [inside, 1]},
                {"dict": [["key", inside]]},
                {"slice": [inside, None, None]},
                {"record": [chance.choice(["R", name]), [["a", inside]]]},
            ]
        )
    return inside


def grown(form: Any, chance: random.Random, count: int) -> Any:
    """A document in which one item of an array is there many times, under names of its own."""
    form = copied(form)
    arrays = [each for each in holders(form) if isinstance(each, list) and each]
    if arrays:
        array = chance.choice(arrays)
        index = chance.randrange(len(array))
        array[index : index + 1] = [_numbered(array[index], number) for number in range(count)]
    return form


def _numbered(item: Any, number: int) -> Any:
    """A copy whose names are others, and whose integers have the hash of each other."""
    if number == 0:  # What names the item finds it still.
        return copied(item)
    if isinstance(item, dict):
        if set(item) == {"int"}:
            return {"int": hex(PRIME * (number + 1))}
        return {
            key: f"{each}_{number}" if key == "name" else _numbered(each, number)
            for key, each in item.items()
        }
    if isinstance(item, list):
        first = [f"{item[0]}_{number}"] if item and isinstance(item[0], str) else []
        return [*first, *[_numbered(each, number) for each in item[len(first) :]]]
    return item


def copied(form: Any) -> Any:
    """The same JSON once more."""
    return json.loads(json.dumps(form))


def holders(form: Any) -> list[Any]:
    """The arrays and objects of a JSON value, itself included."""
    found, stack = [], [form]
    while stack:
        each = stack.pop()
        if isinstance(each, dict | list):
            found.append(each)
            stack.extend(each.values() if isinstance(each, dict) else each)
    return found
