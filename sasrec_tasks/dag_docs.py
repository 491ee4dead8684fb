"""What Airflow's UI says of the nightly DAG and its tasks, in Markdown."""

from __future__ import annotations

DAG = """\
## SASRec nightly

Takes the interactions of `source` to a fresh, checked top-k `table`, one row per user and rank.
It runs by its schedule; trigger it by hand to change a setting for one run.

| task | what it does |
| --- | --- |
| `ingest` | copies the events before `as_of` into the run's folder |
| `validate` | sets bad rows aside; fails if there are too many, or if the data are not what they were |
| `split` | sorts each user's events by time; last = test, second to last = validation |
| `train` | trains SASRec with early stopping |
| `evaluate` | measures it, and popularity, on the test items |
| `gate` | refuses a model that is worse than popularity or the published one, or would change too much |
| `approve` | asks a person, where the verdict of `gate` does; otherwise skipped |
| `refit` | where `refit.enabled` is set, trains the gated model on all events, held-out ones too; otherwise skipped |
| `export` | publishes every user's top k as one version of the table |
| `prune` | removes versions and runs' folders that are old and not needed any more |
| `alert` | tells people if something failed, or `gate` refused; otherwise skipped |

**Re-running is safe.** A task that has done its work with the same inputs and settings finds that
out and leaves. A cleared run goes on where it stopped, `train` at its next epoch. Nothing is
published twice, and until `export` commits, and after any failure, the last good table is served.

**Bad data and bad settings fail at once**, with a message that names file, column and value or the
setting; other errors, and processes that were killed, are tried again, later each time. If `gate`
refused, read its log: to publish nevertheless, trigger a run with `gate.force_publish`.

**Marking a task failed, clearing it.** The task puts away what it had half done and ends, within five seconds; the
next try, or the next night, starts from what was finished.

**Pausing.** The task at work ends, the others of its run wait until the DAG is switched on again, and go on then.
Nights that passed meanwhile are not made up for, but for the last one (`airflow backfill create`); a backfill of nights
before the one that is served replaces nothing.

Each run has a tab **Report**, the DAG a tab **Nights**, if the plugin `sasrec_report` is installed.
"""

TASKS = {
    "ingest": """
Freezes the run's settings and copies the events before `as_of` into `ingest/`.

**If it fails:** the message names the source, file or column.
**Re-running** reads the source again only if it or a setting has changed; `as_of` stays.
""",
    "validate": """
Checks every row against the contract in `schemas/`. Bad rows go to `validate/rejected.parquet` with
their reason. Rows, users, items and the like are held against the last published nights.

**If it fails:** a column has the wrong type, more than `validate.max_rejected_share` of the rows is
bad, or the data are far from what they were (`validate.drift_fail`). Mend the source and clear from
`ingest`; if the change is wanted, trigger a run with a higher limit.
**Re-running** on the same snapshot gives the same answer.
""",
    "split": """
Sorts each user's events by time, within `split.memory_limit`: last event = test, second to last =
validation, the rest = training.

**Re-running** gives the same files.
""",
    "train": """
Trains SASRec, on a GPU if there is one, at most `train.max_minutes` over all tries. The log has
loss, rate and time left every ten seconds, and in the end the best epoch, why training ended, and
where the weights are.

**Re-running** after a kill resumes at the next epoch and ends with the same weights.
""",
    "evaluate": """
Writes `evaluate/metrics.json`: each test item ranked among 100 random ones and among all, beside two
popularity baselines.

**Re-running** gives the same figures.
""",
    "gate": """
Compares with popularity and, on the same test items, with the published model.

**If it fails:** the model was refused, and yesterday's table stays. The log and `gate/verdict.json`
say which rule. To publish nevertheless, trigger a run with `gate.force_publish`.
**Re-running** decides anew only if something has changed.
""",
    "ask": """
Goes to `approve` if the verdict of `gate` asks a person (settings `gate.ask_…`) who has not approved yet, else to
`refit`.

**Re-running** of a run that was approved asks nobody again.
""",
    "approve": """
Waits for a person: **Required Actions** in the menu. What is asked stands there. Who answered, and
when, is kept in the run's folder.

Without an answer within 20 hours the table is left as it is.

**Re-running** this task asks again. To clear `ask`, or what comes before, asks nobody again who has approved.
""",
    "refit": """
Skipped unless `refit.enabled` is set. Then trains the gated model further on all events, those included that were held
out to measure it, for as many epochs as its best one, at most `train.max_minutes`. The table is made with what comes
out; metrics, warm starts and the next night's comparison stay with the gated weights.

**If it fails:** nothing was published; the last good table is served. To publish with the gated weights, trigger a run
without `refit.enabled`.
**Re-running** after a kill resumes at the next epoch and ends with the same weights.
""",
    "export": """
Publishes every user's top k as one version of the table, and tells the consumers.

**If it fails:** nothing was published; the last good table is served. If a table of what may be recommended
(`sasrec_eligible_items`, `sasrec_excluded_pairs`) can't be used, the message names it and the row.
**Re-running** publishes nothing twice, and tells nobody twice. After a rollback it publishes the run again.
Skipped where a run of a newer `as_of` is published.
""",
    "prune": """
Removes the rows of old publishes and old runs' folders, as the settings `prune.…` say; with `prune.dry_run` its log
only says which. It runs whatever became of the night, as soon as that has begun.

**If it fails:** the night's state is that of the tasks before; nothing that is served or can be rolled back to is
touched, and the next night goes on.
**Re-running** decides anew by what is there.
""",
    "alert": """
Tells people by e-mail or by a webhook what failed and why, where the report is, and what is served meanwhile; whom, the
Variables `sasrec_alert_emails` and `sasrec_alert_webhook` say. Its log has the message even if they are not set. A run
whose task was killed, or failed in its last try, it also writes down in the table of runs.

**If it fails:** the message could not be sent: its log says by which way, and why. The night's state is that of the
tasks before.
**Re-running** sends it again.
""",
}
"""Of each task: what it does, what a failure means, what re-running does."""
