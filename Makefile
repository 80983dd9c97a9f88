# Makefile of loky: PGXS, and the targets test, demo, bench and so on.
#
#   make                  build with the server that pg_config names
#   make install          install into that server
#   make test             build strictly and run all tests on servers of their own
#   make test-versions    "make test" with each version of PostgreSQL
#   make demo             show a computation shared out over workers
#   make bench            measure against other ways to do the same
#   make load             many sessions for LOAD_SECONDS (600), then what must hold
#   make lint             the mechanical rules of the sources
#   make analyze          clang-tidy and cppcheck
#   make deb              build a Debian package, into doc/packaging
#   make installcheck     the tests against what "make install" installed
#   make clean            remove all that was built or left by tests
#
# Variables: PG_CONFIG=/path/to/pg_config; LOKY_WERROR=1 makes warnings errors;
# LOKY_DEBUG=1 adds assertions and debug points; LOKY_COVERAGE=1 counts what runs.
# "make test" takes TESTS (names of tests, all kinds), JOBS, TIMEOUT (seconds a kind), COVERAGE=1
# and KEEP=1; see test/run.  "make test-versions" takes VERSIONS (their numbers) and
# CHROOTS (a directory to keep them in); see test/versions.

all:

MODULE_big = loky
OBJS := $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
PGFILEDESC = "loky - reusable pool of background workers"

EXTENSION = loky
DATA = loky--1.0.sql

PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers $(if $(LOKY_WERROR),-Werror)

# Only what the server looks up by name is visible.  The server defines
# PGDLLEXPORT so by itself from 16 on, and respects a definition made here.
PG_CFLAGS += -fvisibility=hidden
PG_CPPFLAGS = -DPGDLLEXPORT='__attribute__((visibility("default")))'
ifneq ($(LOKY_DEBUG),)
PG_CPPFLAGS += -DLOKY_DEBUG -DUSE_ASSERT_CHECKING
endif

# Counts what runs, for gcov; the files lie beside the objects.
ifneq ($(LOKY_COVERAGE),)
PG_CFLAGS += --coverage -O0
SHLIB_LINK += --coverage
endif

# No bitcode: it needs the clang that the server was built with, and nothing
# here is worth inlining into a compiled expression.
override with_llvm := no

# Tests: setup first, cleanup last, the others by name.
sql_tests := $(sort $(patsubst sql/%.sql,%,$(wildcard sql/*.sql)))
REGRESS := $(filter setup,$(sql_tests)) \
	$(filter-out setup cleanup,$(sql_tests)) $(filter cleanup,$(sql_tests))
ISOLATION := $(sort $(patsubst test/isolation/specs/%.spec,%,\
	$(wildcard test/isolation/specs/*.spec)))
PROVE_TESTS := $(sort $(wildcard test/t/*.pl))
ifneq ($(PROVE_TESTS),)
TAP_TESTS = 1
endif

# "make installcheck" starts servers of its own.  Their directories must not
# be tmp_check, which the TAP step deletes.
REGRESS_OPTS = --temp-instance=./tmp_check_sql --temp-config=test/loky.conf
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=loky \
	--temp-instance=./tmp_check_iso --temp-config=test/loky.conf

EXTRA_CLEAN = .build-id results output_iso log regression.diffs regression.out \
	tmp_check tmp_check_sql tmp_check_iso timeline.svg doc/packaging/*.deb

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifneq ($(wildcard $(PGXS)),)

include $(PGXS)

installcheck: export LANG = C.UTF-8
PG_PROVE_FLAGS += -I test/t/lib

# Objects are made anew when a header changes, or the server or the variables
# that they were built with.
$(OBJS): $(wildcard src/*.h) Makefile .build-id

.build-id: FORCE
	@echo '$(VERSION) $(bindir) $(LOKY_DEBUG) $(LOKY_COVERAGE)' | cmp -s - $@ || \
		echo '$(VERSION) $(bindir) $(LOKY_DEBUG) $(LOKY_COVERAGE)' >$@

else

all install uninstall installcheck:
	@echo "loky: '$(PG_CONFIG) --pgxs' leads to no PostgreSQL build files." >&2
	@echo "Install them (Debian, Ubuntu: postgresql-server-dev-15, or the number of" >&2
	@echo "your server), or name another pg_config: make PG_CONFIG=/path/to/pg_config" >&2
	@exit 2

clean distclean:
	rm -rf $(EXTRA_CLEAN) $(OBJS) loky.so

endif

# These install what is missing if they may, and leave nothing behind.
test:
	@test/run

test-versions:
	@test/versions

demo:
	@test/demo

bench:
	@test/bench/run

load:
	@test/load/run

lint:
	@test/lint/run

analyze:
	@test/lint/analyze

deb:
	@doc/packaging/build

.PHONY: all install uninstall installcheck clean distclean test test-versions \
	demo bench load lint analyze deb FORCE
