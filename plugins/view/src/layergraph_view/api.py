"""``layergraph.view``: a model as a page, a picture or a diagram."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import layergraph as lg
from layergraph.errors import ArgumentError, FileError
from layergraph.ir import Ir, check
from layergraph_view.document import Document, document
from layergraph_view.facts import Tensors, with_facts

PathName = str | PathLike[str]


@dataclass(frozen=True, slots=True, repr=False)
class View:
    """A model to look at: see :func:`layergraph.view`.

    As the last expression of a notebook cell, it shows the page in an iframe.

    Example:
        >>> import torch, layergraph as lg
        >>> shown = lg.view(lg.to_ir(torch.nn.Sequential(torch.nn.ReLU())), title="small")
        >>> shown
        View('small', 2 implementations)
        >>> shown.html[:15], shown.svg()[:4], shown.dot()[:15]
        ('<!DOCTYPE html>', '<svg', 'digraph "small"')
    """

    _document: Document
    _ir: Ir

    @property
    def html(self) -> str:
        """Return the page: one HTML file that needs no network."""
        from layergraph_view.page_file import page

        return page(self._document)

    def svg(self, depth: int = 1) -> str:
        """Return a picture, for papers.

        Args:
            depth: the levels of the model to show: 1 is the graph of the model itself.
        """
        from layergraph_view.svg import svg

        return svg(self._document, depth)

    def mermaid(self, depth: int = 1) -> str:
        """Return a mermaid diagram: see :meth:`svg`."""
        from layergraph_view.diagrams import mermaid

        return mermaid(self._document, depth)

    def dot(self, depth: int = 1) -> str:
        """Return a graph in the language of Graphviz: see :meth:`svg`."""
        from layergraph_view.diagrams import dot

        return dot(self._document, depth)

    def model_explorer(self) -> str:
        """Return the whole model in the JSON of Model Explorer.

        Raises:
            ArgumentError: the graph would have more than 200,000 nodes.
        """
        from layergraph_view.model_explorer import model_explorer

        return model_explorer(self._document, self._ir)

    def save(self, path: PathName, depth: int = 1) -> None:
        """Write a file, in the format of its suffix: see :func:`layergraph.view`.

        Raises:
            ArgumentError: no format has this suffix.
            FileError: the file cannot be written.
        """
        _save(Path(path), _text(self, path, depth))

    def _repr_html_(self) -> str:
        # The sandbox gives the frame its own origin, so its script cannot reach the notebook.
        return (
            '<iframe sandbox="allow-scripts allow-downloads" title="layergraph" '
            'style="width:100%;height:640px;border:1px solid #888" '
            f'srcdoc="{html.escape(self.html)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"View({self._document.title!r}, {len(self._document.layers)} implementations)"


def view(
    ir: Ir,
    path: PathName | None = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    diff: Ir | None = None,
    depth: int = 1,
    title: str | None = None,
) -> View:
    """Show a model: as a page for a browser, as a picture or as a diagram.

    The page draws the graph with collapsed layers, and repeated equal parts as one box. It works
    without network, and never executes text of the model. The model does not run.

    Args:
        ir: the structure.
        path: the file to write; its suffix is ``.html``, ``.svg``, ``.mmd`` (mermaid), ``.dot`` or
            ``.explorer.json`` (Model Explorer). None: write no file.
        args: the positional arguments of a call, as for :func:`layergraph.shapes`: the picture
            shows the shapes of all values, and the page the FLOPs of the layers. Without arguments,
            it shows what :func:`layergraph.annotate_shapes` wrote.
        kwargs: the arguments by name.
        sizes: the number for each size that the arguments name, to count FLOPs.
        diff: an older IR. The page marks what has changed since.
        depth: the levels of the model that ``.svg``, ``.mmd`` and ``.dot`` show.
        title: the title of the page; None: the name of the file.

    Returns:
        A :class:`~layergraph_view.View`, which has the page as ``.html``, and methods that return
        the other formats as texts.

    Raises:
        ArgumentError: an argument has another type, or no format has the suffix of the path.
        InvalidIrError: an IR breaks a rule.
        LayergraphError: the shapes cannot be computed: as for :func:`layergraph.shapes`.
        FileError: the file cannot be written.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> print(lg.view(ir).mermaid())
        flowchart TD
            n0["input_1<br>input"]
            n1["linear<br>0"]
            n2["relu<br>1"]
            n3["output"]
            n0 --> n1
            n1 --> n2
            n2 --> n3
    """
    for each in (ir,) if diff is None else (ir, diff):
        if not isinstance(each, Ir):
            raise ArgumentError(
                f"a {type(each).__name__} stands where the Ir belongs: view(ir, path, diff=ir); "
                "layergraph.to_ir(model) gives one"
            )
        check(each)
    _check_depth(depth)
    if path is not None:
        format_of(path)
    named = Path(path).name.partition(".")[0] if path is not None else ""
    shown = view_of(ir, title or named or "model", args, kwargs, sizes, diff)
    if path is not None:
        shown.save(path, depth)
    return shown


def view_of(
    ir: Ir,
    title: str,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    diff: Ir | None = None,
    tensors: Tensors | None = None,
) -> View:
    """Return the view of a checked IR: see :func:`view`.

    Args:
        ir: the structure.
        title: the title of the page.
        args: as for :func:`view`.
        kwargs: as for :func:`view`.
        sizes: as for :func:`view`.
        diff: as for :func:`view`.
        tensors: as for :func:`layergraph_view.facts.with_facts`.
    """
    # Compared before it is annotated.
    changes = None if diff is None else lg.diff(diff, ir).changes
    annotated, facts = with_facts(ir, args, kwargs, sizes, tensors)
    return View(document(annotated, facts, title, changes), annotated)


_WRITERS: dict[str, Callable[[View, int], str]] = {
    ".html": lambda shown, _: shown.html,
    ".svg": View.svg,
    ".mmd": View.mermaid,
    ".dot": View.dot,
    ".explorer.json": lambda shown, _: shown.model_explorer(),
}


def _check_depth(depth: int) -> None:
    if type(depth) is not int or depth < 1:
        raise ArgumentError(f"depth is {depth!r}; give the number of levels to show, from 1 on")


def format_of(path: PathName) -> str:
    """Return the suffix of a path that names its format.

    Raises:
        ArgumentError: no format has its suffix.
    """
    name = os.fspath(path).lower()
    for suffix in _WRITERS:
        if name.endswith(suffix):
            return suffix
    raise ArgumentError(f"{path}: there is no picture of that suffix; give {', '.join(_WRITERS)}")


def _text(shown: View, path: PathName, depth: int) -> str:
    return _WRITERS[format_of(path)](shown, depth)


def _save(path: Path, text: str) -> None:
    """Write a file that ends with a line break, all of it or nothing."""
    text = text.removesuffix("\n") + "\n"
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            aside.write_text(text, encoding="utf-8", newline="\n")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}; check the path") from error
