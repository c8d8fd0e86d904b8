// The ways a run can end. Each but the last works for about a tenth of a second first, so that a profile holds it.
//
//     exits trap            stores beyond the end of its memory
//     exits exit STATUS     calls proc_exit
//     exits return          returns from _start
//     exits recurse LEVELS  works at the bottom of that many levels, then returns
//     exits overflow        recurses until the stack is full
//     exits forever         works until somebody stops it

#include "guest.h"

enum { WORK_STEPS = 100000000, CHUNK_STEPS = 1000000 };

// Where results go, so that no work can be left out as unused.
static volatile uint64_t result;

NOINLINE static void work(void) { result = steps(result, WORK_STEPS); }

// More work after the call, so that the frame has to stay.
NOINLINE static uint64_t recurse(uint64_t levels) {
    if (levels <= 1) {
        work();
        return result;
    }
    return steps(recurse(levels - 1), 1);
}

// Without the volatile condition, the compiler could tell that it never returns.
static volatile uint64_t deepest = UINT64_MAX;

NOINLINE static uint64_t overflow(uint64_t level) {
    return level == deepest ? level : steps(overflow(level + 1), 1);
}

NOINLINE static void trap(void) {
    work();
    *(volatile uint32_t *)UINTPTR_MAX = 1;
}

NOINLINE static void forever(void) {
    for (;;) result = steps(result, CHUNK_STEPS);
}

EXPORT(_start) void _start(void) {
    const arguments *given = read_arguments();
    const char *way = given->count > 1 ? given->values[1] : "";
    uint64_t number = given->count > 2 ? parse_number(given->values[2]) : 0;
    if (same_text(way, "trap")) {
        trap();
    } else if (same_text(way, "exit")) {
        work();
        wasi_proc_exit((int32_t)number);
    } else if (same_text(way, "return")) {
        work();
    } else if (same_text(way, "recurse")) {
        result = recurse(number);
    } else if (same_text(way, "overflow")) {
        work();
        result = overflow(0);
    } else if (same_text(way, "forever")) {
        forever();
    } else {
        write_text(WASI_STDERR, "usage: exits trap|exit STATUS|return|recurse LEVELS|overflow|forever\n");
        wasi_proc_exit(2);
    }
}
