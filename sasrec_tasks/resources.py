"""Where each task runs and what it may use: a queue of workers, a pool, memory, CPUs and GPUs of a Kubernetes pod."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from sasrec_tasks.errors import BadSettings

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""As Kubernetes writes them: `500m` CPUs, `16Gi` bytes."""


class Resources(BaseModel):
    """Of one task. Memory is requested and limited alike: a task that takes more is killed, and nobody else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    queue: str | None = Field(default=None, min_length=1, description="Queue of Celery workers.")
    pool: str | None = Field(
        default=None, min_length=1, description="Airflow pool, of all pipelines together."
    )
    memory: Quantity | None = Field(default=None, description="Bytes, for instance `16Gi`.")
    cpu: Quantity | None = Field(
        default=None, description="CPUs that are reserved, for instance `4` or `500m`."
    )
    gpu: int | None = Field(default=None, ge=1, le=64, description="GPUs.")
    gpu_resource: str = Field(
        default="nvidia.com/gpu", min_length=1, description="What the cluster calls a GPU."
    )
    ephemeral_storage: Quantity | None = Field(
        default=None, description="Scratch on the node's disk, for instance `50Gi`."
    )
    image: str | None = Field(default=None, min_length=1, description="Another image than the workers have.")
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Labels of the nodes it may run on."
    )
    tolerations: list[dict[str, Any]] = Field(
        default_factory=list, description="Taints it may run on, as in a pod."
    )

    def pod(self) -> dict[str, Any] | None:
        """What differs from the workers' pod, as the Kubernetes API writes it; None: nothing.

        `{"spec": {"containers": [{"name": "base", "resources": {"limits": {"memory": "16Gi"}, …}}], …}}`
        """
        requests = {"memory": self.memory, "cpu": self.cpu, "ephemeral-storage": self.ephemeral_storage}
        limits = {
            "memory": self.memory,
            "ephemeral-storage": self.ephemeral_storage,
            self.gpu_resource: None if self.gpu is None else str(self.gpu),
        }
        resources = _given(requests=_given(**requests), limits=_given(**limits))
        container = _given(image=self.image, resources=resources)
        spec = _given(
            containers=[{"name": "base", **container}] if container else None,
            nodeSelector=self.node_selector,
            tolerations=self.tolerations,
        )
        return {"spec": {"containers": [{"name": "base"}], **spec}} if spec else None


def read(text: str, tasks: Iterable[str]) -> dict[str, Resources]:
    """Task → resources, from JSON such as `{"train": {"memory": "16Gi", "gpu": 1}}`; empty: none.

    Raises:
        BadSettings: not such a JSON, or a task, name or value that there is not, all of them in one message.
    """
    try:
        found = _ALL.validate_python(json.loads(text or "{}"))
    except ValueError as error:  # a ValidationError is one
        raise BadSettings(f"SASREC_RESOURCES: {_said(error)}") from error
    known = set(tasks)
    if unknown := sorted(found.keys() - known):
        raise BadSettings(
            f"SASREC_RESOURCES: {unknown[0]!r} is no task: there are {', '.join(sorted(known))}"
        )
    return found


_ALL = TypeAdapter(dict[str, Resources])


def _said(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'it'}={each['input']!r}: {each['msg']}"
            for each in error.errors()
        )
    return f'not JSON such as {{"train": {{"memory": "16Gi"}}}}: {error}'


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
