"""A nightly, gated, resumable SASRec pipeline: one module per task, and the core in `sasrec`."""
