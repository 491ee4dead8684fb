"""Generated data: how much of the best reachable HR@10 the model got, beside weaker predictors.

    python benchmarks/generated.py --figures .demo/interactions.json --store .demo/runs

Data: `sasrec-tasks generate`, which knows the true probabilities. Protocol: HR@10 of each user's last
event (leave-last-two-out), full ranking with the seen items among the candidates. Writes
`results/generated.json` beside this script if `--write` is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from sasrec_tasks.pipeline import newest_run

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Print the comparison, and keep it if asked."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument(
        "--figures", type=Path, required=True, help="the JSON beside the generated parquet"
    )
    arguments.add_argument("--store", required=True, help="store whose newest run is looked at")
    arguments.add_argument("--write", action="store_true", help="keep the figures in results/generated.json")
    options = arguments.parse_args()
    generated = json.loads(options.figures.read_text(encoding="utf-8"))
    run = newest_run(options.store)
    reached = run.read_json("evaluate", "metrics.json")["full_with_seen"]
    best = generated["best_hr10"]
    share = reached["hr@10"] / best
    low, high = reached["ci95"]["hr@10"]
    print("HR@10 on the generated data, among all items, beside what can be reached on it:")
    print(f"  popularity                     {generated['popularity_hr10']:.4f}")
    print(f"  best that knows the last item  {generated['first_order_hr10']:.4f}")
    print(
        f"  SASRec                         {reached['hr@10']:.4f} ({low:.4f}–{high:.4f}), {share:.0%} of the best"
    )
    print(f"  best reachable                 {best:.4f}")
    if options.write:
        sys.path.insert(0, str(Path(__file__).parent))
        from quality import machine  # draws, too: not needed to print

        RESULTS.mkdir(exist_ok=True)
        report = {
            "data": generated,
            "split": "leave-last-two-out",
            "protocol": "full ranking with seen items",
            "settings": "defaults",
            "seed": run.settings().train.random_state,
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "training": run.marker("train").summary,  # type: ignore[union-attr]  # evaluated, so trained
            "sasrec": reached,
            "share_of_best": share,
        }
        (RESULTS / "generated.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
