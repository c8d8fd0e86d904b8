// The known-answer guest: every function's share of the run time is fixed by construction, so that a profile can be
// checked against the truth.
//
// All work is steps of one serial chain (`STEP`), so a function's time is proportional to its steps. Per round:
//
//     function        steps     shape
//     straight      300,000     75 calls of 4,000 steps of straight-line code, no loop
//     loopy         200,000     10 calls of a loop of 20,000
//     recursive     150,000     10 descents of 50 levels, each 150 steps on the way down and 150 on the way up
//     indirect_most 100,000     100 calls of 1,000 through a table of function pointers
//     indirect_some  50,000     100 calls of 500 through the same table
//     parent         50,000      50 calls of 1,000, each of which also calls `leaf` twice
//     leaf           50,000     100 calls of 500 straight-line steps
//     (guest)       900,000
//     host call     100,000     a tenth of the run time
//
// The host call comes in two kinds. With `HOST_BURN` the guest is a library: it exports `run(rounds)` and imports
// `env.burn(steps)`, which the embedder implements with the same chain. Otherwise it is a WASI command that calls
// `random_get` for as long as its clock says that the host has had less than a ninth of the guest's time; it prints
// what its clock measured. Arguments of the command: `--rounds N`.
//
// Measured on an AMD EPYC with an independent profiler (perf, cpu-clock at 4,999 Hz, perf map, Wasmtime 48.0, six runs
// of 23,000 samples or more): every function's mean share of the time lies within 0.05 points of its share of the
// steps, and within 0.4 points in every single run, which is what that many samples can tell.
//
// The chain runs through all functions one after the other, so its last value proves how many steps were done.

#include "guest.h"

// Nested, not one assignment after the other: DWARF would describe the variable anew after each of them.
#define STEPS_10(x) STEP(STEP(STEP(STEP(STEP(STEP(STEP(STEP(STEP(STEP(x))))))))))
#define STEPS_50(x) STEPS_10(STEPS_10(STEPS_10(STEPS_10(STEPS_10(x)))))
#define DO_500_STEPS(x)                                                                                            \
    x = STEPS_50(STEPS_50(x));                                                                                     \
    x = STEPS_50(STEPS_50(x));                                                                                     \
    x = STEPS_50(STEPS_50(x));                                                                                     \
    x = STEPS_50(STEPS_50(x));                                                                                     \
    x = STEPS_50(STEPS_50(x))

enum { SEED = 1, DEFAULT_ROUNDS = 5000 };

NOINLINE static uint64_t straight(uint64_t x) {
    DO_500_STEPS(x);
    DO_500_STEPS(x);
    DO_500_STEPS(x);
    DO_500_STEPS(x);
    DO_500_STEPS(x);
    DO_500_STEPS(x);
    DO_500_STEPS(x);
    DO_500_STEPS(x);
    return x;
}

NOINLINE static uint64_t loopy(uint64_t x) { return steps(x, 20000); }

// Steps after the call as well, so that it is no tail call that a compiler may turn into a loop.
NOINLINE static uint64_t recursive(uint64_t x, uint32_t levels) {
    x = steps(x, 150);
    if (levels > 1) x = recursive(x, levels - 1);
    return steps(x, 150);
}

NOINLINE static uint64_t indirect_most(uint64_t x) { return steps(x, 1000); }

NOINLINE static uint64_t indirect_some(uint64_t x) { return steps(x, 500); }

NOINLINE static uint64_t leaf(uint64_t x) {
    DO_500_STEPS(x);
    return x;
}

NOINLINE static uint64_t parent(uint64_t x) {
    x = leaf(x);
    x = steps(x, 1000);
    return leaf(x);
}

// Volatile, so that the calls stay indirect.
static uint64_t (*volatile const table[2])(uint64_t) = {indirect_most, indirect_some};

static uint64_t guest_round(uint64_t x) {
    for (int i = 0; i < 75; i++) x = straight(x);
    for (int i = 0; i < 10; i++) x = loopy(x);
    for (int i = 0; i < 10; i++) x = recursive(x, 50);
    for (int i = 0; i < 200; i++) x = table[i % 2](x);
    for (int i = 0; i < 50; i++) x = parent(x);
    return x;
}

#ifdef HOST_BURN

__attribute__((import_module("env"), import_name("burn"))) void burn(uint32_t steps);

// Returns the chain's last value.
EXPORT(run) uint64_t run(uint32_t rounds) {
    uint64_t x = SEED;
    for (uint32_t round = 0; round < rounds; round++) {
        x = guest_round(x);
        for (int i = 0; i < 10; i++) burn(10000);
    }
    return x;
}

#else

static char random_bytes[65536];

EXPORT(_start) void _start(void) {
    const arguments *given = read_arguments();
    uint64_t rounds = DEFAULT_ROUNDS;
    if (given->count == 3 && same_text(given->values[1], "--rounds")) {
        rounds = parse_number(given->values[2]);
    } else if (given->count > 1) {
        write_text(WASI_STDERR, "usage: known_answer [--rounds N]\n");
        wasi_proc_exit(2);
    }

    uint64_t x = SEED, guest = 0, host = 0;
    uint64_t before = now_nanoseconds();
    for (uint64_t round = 0; round < rounds; round++) {
        x = guest_round(x);
        uint64_t now = now_nanoseconds();
        guest += now - before;
        before = now;
        // Against the totals, not this round's: an overshoot is made up for in the next round.
        while (host * 9 < guest) {
            wasi_random_get(random_bytes, sizeof random_bytes);
            now = now_nanoseconds();
            host += now - before;
            before = now;
        }
    }

    write_text(WASI_STDOUT, "chain ");
    write_number(WASI_STDOUT, x);
    write_text(WASI_STDOUT, "\nguest ns ");
    write_number(WASI_STDOUT, guest);
    write_text(WASI_STDOUT, "\nhost ns ");
    write_number(WASI_STDOUT, host);
    write_text(WASI_STDOUT, "\n");
}

#endif
