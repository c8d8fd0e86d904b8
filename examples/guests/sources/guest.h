// What a guest without a libc needs around its work: arguments, text on a stream, and the steps all work is made of.
#pragma once

#include "wasi.h"

#define NOINLINE __attribute__((noinline))
#define EXPORT(name) __attribute__((export_name(#name)))

// One step of work. Each step needs the result of the one before it, so a step takes the latency of a multiplication
// and an exclusive or wherever it stands: in a loop or in straight-line code, whatever else the processor has to do
// around it. The two operations do not distribute over each other, so no compiler can fold steps together.
#define STEP(x) ((x) * 109 ^ 91)

static inline uint64_t steps(uint64_t x, uint32_t count) {
    // One step per turn: an unrolled loop would have fewer safe points to be sampled at by profilers that need them.
#pragma clang loop unroll(disable)
    for (uint32_t i = 0; i < count; i++) x = STEP(x);
    return x;
}

enum { MAX_ARGUMENTS = 16, MAX_ARGUMENT_BYTES = 4096 };

typedef struct {
    size_t count;
    char *values[MAX_ARGUMENTS];
    char bytes[MAX_ARGUMENT_BYTES];
} arguments;

// The program's arguments, its name first; none if they are more or longer than the guest has room for.
static inline const arguments *read_arguments(void) {
    static arguments read;
    size_t bytes;
    if (wasi_args_sizes_get(&read.count, &bytes) != 0 || read.count > MAX_ARGUMENTS || bytes > MAX_ARGUMENT_BYTES ||
        wasi_args_get(read.values, read.bytes) != 0) {
        read.count = 0;
    }
    return &read;
}

static inline int same_text(const char *left, const char *right) {
    while (*left && *left == *right) left++, right++;
    return *left == *right;
}

static inline size_t text_length(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    return length;
}

static inline uint64_t parse_number(const char *text) {
    uint64_t number = 0;
    while (*text >= '0' && *text <= '9') number = number * 10 + (uint64_t)(*text++ - '0');
    return number;
}

static inline void write_text(int32_t stream, const char *text) {
    wasi_slice slice = {text, text_length(text)};
    size_t written;
    wasi_fd_write(stream, &slice, 1, &written);
}

static inline void write_number(int32_t stream, uint64_t number) {
    char digits[21];
    char *first = digits + sizeof digits - 1;
    *first = 0;
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    write_text(stream, first);
}

static inline uint64_t now_nanoseconds(void) {
    uint64_t now = 0;
    wasi_clock_time_get(WASI_CLOCK_MONOTONIC, 1, &now);
    return now;
}
