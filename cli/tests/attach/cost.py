"""An embedding of Wasmtime that knows nothing of flamewalk, and measures itself.

    cost.py GUEST

keeps to one CPU, prints a line, and does what each line of its standard input says:

    work DEPTH STEPS        prints how many nanoseconds that took, and how many of them on the CPU
    gaps DEPTH NANOSECONDS  prints the gaps between two readings of the clock, of 2 microseconds or more
"""

import os
import struct
import sys
import time

from wasmtime import Engine, Linker, Module, Store, WasiConfig

engine = Engine()
linker = Linker(engine)
linker.define_wasi()
store = Store(engine)
store.set_wasi(WasiConfig())
exports = linker.instantiate(store, Module.from_file(engine, sys.argv[1])).exports(store)
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
print("ready", flush=True)
for line in sys.stdin:
    what, depth, amount = line.split()
    if what == "work":
        begun, begun_on_cpu = time.perf_counter_ns(), time.thread_time_ns()
        exports["work"](store, int(depth), int(amount))
        print(time.perf_counter_ns() - begun, time.thread_time_ns() - begun_on_cpu, flush=True)
    else:
        end = exports["gaps"](store, int(depth), int(amount))
        gaps = exports["memory"].read(store, 0x10000, end)
        print(*struct.unpack(f"<{len(gaps) // 8}Q", gaps), flush=True)
