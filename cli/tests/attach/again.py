"""An embedding of Wasmtime that knows nothing of flamewalk, and measures how long a WASI command takes.

    again.py [--dir FOLDER] GUEST ARGUMENTS...

compiles GUEST, keeps to one CPU, prints a line, and runs GUEST from its beginning to its end with ARGUMENTS and what the
line says more, for each line of its standard input. Prints how many nanoseconds that took, and how many of them on the CPU.
FOLDER is the guest's `/guests`.
"""

import os
import sys
import time

from wasmtime import Engine, ExitTrap, Linker, Module, Store, WasiConfig

arguments = sys.argv[1:]
folder = None
if arguments[0] == "--dir":
    folder = arguments[1]
    arguments = arguments[2:]
guest, *rest = arguments
engine = Engine()
linker = Linker(engine)
linker.define_wasi()
module = Module.from_file(engine, guest)
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
print("ready", flush=True)
for line in sys.stdin:
    wasi = WasiConfig()
    if folder:
        wasi.preopen_dir(folder, "/guests")
    wasi.argv = [os.path.basename(guest), *rest, *line.split()]
    store = Store(engine)
    store.set_wasi(wasi)
    start = linker.instantiate(store, module).exports(store)["_start"]
    begun, begun_on_cpu = time.perf_counter_ns(), time.thread_time_ns()
    try:
        start(store)
    except ExitTrap:
        pass
    print(time.perf_counter_ns() - begun, time.thread_time_ns() - begun_on_cpu, flush=True)
