"""An embedding of Wasmtime that knows nothing of flamewalk, and measures itself.

    cost.py GUEST [THREADS]

has threads take turns (see `turns.py`), beside so many that do nothing, at

    work DEPTH STEPS        how many nanoseconds that takes, and how many of them on the CPU
    gaps DEPTH NANOSECONDS  how many nanoseconds the thread was ready to run and others were run meanwhile, and the gaps between two
                            readings of the clock, of 2 microseconds or more
"""

import struct
import sys
import threading

from turns import take_turns, timed
from wasmtime import Engine, Linker, Module, Store, WasiConfig

engine = Engine()
linker = Linker(engine)
linker.define_wasi()
store = Store(engine)
store.set_wasi(WasiConfig())
exports = linker.instantiate(store, Module.from_file(engine, sys.argv[1])).exports(store)


def work(what, depth, amount):
    if what == "work":
        return timed(exports["work"], store, int(depth), int(amount))
    waited_before = waited()
    end = exports["gaps"](store, int(depth), int(amount))
    waited_in_gaps = waited() - waited_before
    gaps = exports["memory"].read(store, 0x10000, end)
    return waited_in_gaps, *struct.unpack(f"<{len(gaps) // 8}Q", gaps)


def waited():
    with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
        return int(file.read().split()[1])


for _ in range(int((sys.argv[2:] or ["0"])[0])):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
take_turns(work)
