"""A nightly, gated, resumable SASRec pipeline: one module per task, and the core in `sasrec`."""

__version__ = "0.1.0"
