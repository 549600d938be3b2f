# `make help` lists the targets.

CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_DEB_VERSION := 3.8.0
CARGO_DENY_VERSION := 0.20.2
CODESPELL_VERSION := 2.4.1
ISAL_VERSION := 1.9.1
MAIL_SERVER := aiosmtpd==1.4.6
ZIG := cargo-zigbuild==0.24.1 ziglang==0.17.1
ENGINES := duckdb==2.0.1 pyarrow==26.0.1 sqlglot==30.30.0

# Some tests mount a small disk. Without root, the tests run as root of a namespace.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo unshare --map-root-user --mount)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# A command that the build or the tests run, and the Debian package that brings it.
TOOLS := bsdtar:libarchive-tools c++:build-essential cc:build-essential chromedriver:chromium-driver chromium:chromium curl:curl java:default-jdk-headless javac:default-jdk-headless mount:mount perl:perl pg_virtualenv:postgresql pgbouncer:pgbouncer ps:procps \
    promtool:prometheus python3:python3 strace:strace systemd-analyze:systemd time:time unzip:unzip zip:zip

# Modules of the integration tests that take long: they start many processes, wait for daemons or write much.
SLOW_TESTS := bucket contain daemon deploy derive disk emulator notify replicas simulation store sync tables vendor web

.PHONY: help check test simulate lint fuzz bench deb dist demo tools cargo-cyclonedx cargo-deb cargo-deny codespell engines mail-server zig

help:
	@echo 'make check  before each commit, about two minutes: formatting, clippy, unit tests and the fast integration tests'
	@echo 'make test   all tests; installs what they need and is missing (Debian)'
	@echo 'make simulate  a thousand simulated weeks with faults'
	@echo 'make lint   formatting, clippy, documentation, dependencies, spelling'
	@echo 'make fuzz   looks for archives that the verifier judges wrongly, FUZZ_SECONDS for each target'
	@echo 'make bench  speed and memory against the promises; takes an hour and a half, and a quiet machine'
	@echo 'make deb    the Debian package, into target/debian/'
	@echo 'make dist   static binaries and packages for x86-64 and ARM64, into target/dist/out/; takes half an hour'
	@echo 'make demo   a complete example against the MoEngage emulator, in ./moesync-demo/'

check:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib --bins
# Many tests wait for a process or a server.
	cargo test --locked --test it -- --test-threads=4 $(SLOW_TESTS:%=--skip %::)

# The drill of the replicas has 2,000 partitions when it runs alone.
test: tools engines mail-server
	MOESYNC_DRILL_PARTITIONS=600 $(AS_ROOT) cargo test --locked --no-fail-fast

simulate:
	cargo test --locked --test it -- simulation:: --nocapture

lint: cargo-deny codespell
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	cargo fetch --locked
# Advisories come from a database on the network, which not every build machine may reach. With one, run
# `cargo deny check advisories` now and then.
	cargo deny --offline check --hide-inclusion-graph bans licenses sources
	target/codespell/bin/codespell $$(git ls-files '*.md' '*.rs' '*.py' '*.toml' '*.sql' '*.yaml' Makefile Dockerfile)

# What cargo-fuzz does, without it: libFuzzer and coverage counters on the stable toolchain, no sanitizer (the code is
# safe Rust). What is found stays in fuzz/artifacts/.
FUZZ_SECONDS := 20
FUZZ_TARGETS := tar zip gzip
FUZZ_HOST := $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_FLAGS := --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares

fuzz: tools
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --manifest-path fuzz/Cargo.toml --target-dir fuzz/target \
	    --target $(FUZZ_HOST)
	fuzz/seeds.py
	for target in $(FUZZ_TARGETS); do \
	    mkdir -p fuzz/artifacts/$$target && \
	    fuzz/target/$(FUZZ_HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=10 \
	        -rss_limit_mb=512 -print_final_stats=1 -verbosity=0 -artifact_prefix=fuzz/artifacts/$$target/ \
	        fuzz/corpus/$$target || exit 1; \
	done

bench: tools engines
	@command -v rclone > /dev/null || $(SUDO) apt-get install -qy --no-install-recommends rclone
	@target/isal/bin/python -c 'import isal' 2> /dev/null || \
	    { python3 -m venv target/isal && target/isal/bin/pip install -q isal==$(ISAL_VERSION); }
	cargo build --locked --release
	benches/history.py
	benches/idle.py
	benches/archives.py
	benches/tables.py
	benches/object_store.py
	benches/snapshot.py

deb: cargo-deb
	cargo build --locked --release
	rm -rf target/package && mkdir -p target/package/man
	target/release/moesync man --dir target/package/man
	target/release/moesync completions bash > target/package/moesync.bash
	target/release/moesync completions fish > target/package/moesync.fish
	target/release/moesync completions zsh > target/package/_moesync
	cargo deb --locked --no-build $(DEB_OPTIONS)

dist: tools zig cargo-cyclonedx cargo-deb
	@command -v qemu-aarch64-static > /dev/null || $(SUDO) apt-get install -qy --no-install-recommends qemu-user-static
	deploy/dist/build

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

cargo-cyclonedx:
	@cargo cyclonedx --version > /dev/null 2>&1 || cargo install --locked cargo-cyclonedx --version $(CARGO_CYCLONEDX_VERSION)

cargo-deb:
	@cargo deb --version > /dev/null 2>&1 || cargo install --locked cargo-deb --version $(CARGO_DEB_VERSION)

codespell: tools
	@target/codespell/bin/codespell --version > /dev/null 2>&1 || \
	    { python3 -m venv target/codespell && target/codespell/bin/pip install -q codespell==$(CODESPELL_VERSION); }

# The C compiler and linker for both architectures.
zig: tools
	@target/zig/bin/pip freeze 2> /dev/null | grep -cxF $(ZIG:%=-e %) | grep -qx $(words $(ZIG)) || \
	    { python3 -m venv target/zig && target/zig/bin/pip install -q $(ZIG); }

# The engines that read tables in the tests, and the parser of the statements for all engines.
engines: tools
	@target/engines/bin/pip freeze 2> /dev/null | grep -cxF $(ENGINES:%=-e %) | grep -qx $(words $(ENGINES)) || \
	    { python3 -m venv target/engines && target/engines/bin/pip install -q $(ENGINES); }

# The SMTP server of the tests.
mail-server: tools
	@target/mail-server/bin/pip freeze 2> /dev/null | grep -qxF $(MAIL_SERVER) || \
	    { python3 -m venv target/mail-server && target/mail-server/bin/pip install -q $(MAIL_SERVER); }
