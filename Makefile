# `make` builds libbaton.a, libbaton.so, libbaton_preload.so, tests, benchmarks, examples: build/.
#
#   make test        install what is missing, build, run every test; TESTS="chan timer" picks some
#   make asan, tsan  unit and stress tests under sanitizers, in build/asan and build/tsan
#   make soak        the stress tests at length; the scheduler's at 1, 2, 4, 8 Ps on each tier
#   make model       the model checker's full run
#   make bench       the benchmarks and the peers they are compared with
#   make check       format, lint, layering, headers, and a clean build by clang++
#   make demo        the tour
#   make install     DESTDIR= PREFIX=/usr/local
#   make format      rewrites the sources the way `make check` wants them
#
# BUILD=dir builds somewhere else, SAN=thread with a sanitizer, V=1 shows the commands.

VERSION := 0.1.0
SONAME  := libbaton.so.0
BUILD   ?= build
PREFIX  ?= /usr/local
ARCH    := $(shell uname -m)
# Debian keeps bpftool in /usr/sbin.
export PATH := $(PATH):/usr/sbin

# A -j given by the user wins over this one. Goals named together run in the order given, since
# two of them may build the same files.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc) --no-print-directory
ifneq ($(filter-out 0 1,$(words $(MAKECMDGOALS))),)
.NOTPARALLEL:
endif
endif

# Sanitizers make gcc warn where nothing is wrong, so only the plain build insists. Hidden
# visibility: only what a public header declares is the library's interface. TLS is initial-exec
# because the general model may allocate on first use, which a signal handler cannot afford.
OPT      ?= -O2 -g
VERSIONED = -DBATON_VERSION='"$(VERSION)"'
WARN     := -Wall -Wextra -Wpedantic $(if $(SAN),-Wno-tsan,-Werror)
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
INCLUDES  = -Iinclude -Isrc -Ibpf -I$(BUILD)/gen
FLAGS     = -std=c++20 $(OPT) $(WARN) -pthread $(SANFLAGS) $(INCLUDES) $(CPPFLAGS) $(CXXFLAGS)
LIBFLAGS := -fPIC -fvisibility=hidden -ftls-model=initial-exec
LDLIBS   += -luring -lbpf -ldw -lelf -lz
BPFFLAGS := -O2 -g -Wall -Werror -mcpu=v3 -target bpf -D__TARGET_ARCH_x86 -Ibpf \
            -idirafter /usr/include/$(ARCH)-linux-gnu

objects = $(patsubst %,$(BUILD)/obj/%.o,$(basename $(sort $(wildcard $1))))
has     = $(strip $(foreach word,$(TESTS),$(findstring $(word),$1)))
picked  = $(if $(TESTS),$(foreach file,$1,$(if $(call has,$(file)),$(file))),$1)
quiet   = $(if $(V),,@printf '  %-5s %s\n' $1 $@;)

