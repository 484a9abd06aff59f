"""Capture of a model by running it on example inputs.

The tracer is imported at the first capture, so that making a converter is fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layergraph.hookspecs import hookimpl

if TYPE_CHECKING:
    from layergraph.capturing import Capturer, CaptureRequest


@hookimpl
def capture(request: CaptureRequest) -> Capturer | None:
    """Capture a model that has example inputs."""
    if not request.has_example:
        return None
    from layergraph_capture.capturer import EagerCapturer

    return EagerCapturer(request)
