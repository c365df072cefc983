"""Disks for bhyveload's tests: file systems by makefs, xorriso and mtools, partition tables
by hand, and what the test kernel must print of the files on them."""

import os
import shutil
import struct
import subprocess
import tempfile
import zlib

from harness import BUILD

GUEST = os.path.join(BUILD, "test/guest")
SECTOR = 512


def kernel():
    with open(os.path.join(GUEST, "bsd-kernel"), "rb") as f:
        return f.read()


def module(name):
    with open(os.path.join(GUEST, f"bsd-{name}.ko"), "rb") as f:
        return f.read()


def tree(flow, files):
    """A directory of these {path: contents}; a contents ("->", target) is a link."""
    top = tempfile.mkdtemp(dir=flow.dir)
    for path, data in files.items():
        path = os.path.join(top, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(data, tuple):
            os.symlink(data[1], path)
            continue
        with open(path, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
    return top


def make_ufs(flow, name, files, version=2, options="", size="16m"):
    top = tree(flow, files)
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    opt = f"version={version}" + ("," + options if options else "")
    subprocess.run(["makefs", "-s", size, "-t", "ffs", "-o", opt, flow.path(name), top],
                   check=True, env=env, stdout=subprocess.DEVNULL)
    shutil.rmtree(top)
    return flow.path(name)


def super_at_64k(path):
    """UFS2 as FreeBSD makes it: with blocks of 64 KiB the first copy of makefs's superblock
    lies where FreeBSD has the superblock itself."""
    with open(path, "r+b") as f:
        f.seek(65536 + 1372)
        assert f.read(4) == struct.pack("<I", 0x19540119)
        f.seek(65536 + 1000)
        f.write(struct.pack("<q", 65536))
        f.seek(8192)
        f.write(bytes(1376))


def make_fat(flow, name, files, size=40):
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    image = flow.path(name)
    with open(image, "wb") as f:
        f.truncate(size << 20)
    subprocess.run(["mkfs.vfat", *(["-F", "32"] if size >= 40 else []), image], check=True,
                   env=env, stdout=subprocess.DEVNULL)
    top = tree(flow, files)
    for entry in sorted(os.listdir(top)):
        subprocess.run(["mcopy", "-s", "-i", image, os.path.join(top, entry), "::"], check=True,
                       env=dict(env, MTOOLS_SKIP_CHECK="1"))
    shutil.rmtree(top)
    return image


def join(flow, name, pieces, total):
    """An image of {sector: bytes}."""
    with open(flow.path(name), "wb") as f:
        f.truncate(total * SECTOR)
        for at, data in pieces.items():
            f.seek(at * SECTOR)
            f.write(data)
    return flow.path(name)


GUIDS = {
    "freebsd-ufs": bytes.fromhex("b67c6e51cf6ed6118ff800022d09712b"),
    "freebsd-boot": bytes.fromhex("9d6bbd83417fdc11be0b001560b84f0f"),
    "freebsd-zfs": bytes.fromhex("ba7c6e51cf6ed6118ff800022d09712b"),
}


def gpt(parts, total):
    """{sector: bytes} of both headers and tables; parts: (type, first, sectors)."""
    table = b"".join(GUIDS[t] + os.urandom(16) + struct.pack("<QQQ", first, first + n - 1, 0)
                     + bytes(72) for t, first, n in parts)
    table = table.ljust(128 * 128, b"\0")

    def header(here, there, at):
        h = bytearray(struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, here,
                                  there, 34, total - 34, os.urandom(16), at, 128, 128,
                                  zlib.crc32(table)))
        h[16:20] = struct.pack("<I", zlib.crc32(h))
        return bytes(h)

    mbr = bytearray(512)
    mbr[446 + 4] = 0xEE
    mbr[446 + 8:446 + 16] = struct.pack("<II", 1, total - 1)
    mbr[510:512] = b"\x55\xaa"
    return {0: bytes(mbr), 1: header(1, total - 1, 2), 2: table, total - 33: table,
            total - 1: header(total - 1, 1, total - 33)}


def mbr(parts):
    """parts: (type, first, sectors)."""
    b = bytearray(512)
    for i, (kind, first, n) in enumerate(parts):
        b[446 + 16 * i + 4] = kind
        b[446 + 16 * i + 8:446 + 16 * i + 16] = struct.pack("<II", first, n)
    b[510:512] = b"\x55\xaa"
    return bytes(b)


def disklabel(parts):
    """parts: {letter: (type, offset, sectors)}."""
    d = bytearray(512)
    struct.pack_into("<I", d, 0, 0x82564557)
    struct.pack_into("<I", d, 40, 512)
    struct.pack_into("<I", d, 132, 0x82564557)
    struct.pack_into("<H", d, 138, 8)
    for letter, (kind, offset, n) in parts.items():
        at = 148 + 16 * (ord(letter) - ord("a"))
        struct.pack_into("<IIIBBH", d, at, n, offset, 0, kind, 8, 0)
    s = 0
    for i in range(0, 148 + 16 * 8, 2):
        s ^= struct.unpack_from("<H", d, i)[0]
    struct.pack_into("<H", d, 136, s)
    return bytes(d)


def hints(modules):
    """linker.hints of (module, version, file)."""
    out = bytearray(struct.pack("<i", 1))
    for name, version, file in modules:
        r = bytearray(struct.pack("<i", 3))
        r += bytes([len(name)]) + name.encode()
        r += bytes(-(len(out) + 4 + len(r) - 4) % 4)
        r += struct.pack("<i", version) + bytes([len(file)]) + file.encode()
        r += bytes(-len(r) % 4)
        out += struct.pack("<i", len(r)) + r
    return bytes(out)


def fnv(data):
    h = 0x811C9DC5
    for b in data:
        h = (h ^ b) * 0x01000193 & 0xFFFFFFFF
    return h


class Elf:
    def __init__(self, data):
        self.data = data
        (self.shoff,) = struct.unpack_from("<Q", data, 40)
        self.shnum, self.shstrndx = struct.unpack_from("<HH", data, 60)
        keys = ("name", "type", "flags", "addr", "offset", "size", "link", "info", "align", "ent")
        self.sections = [dict(zip(keys, struct.unpack_from("<IIQQQQIIQQ", data,
                                                           self.shoff + 64 * i)))
                         for i in range(self.shnum)]

    def contents(self, s):
        return bytes(s["size"]) if s["type"] == 8 else \
            self.data[s["offset"]:s["offset"] + s["size"]]


def kernel_image(data):
    """Address, size in memory with symbols, contents, and the sums of the symbol tables."""
    elf = Elf(data)
    phoff, = struct.unpack_from("<Q", data, 32)
    phnum, = struct.unpack_from("<H", data, 56)
    image, start = bytearray(), None
    for i in range(phnum):
        kind, _, off, va, _, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", data,
                                                                   phoff + 56 * i)
        if kind != 1:
            continue
        at = va & 0x7FFFFFFF
        start = at if start is None else start
        image = image.ljust(at + memsz - start, b"\0")
        image[at - start:at - start + filesz] = data[off:off + filesz]
    image += bytes(-(start + len(image)) % 8)
    ssym, symbols = start + len(image), []
    symtab = next(s for s in elf.sections if s["type"] == 2)
    for s in (symtab, elf.sections[symtab["link"]]):
        c = elf.contents(s)
        image += struct.pack("<Q", len(c)) + c
        image += bytes(-len(image) % 8)
        symbols.append((len(c), fnv(c)))
    return start, bytes(image), ssym, symbols


def module_sections(data):
    """What the test kernel prints of a module's sections: (index, type, offset, sum)."""
    elf, at, out, placed = Elf(data), 0, [], {}

    def place(i):
        nonlocal at
        s = elf.sections[i]
        at += -at % max(s["align"], 1)
        placed[i] = at
        at += s["size"]

    for i, s in enumerate(elf.sections):
        if s["type"] in (1, 8, 14, 15, 0x70000001) and s["flags"] & 2 and s["size"]:
            place(i)
    symtab = next(i for i, s in enumerate(elf.sections) if s["type"] == 2)
    for i in (symtab, elf.sections[symtab]["link"], elf.shstrndx):
        place(i)
    for i, s in enumerate(elf.sections):
        if s["type"] in (4, 9) and elf.sections[s["info"]]["flags"] & 2:
            place(i)
    for i, s in enumerate(elf.sections):
        if i in placed and s["size"]:
            out.append((i, s["type"], placed[i], fnv(elf.contents(s))))
    return at, out
