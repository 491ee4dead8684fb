# The image of docker-compose.yml: Airflow and the pipeline, run by a user who is not root.
#
# The index that pip asks by default has torch for GPUs on Linux, gigabytes larger. For the CPU build, give
# the address that PyTorch's installation page names for it (same version, as constraints.txt says):
#   docker build --build-arg PIP_ARGS="--extra-index-url ADDRESS" .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm


# What the image is built with, and the wheel: the latter made anew when the code changes, both thrown away after.
FROM ${PYTHON_IMAGE} AS project
ARG PIP_ARGS=""
WORKDIR /build
COPY locks/tools.txt ./
RUN python -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --disable-pip-version-check ${PIP_ARGS} --require-hashes --no-deps \
    --requirement tools.txt
COPY pyproject.toml README.md ./
COPY schemas schemas
COPY dags dags
COPY plugins plugins
COPY sasrec_tasks sasrec_tasks
RUN /opt/tools/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation \
    --wheel-dir wheels .


# What the pipeline stands on: large, and kept until a pinned version changes. A file whose hash is not in the lock is
# refused. torch is pinned by its version alone: each of its builds, which PIP_ARGS chooses, has hashes of its own.
FROM ${PYTHON_IMAGE} AS dependencies
ARG PIP_ARGS=""
RUN python -m venv /opt/venv
COPY locks/image.txt constraints.txt /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --disable-pip-version-check ${PIP_ARGS} --require-hashes --no-deps \
    --requirement /build/image.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --disable-pip-version-check ${PIP_ARGS} --constraint /build/constraints.txt torch


FROM ${PYTHON_IMAGE}
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/opt/airflow \
    USER=airflow \
    AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/airflow/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/airflow/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
# Group 0 may write where the owner may: the container then works under any user id (SASREC_UID).
RUN useradd --uid 1000 --gid 0 --no-create-home --home-dir /opt/airflow airflow \
    && mkdir -p /opt/airflow/logs /data /runs /table /metrics \
    && chown -R 1000:0 /opt/airflow /data /runs /table /metrics \
    && chmod -R g=u /opt/airflow /data /runs /table /metrics
COPY --from=dependencies /opt/venv /opt/venv
RUN --mount=type=bind,from=project,source=/build/wheels,target=/wheels \
    pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore --no-deps /wheels/*.whl \
    && pip check --disable-pip-version-check
# What is in it, for who looks for known vulnerabilities: docker run --rm sasrec-tasks cat /opt/sbom.json
RUN --mount=type=bind,from=project,source=/opt/tools,target=/opt/tools \
    /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON --output-file /opt/sbom.json \
    /opt/venv/bin/python
# Where nothing is mounted over them, as on Kubernetes.
COPY dags /opt/airflow/dags
COPY plugins /opt/airflow/plugins
WORKDIR /opt/airflow
USER 1000:0
CMD ["airflow", "--help"]
