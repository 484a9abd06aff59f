"""The layout of a ``.safetensors`` file: the length of the header, the header in JSON, the data.

The format is that of https://github.com/huggingface/safetensors. We do not use that library, for
two reasons: it would parse the header again, perhaps differently from the parser that checked the
header; and it holds all tensors in memory to write them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from layergraph.ir.tensor_spec import MAX_DIMENSIONS
from layergraph_files.limits import Limits
from layergraph_files.parse_errors import JsonPath, ParseError, expect, expect_fields
from layergraph_files.text import compact, parse

_METADATA = "__metadata__"

MAX_HEADER = 100_000_000
"""The longest header that safetensors itself reads, in bytes."""

ALIGNMENT = 64
"""The alignment of torch's memory in bytes. A kernel may round otherwise with another one."""

_LARGEST = 2**63 - 1

# torch's sizes are signed integers of 64 bits.
_SIZES = range(2**63)

# For each name of a dtype in a file: the name in torch, and the size of one number in bytes.
_KINDS = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
    "U16": ("uint16", 2),
    "I16": ("int16", 2),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "U32": ("uint32", 4),
    "I32": ("int32", 4),
    "F32": ("float32", 4),
    "U64": ("uint64", 8),
    "I64": ("int64", 8),
    "F64": ("float64", 8),
    "C64": ("complex64", 8),
}
CODES = {dtype: code for code, (dtype, _) in _KINDS.items()}
"""The dtypes that a file can hold: for each name in torch, the name in the file."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file.

    Attributes:
        dtype: its dtype by the name in torch: ``"float32"``.
        shape: its shape.
        start: the offset of its first byte in the data section.
        length: its size in bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int

    @property
    def numbers(self) -> int:
        """Return the number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file.

    Attributes:
        metadata: the texts of ``__metadata__``, by name.
        tensors: the tensors by name, in the order of the header.
        data: the offset of the data section in the file, in bytes.
        end: the size of the file in bytes.
    """

    metadata: dict[str, str]
    tensors: dict[str, Stored]
    data: int
    end: int


def read_header(file: BinaryIO, limits: Limits) -> Header:
    """Read the header of an open file, and check that the data section has the right size.

    Raises:
        ParseError: the file has another format, or is too short.
    """
    size = os.fstat(file.fileno()).st_size
    remedy = "it is damaged, or not a safetensors file: download or save it again"
    if size < 8:
        raise ParseError(None, f"it has {size} bytes, too few for a header", remedy)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise ParseError(None, f"its header has {length} bytes, but {size - 8} are left", remedy)
    if length > limits.text_bytes:
        raise ParseError(
            None,
            f"its header has {length} bytes, more than {limits.text_bytes}",
            "if you trust it, give Limits(text_bytes=…)",
        )
    form = parse(file.read(length))
    fields = expect(form, dict, None, "a header of safetensors")
    metadata = expect(fields.get(_METADATA, {}), dict, (None, _METADATA), "texts by name")
    for name, value in metadata.items():
        expect(value, str, ((None, _METADATA), name), "a text")
    tensors = {
        name: _stored(each, (None, name)) for name, each in fields.items() if name != _METADATA
    }
    _check_layout(tensors, size - 8 - length)
    return Header(metadata, tensors, 8 + length, size)


def _stored(form: Any, spot: JsonPath) -> Stored:
    fields = expect_fields(form, spot, "dtype shape data_offsets")
    code = expect(fields["dtype"], str, (spot, "dtype"), "the name of a dtype")
    if code not in _KINDS:
        raise ParseError((spot, "dtype"), f"{code!r} is unknown", f"known are {', '.join(_KINDS)}")
    dtype, width = _KINDS[code]
    shape = _sizes(fields["shape"], (spot, "shape"))
    # torch computes strides as if a size of 0 were 1, so the shape of an empty tensor may overflow.
    needed = width
    for size in shape:
        needed *= size or 1
        if needed > _LARGEST:
            remedy = "write the shape of a tensor that a machine can hold"
            raise ParseError((spot, "shape"), "its shape needs more than 2**63 bytes", remedy)
    offsets = _sizes(fields["data_offsets"], (spot, "data_offsets"))
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        remedy = "write the offset of the first byte, and that of the byte after the last"
        raise ParseError((spot, "data_offsets"), f"{list(offsets[:3])} is not a range", remedy)
    stored = Stored(dtype, shape, offsets[0], offsets[1] - offsets[0])
    if stored.numbers * width != stored.length:
        raise ParseError(
            spot,
            f"its shape needs {stored.numbers * width} bytes, but it has {stored.length}",
            "make shape and offsets agree",
        )
    return stored


def _sizes(form: Any, spot: JsonPath) -> tuple[int, ...]:
    for index, size in enumerate(expect(form, list, spot, "an array of sizes")):
        if type(size) is not int or size not in _SIZES:
            expect(size, int, (spot, index), "a size")
            kind = "is negative" if size < 0 else "is larger than any size"
            raise ParseError((spot, index), f"{size} {kind}", "write a size")
    if len(form) > MAX_DIMENSIONS:
        remedy = f"torch computes with {MAX_DIMENSIONS} at most"
        raise ParseError(spot, f"there are {len(form)} dimensions", remedy)
    return tuple(form)


def _check_layout(tensors: Mapping[str, Stored], size: int) -> None:
    end = 0
    for name, stored in sorted(tensors.items(), key=lambda each: (each[1].start, each[1].length)):
        if stored.start != end:
            how = "overlaps the one before it" if stored.start < end else "leaves a gap before it"
            raise ParseError((None, name), f"it {how}", "begin each tensor where another ends")
        end += stored.length
    if end != size:
        less = "truncated" if end > size else "followed by something else"
        message = f"its tensors have {end} bytes, but there are {size}: it is {less}"
        raise ParseError(None, message, "download or save it again")


def new_header(
    wanted: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """Return the bytes of a file up to its data section, and the order of the tensors.

    The format allows no gaps between tensors. So we sort them by the largest power of 2 that
    divides their length, up to :data:`ALIGNMENT`, larger ones first. Then each tensor begins at a
    multiple of that power, which is at least the size of one number.

    Args:
        wanted: the name, dtype (one of :data:`CODES`) and shape of each tensor.
        metadata: texts by name.

    Returns:
        The bytes, and the names of the tensors in the order of their data.

    Raises:
        ParseError: the header is longer than safetensors reads, or a tensor cannot have its name.
    """
    listed = []
    for name, dtype, shape in wanted:
        code, width = CODES[dtype], _KINDS[CODES[dtype]][1]
        length = math.prod(shape) * width
        power = length & -length or ALIGNMENT
        listed.append((min(power, ALIGNMENT), name, code, shape, length))
    listed.sort(key=lambda each: each[0], reverse=True)
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    end = 0
    for _, name, code, shape, length in listed:
        if not _is_unicode(name) or name == _METADATA:
            raise ParseError((None, name), "no tensor can have this name", "rename the tensor")
        start, end = end, end + length
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = compact(header).encode("ascii")
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise ParseError(
            None,
            f"the header would have {len(text)} bytes, and no reader takes more than {MAX_HEADER}",
            "save less in one file",
        )
    return len(text).to_bytes(8, "little") + text, [name for _, name, *_ in listed]


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
