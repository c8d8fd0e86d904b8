// A library without WASI, for calling exports by name, with parameters of every number type.

#include "guest.h"

EXPORT(fibonacci) uint32_t fibonacci(uint32_t index) {
    return index < 2 ? index : fibonacci(index - 1) + fibonacci(index - 2);
}

EXPORT(chain) uint64_t chain(uint64_t seed, uint32_t count) { return steps(seed, count); }

EXPORT(scale_f32) float scale_f32(float value, int32_t factor) { return value * (float)factor; }

EXPORT(scale_f64) double scale_f64(double value, int64_t factor) { return value * (double)factor; }

EXPORT(no_result) void no_result(uint32_t count) {
    static volatile uint64_t result;
    result = steps(result, count);
}

EXPORT(divide) int32_t divide(int32_t dividend, int32_t divisor) { return dividend / divisor; }
