"""Models over several processes, with torch.distributed: each loads and saves its own part."""

from layergraph_distributed.plans import STYLES, annotate_plan, plan_of

__all__ = ["STYLES", "annotate_plan", "plan_of"]
