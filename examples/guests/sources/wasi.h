// The few WASI preview 1 calls that the guests use, declared straight on the imports.
//
// The committed guests link no libc: their binaries then hold nothing but what these files say, stay small, and
// come out byte for byte the same on every machine.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define WASI_IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const void *bytes;
    size_t length;
} wasi_slice;

enum { WASI_CLOCK_MONOTONIC = 1, WASI_STDOUT = 1, WASI_STDERR = 2, WASI_FIRST_PREOPEN = 3 };
enum { WASI_RIGHT_FD_READ = 1 << 1, WASI_RIGHT_FD_SEEK = 1 << 2 };
enum { WASI_SEEK_SET = 0 };

WASI_IMPORT(args_sizes_get) int32_t wasi_args_sizes_get(size_t *count, size_t *bytes);
WASI_IMPORT(args_get) int32_t wasi_args_get(char **arguments, char *bytes);
WASI_IMPORT(clock_time_get) int32_t wasi_clock_time_get(int32_t clock, uint64_t precision, uint64_t *nanoseconds);
WASI_IMPORT(random_get) int32_t wasi_random_get(void *bytes, size_t length);
WASI_IMPORT(fd_write) int32_t wasi_fd_write(int32_t fd, const wasi_slice *slices, size_t count, size_t *written);
WASI_IMPORT(fd_read) int32_t wasi_fd_read(int32_t fd, const wasi_slice *slices, size_t count, size_t *read);
WASI_IMPORT(fd_seek) int32_t wasi_fd_seek(int32_t fd, int64_t offset, int32_t whence, uint64_t *position);
WASI_IMPORT(fd_close) int32_t wasi_fd_close(int32_t fd);
WASI_IMPORT(path_open)
int32_t wasi_path_open(int32_t directory, int32_t lookup, const char *path, size_t length, int32_t create,
                       uint64_t rights, uint64_t inherited, int32_t flags, int32_t *fd);
WASI_IMPORT(proc_exit) __attribute__((noreturn)) void wasi_proc_exit(int32_t status);

#ifdef __cplusplus
}
#endif
