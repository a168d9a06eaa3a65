# The hub and the agent in one image: `docker run … ncfast hub`, `docker run … ncfast agent …`.

FROM python:3.13-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Packages of the locks alone, each by its hash; then ours, with nothing fetched.
COPY locks locks
RUN python -m venv /opt/ncfast \
    && /opt/ncfast/bin/pip install --no-cache-dir --require-hashes -r locks/run.txt \
    && pip install --no-cache-dir --require-hashes -r locks/build.txt
COPY . .
RUN pip wheel --no-index --no-build-isolation --no-deps --wheel-dir /wheel . \
    && /opt/ncfast/bin/pip install --no-index --no-deps /wheel/*.whl

FROM python:3.13-slim-bookworm
# The interpreter's own modules come as source, and would be compiled at each start: that takes longer than the rest.
RUN python -m compileall -q -j 0 -x '/(site-packages|test|idlelib|lib2to3|tkinter|turtledemo|ensurepip)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ncfast
COPY --from=build /opt/ncfast /opt/ncfast
ENV PATH=/opt/ncfast/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    NC_LOG_FORMAT=json \
    NC_CONFIG=/etc/ncfast/hub.yaml
USER ncfast
# The edge as NC_CONFIG binds it; the listeners' ports are the configuration's.
EXPOSE 8080
# For a hub; NC_HEALTH_URL when its edge has another port, --no-healthcheck for an agent, which never listens.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD no_proxy=* python -c "import os, urllib.request as u; \
u.urlopen(os.environ.get('NC_HEALTH_URL', 'http://127.0.0.1:8080/healthz'), timeout=2)"
ENTRYPOINT ["ncfast"]
CMD ["hub"]
