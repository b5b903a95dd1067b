# One image for the Ray head, its workers, the MLflow server and whoever submits.
#
#   docker build -t meta-service .                  torch with CUDA, some 7 GB
#   docker build -t meta-service --secret id=pip,src=pip.conf .
#                                                   with pip configured as pip.conf says: an index or a proxy of your own,
#                                                   or a place with torch's CPU build, which is then taken (some 2.5 GB)
FROM python:3.11-slim-bookworm AS build

WORKDIR /app
COPY requirements.lock requirements-cpu.lock requirements-cuda.lock ./
COPY infra/install.sh infra/
# The secret is there for this one step and in no layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    VENV=/opt/venv PYTHON=python3.11 infra/install.sh

FROM python:3.11-slim-bookworm

# libgomp1 for torch and scikit-learn, libgl1 and libegl1 for MuJoCo; tini reaps what Ray's workers leave behind.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1 libgomp1 tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 meta \
    # A volume takes its owner from the folder it is first mounted on.
    && install --directory --owner=meta /home/meta/state /home/meta/cache /data

COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY requirements.lock ./
COPY meta_service meta_service
COPY cluster cluster
COPY jobs jobs

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    META_STATE=/home/meta/state
USER 1000
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "jobs", "--help"]
