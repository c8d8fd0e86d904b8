// A guest whose time goes to the host: it writes short lines to standard output, and reads a file block by block.
//
//     host_calls [LINES [FILE PASSES]]
//
// writes LINES lines (1,000,000), then reads FILE, a path below the first preopened directory, PASSES times.

#include "guest.h"

enum { DEFAULT_LINES = 1000000, BLOCK_BYTES = 512 };

NOINLINE static void write_lines(uint64_t lines) {
    for (uint64_t line = 0; line < lines; line++) write_text(WASI_STDOUT, "a short line\n");
}

NOINLINE static uint64_t read_once(int32_t file) {
    static char block[BLOCK_BYTES];
    wasi_slice slice = {block, sizeof block};
    uint64_t total = 0, position;
    size_t read = 0;
    wasi_fd_seek(file, 0, WASI_SEEK_SET, &position);
    while (wasi_fd_read(file, &slice, 1, &read) == 0 && read > 0) total += read;
    return total;
}

NOINLINE static void read_file(const char *path, uint64_t passes) {
    int32_t file;
    if (wasi_path_open(WASI_FIRST_PREOPEN, 0, path, text_length(path), 0, WASI_RIGHT_FD_READ | WASI_RIGHT_FD_SEEK, 0, 0,
                       &file) != 0) {
        write_text(WASI_STDERR, "host_calls: cannot open the file; is its directory preopened?\n");
        wasi_proc_exit(1);
    }
    uint64_t total = 0;
    for (uint64_t pass = 0; pass < passes; pass++) total += read_once(file);
    wasi_fd_close(file);
    write_text(WASI_STDERR, "bytes read ");
    write_number(WASI_STDERR, total);
    write_text(WASI_STDERR, "\n");
}

EXPORT(_start) void _start(void) {
    const arguments *given = read_arguments();
    write_lines(given->count > 1 ? parse_number(given->values[1]) : DEFAULT_LINES);
    if (given->count > 3) read_file(given->values[2], parse_number(given->values[3]));
}
