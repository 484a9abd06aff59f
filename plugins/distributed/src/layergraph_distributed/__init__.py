"""Models on several processes, with torch.distributed: each process loads and saves its part."""

from layergraph_distributed.plans import STYLES, annotate_plan, plan_of

__all__ = ["STYLES", "annotate_plan", "plan_of"]
