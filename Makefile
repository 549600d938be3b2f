# make test   installs what the tests need and is missing (Debian), then runs them all
# make lint   formatting, clippy, documentation, dependencies
# make bench  speed and memory against the promises; takes an hour and a half, and a quiet machine
# make deb    the Debian package, into target/debian/
# make demo   everything against a pretend MoEngage, into ./moesync-demo/

CARGO_DEB_VERSION := 3.8.0
CARGO_DENY_VERSION := 0.20.2

# Some tests mount a small disk. Whoever is not root becomes it in a namespace, and nowhere else.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo unshare --map-root-user --mount)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# A command that the build or the tests run, and the Debian package that brings it.
TOOLS := bsdtar:libarchive-tools c++:build-essential cc:build-essential chromedriver:chromium-driver chromium:chromium curl:curl java:default-jdk-headless javac:default-jdk-headless mount:mount ps:procps \
    promtool:prometheus python3:python3 strace:strace systemd-analyze:systemd time:time unzip:unzip zip:zip

.PHONY: test lint bench deb demo tools cargo-deb cargo-deny

test: tools
	$(AS_ROOT) cargo test --locked --no-fail-fast

lint: cargo-deny
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo fetch --locked
# Advisories come from a database on the network, which not every build machine may reach. With one, run
# `cargo deny check advisories` now and then.
	cargo deny --offline check --hide-inclusion-graph bans licenses sources

bench: tools
	cargo build --locked --release
	benches/archives.py
	benches/snapshot.py

deb: cargo-deb
	cargo build --locked --release
	rm -rf target/package && mkdir -p target/package/man
	target/release/moesync man --dir target/package/man
	target/release/moesync completions bash > target/package/moesync.bash
	target/release/moesync completions fish > target/package/moesync.fish
	target/release/moesync completions zsh > target/package/_moesync
	cargo deb --locked --no-build $(DEB_OPTIONS)

demo:
	cargo run --locked --release -- demo

# apt is asked only if something is missing, so that a machine that has everything needs neither network nor sudo.
tools:
	@missing=; \
	for tool in $(TOOLS); do \
	    command -v "$${tool%%:*}" > /dev/null || missing="$$missing $${tool##*:}"; \
	done; \
	command -v 7z > /dev/null || command -v 7zz > /dev/null || missing="$$missing 7zip"; \
	python3 -c 'import ensurepip' 2> /dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then \
	    echo "installing:$$missing"; \
	    $(SUDO) apt-get update -q && \
	        $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
	fi

cargo-deny:
	@cargo deny --version > /dev/null 2>&1 || cargo install --locked cargo-deny --version $(CARGO_DENY_VERSION)

cargo-deb:
	@cargo deb --version > /dev/null 2>&1 || cargo install --locked cargo-deb --version $(CARGO_DEB_VERSION)
