# An image with the binary, the libraries it is linked with and the certificate authorities; without shell, package manager
# or root user. It writes only below /var/lib/moesync.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag moesync .
#   buildah build --format docker --build-arg REVISION="$(git rev-parse HEAD)" --tag moesync .

# Debian with a Rust toolchain and a C compiler. deploy/container/test builds one without an image registry.
ARG BUILD_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked
# ldd lists the libraries under the paths that the loader uses.
RUN install -D --strip target/release/moesync /image/usr/local/bin/moesync \
    && ldd target/release/moesync | grep -o '/[^ ]*' | xargs -I '{}' install -D '{}' '/image{}' \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    # Without this file, names are resolved by DNS before /etc/hosts.
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && echo 'moesync:x:65532:65532::/var/lib/moesync:' > /image/etc/passwd \
    && echo 'moesync:x:65532:' > /image/etc/group \
    && install -d -o 65532 -g 65532 -m 750 /image/var/lib/moesync

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="moesync" \
    org.opencontainers.image.description="Downloads MoEngage campaign reports before they expire, verifies and stores them, and alerts when one is at risk" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
USER 65532:65532
WORKDIR /var/lib/moesync
# Pages of snapshots are collected there if the ledger is in PostgreSQL; there is no /tmp.
ENV TMPDIR=/var/lib/moesync
# Checks the loop, the ledger and the destinations of the daemon. It ends within 25 s.
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["/usr/local/bin/moesync", "health"]
ENTRYPOINT ["/usr/local/bin/moesync"]
CMD ["run"]
