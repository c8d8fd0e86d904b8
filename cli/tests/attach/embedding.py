"""An embedding of Wasmtime that knows nothing of flamewalk.

    embedding.py GUEST [compiled FILE|threads N|crowd N ROUNDS|churn NAMES|short]

runs the command GUEST again and again: as it is; compiled to a file that is mapped; on so many threads, while the main thread
waits for a line on standard input, and ends a few rounds later; on so many threads for so many rounds, after a line on standard
input, and prints how many nanoseconds that has taken on the CPU; as a module that is compiled anew for each round and let go of,
in turn as it is and with these names of functions in capitals, until a line on standard input has it print how many nanoseconds
each of the two has run on the CPU; or once, for a few rounds, after a line on standard input. Prints a line when it has begun.
"""

import ctypes
import gc
import os
import select
import sys
import threading
import time

from wasmtime import Engine, ExitTrap, Linker, Module, Store, WasiConfig

guest, mode, *rest = sys.argv[1:] + ["plain"] * (len(sys.argv) < 3)
engine = Engine()
linker = Linker(engine)
linker.define_wasi()


def run(module, rounds):
    store = Store(engine)
    wasi = WasiConfig()
    wasi.argv = ["guest", "--rounds", str(rounds)]
    store.set_wasi(wasi)
    try:
        linker.instantiate(store, module).exports(store)["_start"](store)
    except ExitTrap:
        pass


def forever(module):
    while True:
        run(module, 100)


if mode == "churn":
    with open(guest, "rb") as file:
        binary = file.read()
    in_capitals = binary
    for name in rest:
        in_capitals = in_capitals.replace(name.encode(), name.upper().encode())
    taken = [0, 0]
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        # One of them longer: a name of the other changes the shares.
        for index, (bytes_of_guest, rounds) in enumerate(((binary, 6), (in_capitals, 2))):
            module = Module(engine, bytes_of_guest)
            begun = time.thread_time_ns()
            run(module, rounds)
            taken[index] += time.thread_time_ns() - begun
            del module
            gc.collect()
    print(*taken, flush=True)
    os._exit(0)

if mode == "compiled":
    compiled = rest[0]
    with open(compiled, "wb") as file:
        file.write(Module.from_file(engine, guest).serialize())
    module = Module.deserialize_file(engine, compiled)
else:
    module = Module.from_file(engine, guest)

# What Wasmtime makes for its first guest is there afterwards.
run(module, 1)
if mode == "crowd":
    number, rounds = map(int, rest)
    # Each processor can have a part of a tick of each thread that is not told.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    may_go = threading.Event()

    def of_crowd(index):
        may_go.wait()
        # Who begins as one and does the same is interrupted by the scheduler and by ticks at the same places of it.
        late = time.thread_time_ns() + index * 100_000
        while time.thread_time_ns() < late:
            pass
        run(module, rounds)

    threads = [threading.Thread(target=of_crowd, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.process_time_ns()
    may_go.set()
    for thread in threads:
        thread.join()
    print(time.process_time_ns() - begun, flush=True)
    sys.exit()

print("ready", flush=True)
if mode == "threads":
    for _ in range(int(rest[0])):
        threading.Thread(target=forever, args=(module,)).start()
    sys.stdin.readline()
    run(module, 10)
    SYS_EXIT = 60
    ctypes.CDLL(None).syscall(SYS_EXIT, 0)
elif mode == "short":
    sys.stdin.readline()
    run(module, 200)
    os._exit(3)
else:
    forever(module)
