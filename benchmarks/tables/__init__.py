"""The results of `results/` as Markdown tables, for the documentation."""

from tables.growth import growth, growth_of_memory, slope
from tables.nights import faults, nights, session
from tables.quality import ablation, new_items, peers, recipes, warm_starts
from tables.scale import forecast, one_run, rates, scale_faults, scale_out
from tables.speed import eligible, gpu, lookup, speed, speed_machine

__all__ = [
    "ablation",
    "eligible",
    "faults",
    "forecast",
    "gpu",
    "growth",
    "growth_of_memory",
    "lookup",
    "new_items",
    "nights",
    "one_run",
    "peers",
    "rates",
    "recipes",
    "scale_faults",
    "scale_out",
    "session",
    "slope",
    "speed",
    "speed_machine",
    "warm_starts",
]
