"""Start-up times in new interpreters, which take turns."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.fresh import FreshError, run_code
from benchmarks.results import Row, compared
from benchmarks.settings import Settings
from benchmarks.timing import Timed, refusal

IMPORTS = {
    "import layergraph": "import layergraph",
    "import layergraph.ir": "import layergraph.ir",
    "nothing": "pass",
    "import torch": "import torch",
}
CONVERTERS = {
    "Torch2Ir": "from layergraph.torch2ir import get_default_converter as get; get()",
    "Ir2Torch": "from layergraph.ir2torch import get_default_converter as get; get()",
    "both": """
from layergraph.torch2ir import get_default_converter as get; get()
from layergraph.ir2torch import get_default_converter as get; get()""",
    "nirtorch": "import nirtorch",
    "elasticai.creator": """
from elasticai.creator.torch2ir import get_default_converter as get; get()
from elasticai.creator.ir2torch import get_default_converter as get; get()""",
}
READY = 0.020

_CODE = """{before}
import time
start = time.perf_counter()
{code}
print(time.perf_counter() - start)
"""


def rows(settings: Settings) -> Iterator[Row]:
    rounds = 2 if settings.quick else 11
    imports = _by_turns(IMPORTS, "", rounds)
    for way in ("import layergraph", "import layergraph.ir"):
        yield compared(way, "", imports, (way, "import torch"))
    ready = _by_turns(CONVERTERS, "import torch", rounds)
    alone = _by_turns(
        {"both": CONVERTERS["both"]}, "import layergraph.torch2ir, layergraph.ir2torch", rounds
    )
    for way in ("Torch2Ir", "Ir2Torch", "both"):
        yield Row(f"{way} ready", "", ready[way], at_most=READY, note="after import torch")
    yield Row("both ready", "", alone["both"], note="after import of layergraph's two packages too")
    for peer in ("nirtorch", "elasticai.creator"):
        yield compared("both ready", "", ready, ("both", peer))


def _by_turns(programs: dict[str, str], before: str, rounds: int) -> Timed:
    timed = Timed({way: [] for way in programs})
    for index in range(rounds + 1):
        for way, code in programs.items():
            if way in timed.refusals:
                continue
            try:
                seconds = float(run_code(_CODE.format(before=before, code=code)).splitlines()[-1])
            except FreshError as error:
                timed.refusals[way] = refusal(error)
                del timed.seconds[way]
                continue
            if index:  # The first run reads files that are not in the page cache.
                timed.seconds[way].append(seconds)
    return timed
