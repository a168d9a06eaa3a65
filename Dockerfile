# The hub and the agent in one image: `docker run … ncfast hub`, `docker run … ncfast agent …`. docs/install/container.md

# An index of amd64 and arm64, by its digest: a tag may lead elsewhere tomorrow. `make pin-base` takes the newest.
ARG BASE=python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285

FROM ${BASE} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Packages of the locks alone, each by its hash; then ours, with nothing fetched.
COPY locks locks
RUN python -m venv /build && python -m venv /opt/ncfast \
    && /opt/ncfast/bin/pip install --no-cache-dir --require-hashes -r locks/run.txt \
    && /build/bin/pip install --no-cache-dir --require-hashes -r locks/build.txt
COPY . .
RUN /build/bin/pip wheel --no-index --no-build-isolation --no-deps --wheel-dir /wheel . \
    && /opt/ncfast/bin/pip install --no-index --no-deps /wheel/*.whl \
    && /opt/ncfast/bin/pip uninstall -y pip

FROM ${BASE}
# The interpreter's own modules come as source, and would be compiled at each start: that takes longer than the rest.
RUN python -m compileall -q -j 0 -x '/(site-packages|test|idlelib|lib2to3|tkinter|turtledemo|ensurepip)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && groupadd --gid 10001 ncfast \
    && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin ncfast
COPY --from=build /opt/ncfast /opt/ncfast
ENV PATH=/opt/ncfast/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    NC_LOG_FORMAT=json \
    NC_CONFIG=/etc/ncfast/hub.yaml
# By number: Kubernetes (runAsNonRoot) cannot know whether a name is root.
USER 10001:10001
# The edge; the listeners' ports are the configuration's.
EXPOSE 8080
# Drains: /readyz says 503, then the listeners close, then running flows finish. See drain in docs/configuration.md.
STOPSIGNAL SIGTERM
# For a hub whose admin edge answers on loopback, or where NC_ADMIN_URL says. An agent listens to nobody: switch it off.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ncfast status --url "${NC_ADMIN_URL:-http://127.0.0.1:9400}" >/dev/null || exit 1
# `make image` says which version and commit it is.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ncfast" \
    org.opencontainers.image.description="A reverse-TCP hub whose flows survive the links, tunnels and proxies they cross" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["ncfast"]
CMD ["hub"]
