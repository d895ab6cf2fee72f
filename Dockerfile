# Larder's server. Build: docker compose build. The folder feature_repo/ is part of the image: a change of the
# definitions is a new image, so what runs is what was reviewed. Data (registry, Parquet) is in volumes, never here.

FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_LINK_MODE=copy
WORKDIR /build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The two build tools come by pip, in the versions and with the hashes of the lock.
COPY requirements.lock ./
RUN awk '/^[^ ]/ { wanted = /^(uv|setuptools)==/ } wanted' requirements.lock > tools.lock \
    && pip install --no-deps --require-hashes -r tools.lock
# What pyproject.toml asks for at run time, in the lock's versions, hashes checked; nothing is compiled.
COPY pyproject.toml ./
RUN python -m venv --without-pip /opt/larder \
    && uv pip install --python /opt/larder/bin/python --require-hashes --only-binary :all: \
        --constraints requirements.lock --requirements pyproject.toml
COPY README.md LICENSE ./
COPY store ./store
COPY server ./server
COPY cli ./cli
COPY demo ./demo
# The setuptools of the lock builds the wheel, so this step downloads nothing.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && uv pip install --python /opt/larder/bin/python --no-deps wheels/*.whl \
    && python -m compileall -q -j 0 /opt/larder

FROM python:3.11.14-slim-bookworm
# A fixed id, so that the owner of files in volumes is the same in every build. No password, no shell, no home.
RUN groupadd --system --gid 10001 larder \
    && useradd --system --uid 10001 --gid larder --no-create-home --home-dir /tmp --shell /usr/sbin/nologin larder
COPY --from=build /opt/larder /opt/larder
COPY feature_repo /feature_repo
# New named volumes take the owner of the folder that they cover.
RUN mkdir -p /feature_repo/data/flights && chown -R larder:larder /feature_repo/data
COPY --chmod=0755 tools/container/server.sh /usr/local/bin/larder-start
# Only /feature_repo/data and /tmp are written, so the root file system can be read-only.
ENV PATH=/opt/larder/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
VOLUME ["/feature_repo/data"]
EXPOSE 6566
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6566/health', timeout=4)"]
ENTRYPOINT ["larder-start"]
CMD ["larder", "serve", "--repo", "/feature_repo", "--host", "0.0.0.0", "--workers", "4"]
