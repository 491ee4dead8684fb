"""Every setting of a run: type, default, bounds and one line of help, grouped by the task that reads it.

The Params form of the DAG, `--set`, the YAML file and the table in the README are derived from
these classes, so that a setting has one name, one default and one bound everywhere. Nothing heavy
is imported here: the DAG file reads this module each time it is parsed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

OPERATOR_ONLY: dict[str, Any] = {"operator_only": True}
"""Marks what someone who triggers a run in the UI may not choose: only the command line, its
configuration file and the deployment's environment may."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside the years 1 to 9999 in UTC") from error


def _no_number(value: Any) -> Any:
    """20260131 would be taken as seconds since 1970."""
    is_number = isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdigit())
    if is_number:
        raise ValueError("is a number: write the moment as in 2026-01-31 or 2026-01-31T02:00")
    return value


Moment = Annotated[datetime, BeforeValidator(_no_number), AfterValidator(_in_utc)]
"""A point in time, as ISO 8601 writes it; one without a time zone is taken as UTC."""


class Group(BaseModel):
    """Settings of one task."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Ingest(Group):
    """How the source is read."""

    columns: dict[str, str] = Field(default={}, title="Column names")
    """Names in the source → names of the contract, for instance {"user_id": "USER_ID"}."""

    default_outcome: float | None = Field(default=None, title="Default outcome")
    """OUTCOME of every event of a file without such a column (clicks: 1)."""

    timestamp_unit: Literal["auto", "s", "ms", "us", "ns"] = Field(default="auto", title="Timestamp unit")
    """Unit of integer timestamps; "auto" tells it from their size."""

    cast_ids: bool = Field(default=False, title="Integer ids")
    """Take integer USER_ID and ITEM_ID as text; otherwise they are an error."""

    lookback_days: float | None = Field(default=None, gt=0, le=100_000, title="Look-back")
    """Days before `as_of` from which events are read; None reads all."""

    arrival_partition: str = Field(default="date", title="Arrival partition")
    """Part of a file's path that says on which day (UTC) it arrived, as in …/date=2026-01-31/…: files of days that
    had not ended at `as_of` are not read. Empty: events are taken by their own time alone."""

    query: str | None = Field(default=None, title="Query", json_schema_extra=OPERATOR_ONLY)
    """What to ask a source that is a database, with `:as_of` and `:since` for the moments of the run."""

    allowed_roots: tuple[str, ...] | None = Field(
        default=None, title="Allowed roots", json_schema_extra=OPERATOR_ONLY
    )
    """Folders or URLs that all places must lie under: source, store, table, and the tables that narrow the export;
    None allows all."""


class Validate(Group):
    """What makes a row or a source unusable."""

    max_rejected_share: float = Field(default=0.01, ge=0, le=1, title="Rejected rows")
    """Share of rows that may be rejected before the run fails."""

    drift_warn: float | None = Field(default=1.5, gt=1, le=1e6, title="Drift to warn of")
    """Warn when a figure of the data (rows, users, items, events per user, hours with events, known items) is so
    many times above or below what it was on the last published nights. None: never."""

    drift_fail: float | None = Field(default=5.0, gt=1, le=1e6, title="Drift to fail at")
    """As drift_warn, but the run fails."""

    drift_nights: int = Field(default=7, ge=1, le=1000, title="Nights of drift")
    """How many published nights make up what is usual."""

    schema_file: str | None = Field(default=None, title="Schema", json_schema_extra=OPERATOR_ONLY)
    """Another contract for the interactions than the one in `schemas/`."""


class Split(Group):
    """Which events are trained on and evaluated, and what sorting may use."""

    min_outcome: float | None = Field(default=None, title="Least outcome")
    """Events below it are neither read by the model nor a target, but count as seen."""

    min_user_events: int = Field(default=1, ge=1, title="Events per user")
    """Users with fewer events are served, but neither trained on nor evaluated."""

    min_item_events: int = Field(default=1, ge=1, title="Events per item")
    """Items with fewer events are left out of the catalogue."""

    drop_repeats: bool = Field(default=True, title="Drop repeats")
    """Keep one of the events that have the same user, item and timestamp: they were delivered twice."""

    memory_limit: str = Field(default="1GB", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$", title="Memory limit")
    """What DuckDB may hold in memory while it sorts; the rest is spilled to disk."""

    spill_folder: str | None = Field(default=None, title="Spill folder", json_schema_extra=OPERATOR_ONLY)
    """Where DuckDB spills to; None is the task's scratch folder."""


