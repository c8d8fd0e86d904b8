// Functions to be linked between the driver and SQLite: everything behind them gets other indices, the data other
// addresses, and functions whose address is taken another place in the table.

#include <stdint.h>
#include <stdlib.h>

static uint32_t numbers[64] = {3, 1, 4, 1, 5, 9, 2, 6};
static const char *const words[] = {"inserted", "between", "driver", "and", "database"};
static volatile uint64_t result;

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int descending(const void *a, const void *b) { return ascending(b, a); }

__attribute__((noinline)) static uint64_t mixed(uint64_t state, const char *word) {
    for (; *word; word++) state = (state ^ (uint8_t)*word) * 1099511628211u;
    return state;
}

__attribute__((noinline)) static uint64_t folded(uint64_t state, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) state = (state << 7 | state >> 57) + numbers[i];
    return state;
}

__attribute__((noinline)) static uint64_t counted(uint64_t state) {
    uint32_t bits = 0;
    for (; state; state &= state - 1) bits++;
    return bits;
}

// Before main, once, so that no sample falls here.
__attribute__((constructor)) static void inserted(void) {
    int (*const orders[])(const void *, const void *) = {ascending, descending};
    for (int i = 0; i < 2; i++) {
        qsort(numbers, 64, sizeof *numbers, orders[i]);
        result += folded(result, 64) + counted(mixed(result, words[i]));
    }
}