PRELOAD_OBJ := $(call objects,src/preload/*.cpp)
LIB_OBJ   := $(filter-out $(PRELOAD_OBJ),\
               $(call objects,src/*/*.cpp src/arch/$(ARCH)/*.cpp src/arch/$(ARCH)/*.S))
TEST_OBJ  := $(call picked,$(call objects,tests/unit/*.cpp tests/stress/*.cpp))
HOOK_OBJ  := $(call picked,$(call objects,tests/preload/*.cpp))
ROW_OBJ   := $(call objects,tests/preload/rows/*.cpp)
SLOW_OBJ  := $(call objects,tests/preload/lib/*.cpp)
BENCH_OBJ := $(call objects,tests/bench/*.cpp)
# Those of other libraries are built where these are. They are linked with the hooks; tlsecho, which
# needs none, with OpenSSL alone.
EX_NEEDS  := pgpool:libpq rediscache:hiredis curlfetch:libcurl tlsproxy:openssl tlsecho:openssl
packages   = $(shell for p in $1; do pkg-config --silence-errors --libs $$p; done)
library_of = $(call packages,$(patsubst $1:%,%,$(filter $1:%,$(EX_NEEDS))))
EX_OTHERS := $(foreach n,$(EX_NEEDS),$(firstword $(subst :, ,$n)))
EX_OBJ    := $(filter-out $(foreach n,$(EX_OTHERS),$(if $(call library_of,$n),,%/$n.o)),\
               $(call objects,tools/examples/*.cpp))
TEST_AID  := $(call objects,tests/support/*.cpp)
BENCH_AID := $(call objects,tests/bench/support/*.cpp)
SKELETONS := $(patsubst bpf/%.bpf.c,$(BUILD)/gen/%.skel.h,$(sort $(wildcard bpf/*.bpf.c)))
ALL_OBJ   := $(LIB_OBJ) $(PRELOAD_OBJ) $(TEST_OBJ) $(HOOK_OBJ) $(ROW_OBJ) $(SLOW_OBJ) \
             $(BENCH_OBJ) $(EX_OBJ) $(TEST_AID) $(BENCH_AID)

LIB       := $(BUILD)/libbaton.a
TEST_BIN  := $(TEST_OBJ:$(BUILD)/obj/%.o=$(BUILD)/%)
HOOK_BIN  := $(HOOK_OBJ:$(BUILD)/obj/%.o=$(BUILD)/%)
BENCH_BIN := $(BENCH_OBJ:$(BUILD)/obj/tests/%.o=$(BUILD)/%)
EX_BIN    := $(EX_OBJ:$(BUILD)/obj/tools/%.o=$(BUILD)/%)

.PHONY: all libs tests benches examples demo test bench check asan tsan model soak
.PHONY: install clean format
.DELETE_ON_ERROR:

all: libs tests benches examples
libs: $(LIB) $(BUILD)/libbaton.so $(BUILD)/libbaton_preload.so
tests: $(TEST_BIN) $(HOOK_BIN)
benches: $(BENCH_BIN)
examples: $(EX_BIN)
all libs tests benches examples:; @:

# --- compile and link ---

$(LIB): $(LIB_OBJ)
	$(call quiet,AR)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/libbaton.so: $(LIB_OBJ)
	$(call quiet,LD)$(CXX) -shared $(LDFLAGS) -Wl,-soname,$(SONAME),-z,defs -o $@ $^ $(LDLIBS)
	@ln -sf libbaton.so $(BUILD)/$(SONAME)

# It depends on libc alone, as programs of any kind are to have it.
$(BUILD)/libbaton_preload.so: $(PRELOAD_OBJ) src/preload/exports.map
	$(call quiet,LD)$(CXX) -shared $(LDFLAGS) -Wl,-soname,libbaton_preload.so,-z,defs \
	    -Wl,--version-script,src/preload/exports.map -nodefaultlibs \
	    -o $@ $(PRELOAD_OBJ) -lc -lgcc

$(TEST_BIN): $(BUILD)/%: $(BUILD)/obj/%.o $(TEST_AID) $(LIB)
$(HOOK_BIN): $(BUILD)/%: $(BUILD)/obj/%.o $(TEST_AID) $(LIB) | $(BUILD)/libbaton_preload.so
$(BUILD)/tests/preload/conformance: $(ROW_OBJ)
$(BUILD)/tests/preload/linked: $(BUILD)/libbaton_preload.so
$(BUILD)/tests/preload/linked: LDLIBS += -Wl,-rpath,'$$ORIGIN/../..'
# What stands behind the hooks, or is opened late.
$(BUILD)/tests/preload/waiting: | $(BUILD)/tests/preload/libslow.so
$(BUILD)/tests/preload/libslow.so: $(SLOW_OBJ)
	@mkdir -p $(@D)
	$(call quiet,LD)$(CXX) -shared $(LDFLAGS) -o $@ $^
# The libraries that are shown at work, those that are there.
$(BUILD)/tests/preload/postgres: LDLIBS += $(call packages,libpq)
$(BUILD)/tests/preload/sqlite: LDLIBS += $(call packages,sqlite3)
$(BUILD)/tests/preload/compress: LDLIBS += $(call packages,libzstd zlib)
$(BUILD)/tests/preload/tls: LDLIBS += $(call packages,openssl)
# A library in C, which knows nothing of us.
$(BUILD)/tests/preload/clibrary: | $(BUILD)/tests/preload/libboundedq.so
$(BUILD)/tests/preload/libboundedq.so: tests/preload/boundedq.c tests/preload/boundedq.h
	@mkdir -p $(@D)
	$(call quiet,CC)$(CC) -std=c11 $(OPT) $(WARN) -fPIC -shared -pthread -o $@ $<
$(BENCH_BIN): $(BUILD)/%: $(BUILD)/obj/tests/%.o $(BENCH_AID) $(LIB)
# Linked with the hooks, as a program may be.
HOOKED := $(addprefix $(BUILD)/bench/,hooks preload)
$(HOOKED): $(BUILD)/libbaton_preload.so
$(HOOKED): LDLIBS += -Wl,-rpath,'$$ORIGIN/..'
$(EX_BIN): $(BUILD)/%: $(BUILD)/obj/tools/%.o $(LIB)
$(EX_BIN): LDLIBS += -Wl,--as-needed -lhttp_parser
$(EX_BIN): LDLIBS += $(call library_of,$(@F))
EX_HOOKED := $(addprefix $(BUILD)/examples/,$(filter-out tlsecho,$(EX_OTHERS)))
$(EX_HOOKED): $(BUILD)/libbaton_preload.so
$(EX_HOOKED): LDLIBS += -Wl,-rpath,'$$ORIGIN/..'
$(TEST_BIN) $(HOOK_BIN) $(BENCH_BIN) $(EX_BIN):
	@mkdir -p $(@D)
	$(call quiet,LD)$(CXX) -pthread $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The .d files name the skeletons a source includes, but only once it has been compiled: order-only
# for the first time. Examples see the public headers alone, as their readers will.
$(LIB_OBJ) $(PRELOAD_OBJ): FLAGS += $(LIBFLAGS)
$(SLOW_OBJ): FLAGS += -fPIC
# Its calls must end in jumps, so that a thread's own see the frames of libc alone; and what it
# stands before is what sanitizers do, too.
$(PRELOAD_OBJ): FLAGS += -fno-exceptions -fno-rtti -fno-threadsafe-statics \
                         -foptimize-sibling-calls -fcf-protection=none -U_FORTIFY_SOURCE
$(PRELOAD_OBJ): SANFLAGS :=
$(BENCH_OBJ) $(BENCH_AID): FLAGS += $(VERSIONED)
$(TEST_OBJ) $(HOOK_OBJ) $(ROW_OBJ) $(TEST_AID): INCLUDES += -Itests
# More than half of a build is these, and what they test is in the library. g++ parses what most of
# them include once; clang++ does not, and so finds those that lack an include. Line tables do but
# where what debug information says is tested.
PRELUDE := $(if $(findstring clang,$(CXX)),,$(BUILD)/obj/tests/support/prelude.hpp.gch)
$(TEST_OBJ) $(HOOK_OBJ) $(ROW_OBJ) $(TEST_AID) $(PRELUDE): OPT = -O1 -g1
$(filter %/traceback.o %/traceback_makers.o,$(TEST_OBJ)): OPT = -O1 -g
ifneq ($(PRELUDE),)
$(PRELUDE): Makefile | $(BUILD)/.packages
$(TEST_OBJ) $(HOOK_OBJ) $(ROW_OBJ): $(PRELUDE)
$(TEST_OBJ) $(HOOK_OBJ) $(ROW_OBJ): private FLAGS += -I$(BUILD)/obj/tests \
                                                     -include support/prelude.hpp
endif
$(HOOK_OBJ): INCLUDES += -Itools
$(EX_OBJ): INCLUDES = -Iinclude
$(ALL_OBJ): Makefile | $(SKELETONS) $(BUILD)/.packages

$(BUILD)/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(call quiet,CXX)$(CXX) $(FLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.gch: %
	@mkdir -p $(@D)
	$(call quiet,CXX)$(CXX) $(FLAGS) -x c++-header -o $@ $<

$(BUILD)/obj/%.o: %.S
	@mkdir -p $(@D)
	$(call quiet,AS)$(CXX) -g $(INCLUDES) $(CPPFLAGS) -MMD -MP -c -o $@ $<

# --- the probe: BPF object without DWARF (its BTF stays), then the header that embeds it ---

$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c Makefile | $(BUILD)/.packages
	@mkdir -p $(@D)
	$(call quiet,BPF)clang $(BPFFLAGS) -MMD -MP -c -o $@ $< && llvm-strip -g $@

$(BUILD)/gen/%.skel.h: $(BUILD)/bpf/%.bpf.o
	@mkdir -p $(@D)
	$(call quiet,SKEL)bpftool gen skeleton $< > $@

.SECONDARY: $(SKELETONS:$(BUILD)/gen/%.skel.h=$(BUILD)/bpf/%.bpf.o)
-include $(ALL_OBJ:.o=.d) $(SKELETONS:$(BUILD)/gen/%.skel.h=$(BUILD)/bpf/%.bpf.d)

# --- packages ---

# Asked once per build directory, before the first compilation would fail less clearly.
missing = $(shell tools/deps.sh --missing build)
$(BUILD)/.packages: tools/deps.sh
	$(if $(missing),$(error missing packages; as root: apt-get install $(missing)))
	@mkdir -p $(@D) && touch $@

DEPS := $(addprefix deps-,build test bench demo check)
.PHONY: $(DEPS)
$(DEPS): deps-%:
	@tools/deps.sh $*

# --- what people type ---

test: deps-test
	@$(MAKE) libs tests examples
	@BUILD=$(BUILD) tools/run-tests.sh

asan tsan: deps-test
	@$(MAKE) BUILD=$(BUILD)/$@ SAN=$(if $(filter asan,$@),address$(comma)undefined,thread) tests
	@BUILD=$(BUILD)/$@ TIMEOUT=$${TIMEOUT:-600} tools/run-tests.sh unit stress
comma := ,

soak: deps-test
	@$(MAKE) tests
	@SOAK=1 BUILD=$(BUILD) TIMEOUT=$${TIMEOUT:-3600} tools/run-tests.sh stress procs

model: deps-test
	@bash tests/model/check.sh

bench: deps-bench
	@$(MAKE) libs benches examples
	@$(MAKE) -C tests/bench/peers BUILD=$(abspath $(BUILD))
	@BUILD=$(BUILD) tests/bench/run.sh

check: deps-check
	@$(MAKE) all
	@$(MAKE) BUILD=$(BUILD)/clang CXX=clang++ all
	@BUILD=$(BUILD) FLAGS="$(FLAGS)" tools/check/run.sh

demo: deps-demo
	@$(MAKE) examples
	@BUILD=$(BUILD) bash tools/demo.sh

define PKGCONFIG
prefix=$(PREFIX)
Name: baton
Description: goroutines for C++20 whose processor is passed on when the kernel blocks their thread
Version: $(VERSION)
Cflags: -I$${prefix}/include -pthread
Libs: -L$${prefix}/lib -lbaton -pthread
Libs.private: $(LDLIBS)
endef
export PKGCONFIG

install: libs
	install -d $(DESTDIR)$(PREFIX)/include/baton $(DESTDIR)$(PREFIX)/lib/pkgconfig
	install -m 644 include/baton/*.hpp $(DESTDIR)$(PREFIX)/include/baton
	install -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(BUILD)/libbaton_preload.so $(DESTDIR)$(PREFIX)/lib
	install -m 755 $(BUILD)/libbaton.so $(DESTDIR)$(PREFIX)/lib/libbaton.so.$(VERSION)
	ln -sf libbaton.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(PREFIX)/lib/libbaton.so
	echo "$$PKGCONFIG" > $(DESTDIR)$(PREFIX)/lib/pkgconfig/baton.pc
	$(if $(DESTDIR),,ldconfig)

clean:
	rm -rf $(BUILD)

format:
	@tools/check/format.sh --fix