class Train(Group):
    """The model and how it is trained; the defaults are what has done best (docs/quality.md)."""

    hidden_units: int = Field(
        default=64, ge=1, le=4096, title="Hidden units", json_schema_extra={"section": "model"}
    )
    """Width of embeddings and attention, divisible by num_heads."""

    num_blocks: int = Field(default=2, ge=1, le=64, title="Blocks", json_schema_extra={"section": "model"})
    """Transformer blocks."""

    num_heads: int = Field(default=2, ge=1, le=64, title="Heads", json_schema_extra={"section": "model"})
    """Attention heads."""

    blocks: Literal["plain", "narrow", "gated"] = Field(
        default="gated", title="Kind of blocks", json_schema_extra={"section": "model"}
    )
    """Plain: a feed-forward net four times as wide as the embeddings, with GELU. Narrow: as wide as they are, with
    ReLU, as in the paper. Gated: SwiGLU, and gated residual branches."""

    dropout_rate: float = Field(
        default=0.1, ge=0, lt=1, title="Dropout", json_schema_extra={"section": "model"}
    )
    """On embeddings, attention weights and feed-forward."""

    attention_dropout: bool = Field(
        default=False, title="Dropout on attention", json_schema_extra={"section": "model"}
    )
    """Dropout on attention weights, too; without it, training on a CPU is about twice as fast."""

    max_len: int = Field(
        default=200, ge=1, le=10_000, title="History length", json_schema_extra={"section": "model"}
    )
    """How many of a user's most recent items the model reads."""

    positions: Literal["learned", "rotary"] = Field(
        default="rotary", title="Positions", json_schema_extra={"section": "model"}
    )
    """How attention knows order: by an embedding of each position, as in the paper, or by distances."""

    conv_width: int = Field(
        default=4, ge=1, le=64, title="Convolution", json_schema_extra={"section": "model"}
    )
    """Items that a convolution ahead of attention mixes; 1 is none, as in the paper."""

    temperature: float | None = Field(
        default=0.06, gt=0, le=100, title="Temperature", json_schema_extra={"section": "model"}
    )
    """Scores are cosines divided by it; None takes dot products, as the paper."""

    loss: Literal["auto", "bce", "gbce", "mse", "sampled_softmax", "softmax"] = Field(
        default="auto", title="Loss"
    )
    """Binary cross-entropy (bce, gbce), cross-entropy over sampled or all items, or squared error (mse);
    "auto" is mse for ratings, else softmax up to 20,000 items, and sampled_softmax beyond."""

    outcome: Literal["implicit", "soft", "rating"] = Field(default="implicit", title="Meaning of OUTCOME")
    """implicit: every event is a positive; soft: a label in [0, 1]; rating: a number to predict (with mse)."""

    num_negatives: int = Field(default=1024, ge=1, le=10_000, title="Negatives")
    """Random items that a positive is trained against; softmax takes all."""

    negative_sampling: Literal["shared", "other", "unseen"] = Field(
        default="shared", title="Sampling of negatives"
    )
    """The same for all positions of a batch (shared: many cost little), or for each position among all items but
    its own (other), or among those that its user has nowhere (unseen)."""

    gbce_t: float = Field(default=0.75, ge=0, le=1, title="Calibration of gbce")
    """0 does not calibrate, 1 gives scores that are probabilities."""

    windows: Literal["last", "all"] = Field(default="all", title="Windows")
    """Train on each user's last max_len events (last), or on all of them, cut in windows (all)."""

    learning_rate: float = Field(default=0.002, gt=0, le=1, title="Learning rate")
    """Step size of Adam."""

    learning_rate_schedule: Literal["constant", "cosine"] = Field(
        default="constant", title="Learning rate schedule"
    )
    """cosine: fall to 0 at the last of `epochs`, or at the end of the time budget if that comes first."""

    warmup_epochs: float = Field(default=1.0, ge=0, le=1000, title="Warm-up")
    """Epochs over which the learning rate rises from 0."""

    adam_beta2: float = Field(default=0.98, ge=0, lt=1, title="Adam's β₂")
    """Decay of Adam's second moment."""

    precision: Literal["auto", "float32", "bfloat16"] = Field(default="auto", title="Precision")
    """Of the matrix products in training: bfloat16 halves their time on a GPU that has it, which is what auto takes
    there, and is slower on most CPUs. Weights, losses and the scores that are served stay float32."""

    weight_decay: float = Field(default=0.0, ge=0, le=1, title="Weight decay")
    """L2 term of Adam."""

    average_decay: float | None = Field(default=0.999, ge=0, lt=1, title="Moving average")
    """Decay of the moving average of the weights that is validated and kept in their place; None: none."""

    batch_size: int = Field(default=128, ge=1, le=1_000_000, title="Batch size")
    """Users in a batch, if batch_slots is none."""

    batch_slots: int | None = Field(default=4096, ge=1, le=10_000_000, title="Batch slots")
    """Slots (users × longest history) of a batch, at most; at least 32 batches are made. None: batch_size."""

    epochs: int = Field(default=200, ge=1, le=100_000, title="Epochs")
    """At most so many passes over the training events."""

    early_stopping_patience: int | None = Field(default=10, ge=1, title="Patience")
    """Epochs without a better validation metric before training stops; None never stops early."""

    early_stopping_metric: Literal["ndcg@10", "loss"] = Field(
        default="ndcg@10", title="Early stopping metric"
    )
    """On the validation items: NDCG@10 of full ranking, or the loss."""

    validation_users: int = Field(default=10_000, ge=1, title="Validation users")
    """At most so many users, drawn at random, are looked at by early stopping."""

    cold_start_every: int = Field(default=1, ge=1, le=1000, title="Cold start")
    """Every so many nights training begins anew; the nights between, it goes on from the published model's weights.
    1 begins anew every night."""

    warm_item_share: float = Field(default=0.1, ge=0, le=1, title="Warm item vectors")
    """Where training goes on from the published weights: their share in the item vectors, the rest being drawn anew.
    1 takes them as they are, which learns the least from a night's new events."""

    max_minutes: float | None = Field(default=240, gt=0, title="Time budget")
    """Minutes of training, all tries together, after which the best weights so far are used."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", title="Device")
    """Where to compute; "auto" takes a GPU if there is one."""

    random_state: int = Field(default=42, ge=0, le=2**31 - 1, title="Random state")
    """Seed of everything drawn in training."""

    @model_validator(mode="after")
    def _fits(self) -> Train:
        if self.hidden_units % self.num_heads:
            raise ValueError(
                f"hidden_units={self.hidden_units} must be divisible by num_heads={self.num_heads}"
            )
        if self.positions == "rotary" and self.hidden_units // self.num_heads % 2:
            raise ValueError(
                f"positions='rotary' needs heads of even width: hidden_units={self.hidden_units} / "
                f"num_heads={self.num_heads} is {self.hidden_units // self.num_heads}"
            )
        if self.outcome == "rating" and self.loss not in ("auto", "mse"):
            raise ValueError('outcome="rating" is a regression: it needs loss="mse"')
        return self


class Evaluate(Group):
    """How the model is measured on the test items."""

    negatives: int = Field(default=100, ge=1, le=100_000, title="Negatives")
    """Random unseen items a test item is ranked among, for the sampled metrics."""

    test_users: int | None = Field(default=None, ge=1, title="Test users")
    """At most so many users, drawn at random, are measured; coverage@10 grows with them. None: all with a test item."""

    bootstrap_samples: int = Field(default=1000, ge=100, le=100_000, title="Bootstrap samples")
    """Draws of users behind each 95% interval."""

    recent_share: float = Field(default=0.1, gt=0, le=1, title="Recent events")
    """Newest share of the training events that the recent-popularity baseline counts."""

    random_state: int = Field(default=42, ge=0, le=2**31 - 1, title="Random state")
    """Seed of test users, negatives and bootstrap."""


class Gate(Group):
    """What a new model must reach to be published."""

    tolerance: float = Field(default=0.02, ge=0, le=1, title="Tolerance")
    """Share of the champion's NDCG@10 that may be lost; twice that of the best recent publish."""

    ask_tolerance: float | None = Field(default=None, ge=0, le=1, title="Ask: tolerance")
    """As tolerance, but beyond it a person is asked."""

    recent_publishes: int = Field(default=14, ge=1, le=1000, title="Recent publishes")
    """How many publishes the best recent one is looked for in."""

    min_coverage: float = Field(default=0.0, ge=0, le=1, title="Least coverage")
    """Share of the catalogue that must be in somebody's top 10, on the test users."""

    ask_coverage: float | None = Field(default=None, ge=0, le=1, title="Ask: coverage")
    """Below it a person is asked."""

    max_users_lost: float = Field(default=0.5, ge=0, le=1, title="Users lost")
    """Largest share of the users in the table who would have no rows any more."""

    ask_users_lost: float | None = Field(default=None, ge=0, le=1, title="Ask: users lost")
    """Above it a person is asked."""

    min_overlap: float = Field(default=0.0, ge=0, le=1, title="Least overlap")
    """Share of a user's served items that must stay, the mean over users (overlap@k with the table)."""

    ask_overlap: float | None = Field(default=None, ge=0, le=1, title="Ask: overlap")
    """Below it a person is asked."""

    max_lists_changed: float = Field(default=1.0, ge=0, le=1, title="Lists changed")
    """Largest share of users who would keep none of their served items."""

    ask_lists_changed: float | None = Field(default=None, ge=0, le=1, title="Ask: lists changed")
    """Above it a person is asked."""

    ask_drift: bool = Field(default=False, title="Ask: drift")
    """Ask a person where a figure of the data has drifted by more than validate.drift_warn."""

    compared_users: int = Field(default=10_000, ge=1, le=1_000_000, title="Compared users")
    """At most so many users, drawn at random, whose lists are compared with the table's."""

    force_publish: bool = Field(default=False, title="Publish anyway")
    """Publish whatever the verdict, and ask nobody; recorded in it."""


