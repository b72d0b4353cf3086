# One image for every part of a hub; docker-compose.yml says which process a container runs.
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 yici \
 && install -d -o yici -m 0700 /home/yici/state
WORKDIR /opt/yici

# The environment first: it changes less often than the code.
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock

COPY connectors connectors
COPY mappings mappings
COPY quality quality
COPY hub hub
COPY demo demo
COPY dags dags
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

USER yici
ENV YICI_HOME=/home/yici/state \
    YICI_DAGS=/opt/yici/dags \
    GX_ANALYTICS_ENABLED=false
CMD ["yici", "--help"]
