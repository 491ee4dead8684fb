"""The core: SASRec in PyTorch, its training, ranking and metrics, on arrays alone."""

import os

# Threads that wait for each other spin; where other processes want the same cores, for seconds. With
# fewer turns they sleep sooner: a tenth slower on an idle machine, up to many times faster on a busy one.
# Read when torch is first imported, which is why it stands here.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