class Refit(Group):
    """Whether what is published is trained on the held-out items, too, once the gate has let the model pass."""

    enabled: bool = Field(default=False, title="Refit")
    """Train the gated model further on all events, the held-out ones included, and publish from that. Metrics and
    verdict stay those of the gated weights, which are kept for warm starts and the next comparison."""

    epochs: int | None = Field(default=None, ge=1, le=100_000, title="Epochs of refitting")
    """Passes over all events, within another `train.max_minutes`. None: as many as the best epoch of `train`."""


PLACES = ("source", "store", "table")
"""Settings that name where a run reads and writes."""

NARROWING_TABLES = ("eligible_items", "excluded_pairs")
"""Settings of `export` that name a table, whose contract is the file of that name in `schemas/`."""


class Export(Group):
    """What is written to the table."""

    top_k: int = Field(default=10, ge=1, le=1000, title="Items per user")
    """Recommendations per user."""

    exclude_seen: bool = Field(default=True, title="Leave out seen items")
    """Leave out what a user has already seen."""

    popular_items: int = Field(default=100, ge=1, le=100_000, title="Popular items")
    """Rows of the table for users the model has never seen."""

    eligible_items: str | None = Field(default=None, title="Eligible items", json_schema_extra=OPERATOR_ONLY)
    """Table of the items that may be recommended, by `schemas/eligible_items.yaml`: parquet, a Delta table or
    `connection:ID?table=…`. None: all items."""

    excluded_pairs: str | None = Field(default=None, title="Excluded pairs", json_schema_extra=OPERATOR_ONLY)
    """Table of the items that a user is not to be recommended, by `schemas/excluded_pairs.yaml`; of the same kinds."""

    active_within_days: float | None = Field(default=None, gt=0, le=100_000, title="Active users")
    """Only users with an event in the days before `as_of` have rows; the others are as if unknown. None: all users."""

    new_item_days: float | None = Field(default=None, gt=0, le=100_000, title="New items")
    """Items whose first event is less than so many days before `as_of` are new, and have the last places of the lists
    kept for them (new_item_slots). None: no places are kept."""

    new_item_slots: int = Field(default=1, ge=1, le=999, title="Places for new items")
    """How many places of a user's list are kept for new items, fewer than top_k; only with new_item_days."""

    block_users: int = Field(default=8192, ge=1, le=1_000_000, title="Users per block")
    """Users whose rows are held in memory at once."""

    @model_validator(mode="after")
    def _fits(self) -> Export:
        if self.new_item_days is not None and self.new_item_slots >= self.top_k:
            raise ValueError(
                f"new_item_slots={self.new_item_slots} must be less than top_k={self.top_k}: "
                "the first place is the model's"
            )
        return self


