"""An embedding of Wasmtime that knows nothing of flamewalk, and runs a WASI command from its beginning to its end.

    once.py [--dir FOLDER] GUEST ARGUMENTS...

compiles GUEST, prints a line, waits for one on its standard input, runs GUEST with ARGUMENTS and ends. FOLDER is the
guest's `/guests`.
"""

import os
import sys

from wasmtime import Engine, ExitTrap, Linker, Module, Store, WasiConfig

arguments = sys.argv[1:]
wasi = WasiConfig()
if arguments[0] == "--dir":
    wasi.preopen_dir(arguments[1], "/guests")
    arguments = arguments[2:]
guest, *rest = arguments
engine = Engine()
linker = Linker(engine)
linker.define_wasi()
module = Module.from_file(engine, guest)
wasi.argv = [os.path.basename(guest), *rest]
store = Store(engine)
store.set_wasi(wasi)
start = linker.instantiate(store, module).exports(store)["_start"]
print("ready", flush=True)
sys.stdin.readline()
try:
    start(store)
except ExitTrap:
    pass
