# SPDX-License-Identifier: GPL-2.0-or-later
#
# Only names the goals: scripts/ builds, tests/ checks.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export QEMU_TARBALL QEMU_SOURCE_URL LINUX_TARBALL LINUX_SOURCE_URL CONFIGURE CONFIGURATION PREFIX DESTDIR

# The build from which the instrumented ones take commands and libraries.
UNIT_TESTS := 'tests/unit/test-guest-memfd-*' libqemuutil.a
FULL_QTESTS := 'tests/qtest/guest-memfd-virtio-test'
QTESTS := 'tests/qtest/guest-memfd*-test' qemu-system-x86_64

.PHONY: help demo build check check-tools check-libvirt check-libvirt-newest \
	check-libvirt-patches check-kvm check-defects shell-kvm demo-linux check-linux bench figures \
	check-builds check-upstream check-upstream-series stock \
	check-reliability fuzz sanitize sanitize-qtest mutation check-launches coverage \
	install uninstall deb check-deb check-deb-full docs check-docs transcript \
	export-patches check-patches clean distclean

help: ## print this list
	@echo "make GOAL; each goal installs and fetches what it needs by itself"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
	@echo "QEMU_TARBALL=FILE takes QEMU's source from FILE instead of the mirror"
	@echo "QEMU_SOURCE_URL=\"URL...\" asks these addresses before the mirror"
	@echo "CONFIGURE=\"...\" adds options to QEMU's configure"
	@echo "CONFIGURATION=quick installs and packages the build of make build"

demo: ## build, and run the guest demonstration
	@scripts/build qemu-system-x86_64 'tests/guest/*'
	@tests/demo/demo

build: ## build QEMU with guest_memfd conversion: build/qemu/qemu-system-x86_64
	@scripts/build

check: ## build, and run this project's tests
	@scripts/build
	@tests/run check

check-tools: ## try gmem-top in a terminal, gmem-exporter with a real Prometheus
	@scripts/build qemu-system-x86_64 'tests/guest/*'
	@tests/tools/check

check-libvirt: ## run our QEMU under libvirt 11.3, without installing it
	@scripts/build qemu-system-x86_64
	@tests/libvirt/check

check-libvirt-newest: ## the same under Debian's newest libvirt, and virt-install
	@scripts/build qemu-system-x86_64
	@tests/libvirt/newest

check-libvirt-patches: ## build libvirt with libvirt/patches, and run its tests
	@scripts/build qemu-system-x86_64
	@tests/libvirt/check-patches

check-kvm: ## run QEMU and the guest on a real KVM, which runs under TCG
	@tests/kvm/build
	@tests/run kvm

check-defects: ## show QEMU 10.2.2's defects on it, and that ours has none
	@tests/kvm/build
	@tests/upstream/stock --fixture
	@tests/run defects

shell-kvm: ## a shell on the reference kernel; SETTING= as in kernel/README.md
	@tests/kvm/build
	@tests/kvm/shell $(SETTING)

demo-linux: ## boot a Linux whose memory is private; SETTING= on the rig's KVM
	$(if $(SETTING),@tests/kvm/build)
	@tests/linux/build
	@tests/linux/demo $(if $(SETTING),--setting $(SETTING))

check-linux: ## do with a Linux guest what its users do; ROUNDS= of hot-plug
	@tests/kvm/build
	@tests/linux/build
	@ROUNDS="$(ROUNDS)" tests/run linux

bench: ## build, and measure conversions and requests (prints JSON)
	@scripts/build qemu-system-x86_64 tests/guest-memfd/guest-memfd-bench \
		tests/qtest/guest-memfd-load-test 'tests/guest/*' >&2
	@$(MAKE) -s -C tests/guest OUT=$(CURDIR)/build/guest >&2
	@BENCH="$(BENCH)" tests/bench/run

figures: ## measure, and write the tables of README.md
	@scripts/build tests/guest-memfd/guest-memfd-bench
	@tests/bench/figures

check-reliability: ## sanitizers, fuzzing, mutations, coverage, a debug kernel
	@scripts/build $(UNIT_TESTS) $(QTESTS)
	@tests/run reliability

fuzz: ## run each fuzz target for SECONDS=60, from the kept corpus
	@scripts/build $(UNIT_TESTS) $(QTESTS)
	@tests/fuzz/check $(if $(filter command line,$(origin SECONDS)),$(SECONDS),60)

sanitize: ## run the unit tests with ASan, UBSan and TSan
	@scripts/build $(UNIT_TESTS)
	@tests/reliability/sanitize

sanitize-qtest: ## run the qtests on a second QEMU, built with ASan and UBSan
	@tests/reliability/sanitize-qtest

mutation: ## break the product in many ways: a test must notice each
	@scripts/build $(UNIT_TESTS) $(QTESTS)
	@tests/mutation/check
	@tests/mutation/check-devices

check-launches: ## lines and mutations of SNP and TDX launches, half an hour
	@tests/kvm/build
	@tests/kvm/launch_code.py lines
	@tests/kvm/launch_code.py mutations

coverage: ## print the lines and branches that the tests reach
	@scripts/build $(UNIT_TESTS) $(QTESTS)
	@tests/reliability/coverage

check-builds: ## compile without KVM, for aarch64, for debugging, with clang
	@tests/builds/check $(NAMES)

check-upstream: ## run QEMU's own unit and x86_64 qtest suites on our build
	@tests/upstream/check

check-upstream-series: ## fixes of QEMU's own faults, on the unchanged QEMU
	@tests/upstream/check-series

stock: ## build the unchanged QEMU beside ours: build/stock/qemu-system-x86_64
	@tests/upstream/stock

docs: ## build the manual: build/docs/html/index.html, build/docs/man
	@scripts/build-docs

check-docs: ## build the manual, and check documents against the program
	@scripts/build
	@tests/run docs

transcript: ## a new user's first half hour, done and written down
	@tests/docs/first-half-hour

install: ## install below DESTDIR/PREFIX (/usr/local), beside any other QEMU
	@scripts/build --packaged
	@scripts/install

uninstall: ## remove what `make install` put below DESTDIR/PREFIX
	@scripts/install --uninstall

deb: ## make a Debian package: build/qemu-gmem_*.deb
	@scripts/build --packaged
	@scripts/build-docs
	@scripts/deb

check-deb: export CONFIGURATION = quick
check-deb: deb ## try a package of the quick build in a new Debian
	@tests/run packages package

check-deb-full: deb ## try the package that users get, beside Debian's QEMU
	@scripts/build qemu-system-x86_64 $(FULL_QTESTS)
	@tests/run packages

export-patches: ## write the commits of build/src to patches/
	@scripts/export-patches

check-patches: ## check the patches and the overlay against the pinned QEMU
	@tests/patches/check

clean: ## remove what was built, keep the downloads
	@scripts/clean

distclean: ## remove build/ altogether
	@scripts/clean --all