class Prune(Group):
    """What is kept of earlier nights."""

    keep_versions: int = Field(
        default=14, ge=2, le=100_000, title="Kept publishes", json_schema_extra=OPERATOR_ONLY
    )
    """So many of the newest publishes are kept in each table, to roll back to."""

    keep_days: float | None = Field(
        default=30, ge=0, le=100_000, title="Days of publishes", json_schema_extra=OPERATOR_ONLY
    )
    """So are those that were served in the last so many days. None: all."""

    keep_runs_days: float | None = Field(
        default=30, ge=2, le=100_000, title="Days of runs", json_schema_extra=OPERATOR_ONLY
    )
    """Days after its last change for which a run's folder is kept; for as long as a kept publish needs its model, in
    any case. None: for ever."""

    dry_run: bool = Field(default=False, title="Dry run")
    """Only log what would be removed."""


class Metrics(Group):
    """What is told to those who watch over the nights."""

    textfile: str | None = Field(default=None, title="Text file", json_schema_extra=OPERATOR_ONLY)
    """A file that ends in `.prom`, replaced after each run by its figures, for Prometheus's node_exporter
    (`--collector.textfile.directory`). None: none."""


class Ray(Group):
    """The Ray cluster on which split, train, refit, evaluate and export compute, if `engine` is ray."""

    address: str | None = Field(
        default=None, pattern=r"^https?://[^/@?#]+$", title="Address", json_schema_extra=OPERATOR_ONLY
    )
    """Its job server, for instance http://ray-head:8265."""

    workers: int = Field(default=2, ge=1, le=10_000, title="Workers", json_schema_extra=OPERATOR_ONLY)
    """Processes that share a task, at most: fewer while the cluster has no more."""

    cpus_per_worker: float = Field(
        default=1.0, gt=0, le=1024, title="Cores per worker", json_schema_extra=OPERATOR_ONLY
    )
    """What Ray reserves for each, and how many threads each computes with."""

    gpus_per_worker: float = Field(
        default=0.0, ge=0, le=16, title="GPUs per worker", json_schema_extra=OPERATOR_ONLY
    )
    """What Ray reserves for each, in training, evaluation and export."""

    memory_per_worker: str | None = Field(
        default=None,
        pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$",
        title="Memory per worker",
        json_schema_extra=OPERATOR_ONLY,
    )
    """What Ray reserves for each. None: nothing."""

    wait_minutes: float = Field(
        default=15.0, gt=0, le=10_000, title="Waiting", json_schema_extra=OPERATOR_ONLY
    )
    """How long a task waits for the cluster: for its job to start, for a node with room, for a next result."""


