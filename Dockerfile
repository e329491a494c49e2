# esms and dlt's drivers for DuckDB and PostgreSQL; docs/containers.md says how to run it.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/container.txt requirements/
RUN python -m venv /opt/esms \
    && /opt/esms/bin/pip install --require-hashes --requirement requirements/container.txt
COPY pyproject.toml README.md LICENSE ./
COPY esms_source esms_source
RUN pip wheel --no-deps --wheel-dir /dist . \
    && /opt/esms/bin/pip install --no-deps --no-index /dist/*.whl \
    && /opt/esms/bin/pip check

FROM python:${PYTHON}-slim
# The folder's rights are those of a new volume that is mounted there.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data esms \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /opt/esms /opt/esms
ENV PATH=/opt/esms/bin:$PATH \
    DLT_DATA_DIR=/data \
    DESTINATION__DUCKDB__CREDENTIALS=/data/esms.duckdb \
    RUNTIME__DLTHUB_TELEMETRY=false
# Settings may be mounted at /app/.dlt; nothing is written here.
WORKDIR /app
VOLUME /data
# By number, so that Kubernetes can tell that it isn't root.
USER 10001:10001
# Written to by each round, by each slice of a long one, and each minute in between.
HEALTHCHECK --interval=1m --timeout=10s --start-period=1m --retries=3 \
    CMD ["sh", "-c", "find $DLT_DATA_DIR ${TMPDIR:-/tmp} -mmin -30 -print -quit | grep -q ."]
ENTRYPOINT ["esms"]
CMD ["--log-format", "json", "run", "--every", "300"]
