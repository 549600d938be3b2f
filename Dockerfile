# An image that holds the binary, the libraries it is linked with and the certificate authorities: no shell, no package
# manager, no root. All it writes is under /var/lib/moesync.

FROM docker.io/library/rust:1.95.0-slim-bookworm AS build
RUN apt-get update -q && apt-get install -qy --no-install-recommends ca-certificates
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked
# ldd names the libraries by the paths at which the loader looks for them.
RUN install -D target/release/moesync /image/usr/local/bin/moesync \
    && ldd target/release/moesync | grep -o '/[^ ]*' | xargs -I '{}' install -D '{}' '/image{}' \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && install -d -o 65532 -g 65532 -m 750 /image/var/lib/moesync

FROM scratch
COPY --from=build /image /
USER 65532:65532
WORKDIR /var/lib/moesync
ENTRYPOINT ["/usr/local/bin/moesync"]
CMD ["run"]