class Settings(Group):
    """All settings of a run, kept as `settings.json` in its folder."""

    source: str = Field(default="", title="Source")
    """Interactions: a parquet file, a folder, a glob, an fsspec URL of one, or a Delta table, with {date},
    {data_interval_start} or {data_interval_end} in it if need be; or a database, `connection:ID` with
    `ingest.query`."""

    store: str = Field(default="", title="Store")
    """Folder or fsspec URL that holds a folder per run."""

    table: str = Field(default="", title="Table")
    """Where the recommendations are published: the folder or URL of a Delta Lake table, `parquet+<folder>`,
    `postgresql://…?table=…` or `connection:ID?table=…`; several with commas between, the first is the primary."""

    as_of: Moment | None = Field(default=None, title="As of")
    """Events at or after this moment are not read. None: the run's data interval end, or now."""

    data_interval_start: Moment | None = Field(default=None, title="Data interval start")
    """What {data_interval_start} stands for in a path. None: in Airflow, the start of the run's data interval, or a day
    before `as_of`; a run of the command line has none."""

    engine: Literal["local", "ray"] = Field(default="local", title="Engine", json_schema_extra=OPERATOR_ONLY)
    """Where split, train, refit, evaluate and export compute: on the task's own machine, or on a Ray cluster."""

    ingest: Ingest = Ingest()
    validate_: Validate = Field(default=Validate(), alias="validate")
    split: Split = Split()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    refit: Refit = Refit()
    export: Export = Export()
    prune: Prune = Prune()
    metrics: Metrics = Metrics()
    ray: Ray = Ray()

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _has_cluster(self) -> Settings:
        if self.engine == "ray" and not self.ray.address:
            raise ValueError(
                "engine='ray' needs ray.address, the cluster's job server, for instance http://ray-head:8265"
            )
        return self

    def group(self, task: str) -> Group:
        """The settings of one task."""
        group: Group = getattr(self, "validate_" if task == "validate" else task)
        return group


GROUPS: dict[str, type[Group]] = {
    field.alias or name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Group)
}
"""Task → its settings."""
