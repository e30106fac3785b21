# docker build -t bearer-gateway:0.2.0 .
#
# Everything from PyPI is pinned by hash (requirements*.lock). For a base image that is pinned as
# well, give its digest: --build-arg PYTHON=python@sha256:... --build-arg BUILD=...
ARG PYTHON=python:3.11-slim-bookworm
ARG BUILD=python:3.11-bookworm

# This one has a C compiler: the hot path is compiled.
FROM ${BUILD} AS build
WORKDIR /src
COPY deploy/docker/install.sh requirements.lock requirements-build.lock ./
RUN ./install.sh dependencies /opt/gateway
COPY pyproject.toml setup.py README.md LICENSE ./
COPY gateway gateway
RUN ./install.sh wheel /dist && ./install.sh gateway /opt/gateway /dist

FROM ${PYTHON}
LABEL org.opencontainers.image.title="bearer-gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/bearer-gateway/bearer-gateway"
# The base has a pip of its own; nobody installs anything into a running image.
RUN if python3 -m pip --version >/dev/null 2>&1; then \
        python3 -m pip uninstall --quiet --yes pip setuptools wheel; \
    fi \
    && groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin gateway \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/gateway /etc/gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    GATEWAY_CONFIG=/etc/gateway/gateway.yaml \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Numbers, so that runAsNonRoot can be checked.
USER 10001:10001
WORKDIR /var/lib/gateway
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Where admin.port is another, give HEALTH_URL. Kubernetes has probes instead. No --start-interval,
# which builders of some years ago reject (Buildah 1.28, for one).
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ.get('HEALTH_URL', 'http://127.0.0.1:9090/healthz'), timeout=2)"]
ENTRYPOINT ["gateway"]
CMD ["run"]
