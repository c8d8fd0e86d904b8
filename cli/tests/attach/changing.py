"""Embeddings of Wasmtime that know nothing of flamewalk, and change while they run.

    changing.py loop     runs one guest for ever
    changing.py unknown  runs, for most of the time, code that it has made itself, and a guest that such code has called, for ever
    changing.py fork     waits for a line, forks, and prints the child's number; the child loads another guest, and runs both
    changing.py unload   loads a guest, runs it, drops module, store and engine, and goes on with another one, for ever; after a
                         line, prints how many nanoseconds each of the two has run on the CPU
    changing.py exec     runs a guest until there is a line, and then becomes another program, which runs for ever

Prints a line when it has begun.
"""

import ctypes
import gc
import mmap
import os
import select
import signal
import sys
import time

from wasmtime import Engine, Instance, Module, Store, wat2wasm

# Two functions that spin, one called by the other. The other one has code of another length.
GUEST = """
(module
  (func $NAME_inner (param $steps i32) (result i32)
    (local $sum i32)
    (loop $next
      (local.set $sum (i32.add (local.get $sum) (i32.mul (local.get $steps) (local.get $sum))))
      MORE
      (local.set $steps (i32.sub (local.get $steps) (i32.const 1)))
      (br_if $next (local.get $steps)))
    (local.get $sum))
  (func $NAME_outer (export "run") (param $calls i32)
    (loop $next
      (drop (call $NAME_inner (i32.const 1000)))
      (local.set $calls (i32.sub (local.get $calls) (i32.const 1)))
      (br_if $next (local.get $calls)))))
"""
SECOND = "(local.set $sum (i32.rotl (local.get $sum) (local.get $steps)))" * 400


def guest(name, more=""):
    return wat2wasm(GUEST.replace("NAME", name).replace("MORE", more))


FIRST_GUEST, SECOND_GUEST = guest("first"), guest("second", SECOND)


def instantiate(engine, module):
    store = Store(engine)
    run = Instance(store, module, []).exports(store)["run"]
    return lambda calls: run(store, calls)


def forever(run):
    while True:
        run(1000)


def fork():
    engine = Engine()
    first = instantiate(engine, Module(engine, FIRST_GUEST))
    # Threads that compile are not in the child.
    serialized = Module(engine, SECOND_GUEST).serialize()
    first(1)
    print("ready", flush=True)
    sys.stdin.readline()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        second = instantiate(engine, Module.deserialize(engine, serialized))
        second(1)
        os.write(writer, b"x")
        while True:
            first(20000)
            second(200)
    os.read(reader, 1)
    print(child, flush=True)
    forever(first)


def unload():
    taken = [0, 0]
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        # Some hundredths of a second each, and one of them longer: a name of the other changes the shares.
        for index, (binary, calls) in enumerate(((FIRST_GUEST, 30000), (SECOND_GUEST, 100))):
            engine = Engine()
            run = instantiate(engine, Module(engine, binary))
            begun = time.thread_time_ns()
            run(calls)
            taken[index] += time.thread_time_ns() - begun
            del run, engine
            gc.collect()
    print(*taken, flush=True)


def exec_other():
    engine = Engine()
    first = instantiate(engine, Module(engine, FIRST_GUEST))
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        first(1000)
    os.execvp("sh", ["sh", "-c", "while :; do :; done"])


def loop():
    engine = Engine()
    first = instantiate(engine, Module(engine, FIRST_GUEST))
    print("ready", flush=True)
    forever(first)


def unknown():
    engine = Engine()
    first = instantiate(engine, Module(engine, FIRST_GUEST))
    first(1)
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # mov rax, rdi; dec rax; jnz back; ret
    spin_code = bytes.fromhex("4889f8 48ffc8 75fb c3")
    # push rbp; call rdi; pop rbp; ret
    code.write(spin_code + bytes.fromhex("55 ffd7 5d c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    spin = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)(address)
    callback = ctypes.CFUNCTYPE(None)
    call = ctypes.CFUNCTYPE(None, callback)(address + len(spin_code))
    run_first = callback(lambda: first(2000))
    print("ready", flush=True)
    while True:
        spin(30_000_000)
        call(run_first)


{"fork": fork, "unload": unload, "unknown": unknown, "loop": loop, "exec": exec_other}[sys.argv[1]]()
