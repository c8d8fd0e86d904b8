// One function whose lines, and the functions that the compiler inlines into them, have known shares of the run time.
//
// All work is steps of one serial chain, as in the known-answer guest. Per round, of 10,000 steps:
//
//     line                  steps
//     its first             1,000
//     its second            2,000
//     in `once`, inlined    3,000
//     in `twice`, inlined   4,000    two calls, from two lines, of 1,000 and 3,000
//
// A library: it exports `run(rounds)`, which returns the chain's last value, and imports nothing.

#include "guest.h"

enum { SEED = 1 };

#define INLINE static inline __attribute__((always_inline))

INLINE uint64_t once(uint64_t x) { return steps(x, 3000); }

INLINE uint64_t twice(uint64_t x, uint32_t count) { return steps(x, count); }

NOINLINE static uint64_t lines(uint64_t x) {
    x = steps(x, 1000);
    x = steps(x, 2000);
    x = once(x);
    x = twice(x, 1000);
    return twice(x, 3000);
}

EXPORT(run) uint64_t run(uint32_t rounds) {
    uint64_t x = SEED;
    for (uint32_t round = 0; round < rounds; round++) x = lines(x);
    return x;
}
