"""An embedding of Wasmtime that knows nothing of flamewalk, and measures how long a WASI command takes.

    again.py [--dir FOLDER] GUEST ARGUMENTS...

compiles GUEST, and has threads take turns (see `turns.py`) at running it from its beginning to its end with ARGUMENTS and
what they are told more: how many nanoseconds that takes, and how many of them on the CPU. FOLDER is the guest's `/guests`.
"""

import os
import sys

from turns import take_turns, timed
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


def run(start, store):
    try:
        start(store)
    except ExitTrap:
        pass


def work(*more):
    wasi = WasiConfig()
    if folder:
        wasi.preopen_dir(folder, "/guests")
    wasi.argv = [os.path.basename(guest), *rest, *more]
    store = Store(engine)
    store.set_wasi(wasi)
    return timed(run, linker.instantiate(store, module).exports(store)["_start"], store)


take_turns(work)
