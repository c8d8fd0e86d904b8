"""An embedding of Wasmtime that knows nothing of flamewalk, and runs a component.

    component.py COMPONENT ARGUMENTS...

runs the command COMPONENT again and again. Prints a line when it has begun.
"""

import sys

from wasmtime import Engine, Store, WasiConfig
from wasmtime.component import Component, Linker

engine = Engine()
linker = Linker(engine)
linker.add_wasip2()
with open(sys.argv[1], "rb") as file:
    component = Component(engine, file.read())


def run(arguments):
    store = Store(engine)
    wasi = WasiConfig()
    wasi.argv = ["guest", *arguments]
    store.set_wasi(wasi)
    instance = linker.instantiate(store, component)
    interface = instance.get_export_index(store, component_export)
    function = instance.get_func(store, instance.get_export_index(store, "run", interface))
    function(store)


component_export = next(name for name in component.type.exports(engine) if name.startswith("wasi:cli/run@"))
run(["--rounds", "1"])
print("ready", flush=True)
while True:
    run(sys.argv[2:])
