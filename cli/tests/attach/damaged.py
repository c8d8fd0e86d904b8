"""An embedding of Wasmtime that knows nothing of flamewalk, beside images of code that are damaged.

    damaged.py alone|beside GUEST

maps images of GUEST as Wasmtime does, each damaged in another way, and waits, or runs GUEST for ever. Prints a line when
it has begun.
"""

import ctypes
import mmap
import random
import signal
import struct
import sys

from wasmtime import Engine, Linker, Module, Store, WasiConfig

PAGE = mmap.PAGESIZE
kept = []


def map_image(image, text):
    """Maps an image with its text executable."""
    size = (len(image) + PAGE - 1) // PAGE * PAGE
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(image)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    kept.append(memory)
    libc = ctypes.CDLL(None, use_errno=True)
    length = (text[1] + PAGE - 1) // PAGE * PAGE
    for start, size, protection in (
        (0, len(memory), mmap.PROT_READ),
        (text[0], length, mmap.PROT_READ | mmap.PROT_EXEC),
    ):
        if libc.mprotect(ctypes.c_void_p(address + start), ctypes.c_size_t(size), protection) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")


def sections(image):
    """Name, place of the header, offset and size of each section."""
    table, = struct.unpack_from("<Q", image, 40)
    size, count, names_index = struct.unpack_from("<HHH", image, 58)
    headers = [table + index * size for index in range(count)]
    names, = struct.unpack_from("<Q", image, headers[names_index] + 24)
    for header in headers:
        name, = struct.unpack_from("<I", image, header)
        start = names + name
        offset, length = struct.unpack_from("<QQ", image, header + 24)
        yield image[start : image.index(0, start)].decode(), header, offset, length


def damaged(image):
    """Copies of the image: garbage behind the header; the second half not written; a text without end; each section full of
    garbage in its turn."""
    noise = random.Random(1)
    yield image[:64] + noise.randbytes(len(image) - 64)
    yield image[: len(image) // 2] + bytes(len(image) - len(image) // 2)
    found = list(sections(image))
    text = next(header for name, header, _, _ in found if name == ".text")
    copy = bytearray(image)
    struct.pack_into("<Q", copy, text + 32, 1 << 62)
    yield copy
    for name, header, offset, length in found:
        kind, = struct.unpack_from("<I", image, header + 4)
        SHT_NOBITS = 8
        if name != ".text" and length > 0 and kind != SHT_NOBITS:
            copy = bytearray(image)
            copy[offset : offset + length] = noise.randbytes(length)
            yield copy


mode, guest = sys.argv[1:]
engine = Engine()
module = Module.from_file(engine, guest)
image = bytes(module.serialize())
text = next((offset, length) for name, _, offset, length in sections(image) if name == ".text")
copies = list(damaged(image))
if mode == "alone":
    # Nothing of this kind is understood, and the intact one goes.
    copies = copies[:1]
    del module
for copy in copies:
    map_image(bytes(copy), text)
if mode == "alone":
    print("ready", flush=True)
    signal.pause()

linker = Linker(engine)
linker.define_wasi()
begun = False
while True:
    store = Store(engine)
    wasi = WasiConfig()
    wasi.argv = ["guest", "--rounds", "100" if begun else "1"]
    store.set_wasi(wasi)
    try:
        linker.instantiate(store, module).exports(store)["_start"](store)
    except Exception as error:
        if type(error).__name__ != "ExitTrap":
            raise
    if not begun:
        print("ready", flush=True)
        begun = True
