"""Threads that take turns at a program's work, so that a profiler can sample some of them and not the others.

The program keeps to one CPU and prints a line. Each line of its standard input says which thread, by its number, does what;
it prints what comes of it. `threads` has it print by what numbers the kernel knows them.
"""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

THREADS = 3


def take_turns(work):
    """Has threads call `work` with the words of each line."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    threads = [ThreadPoolExecutor(1) for _ in range(THREADS)]
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "threads\n":
            print(*[thread.submit(threading.get_native_id).result() for thread in threads], flush=True)
        else:
            thread, *words = line.split()
            print(*threads[int(thread)].submit(work, *words).result(), flush=True)


def timed(call, *arguments):
    """How many nanoseconds a call takes, and how many of them on the CPU."""
    begun, begun_on_cpu = time.perf_counter_ns(), time.thread_time_ns()
    call(*arguments)
    return time.perf_counter_ns() - begun, time.thread_time_ns() - begun_on_cpu
