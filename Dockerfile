# An image that holds the binary, the libraries it is linked with and the certificate authorities: no shell, no package
# manager, no root. All it writes is under /var/lib/moesync.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag moesync .
#   buildah build --format docker --build-arg REVISION="$(git rev-parse HEAD)" --tag moesync .

# Debian with a Rust toolchain and a C compiler. deploy/container/test makes one where no registry can be reached.
ARG BUILD_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked
# ldd names the libraries by the paths at which the loader looks for them.
RUN install -D --strip target/release/moesync /image/usr/local/bin/moesync \
    && ldd target/release/moesync | grep -o '/[^ ]*' | xargs -I '{}' install -D '{}' '/image{}' \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    # Without it names are looked for in the DNS before /etc/hosts.
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && echo 'moesync:x:65532:65532::/var/lib/moesync:' > /image/etc/passwd \
    && echo 'moesync:x:65532:' > /image/etc/group \
    && install -d -o 65532 -g 65532 -m 750 /image/var/lib/moesync

FROM scratch
ARG REVISION=unknown
LABEL org.opencontainers.image.title="moesync" \
    org.opencontainers.image.description="Keeps every MoEngage campaign report: fetched before it expires, verified, stored, and accounted for" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
USER 65532:65532
WORKDIR /var/lib/moesync
# Asks the daemon whether its loop turns and the ledger and the destinations answer. An answer may take 25 s.
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s CMD ["/usr/local/bin/moesync", "health"]
ENTRYPOINT ["/usr/local/bin/moesync"]
CMD ["run"]
