#!/usr/bin/env python3
"""grub-bhyve's kopenbsd, knetbsd, kfreebsd, multiboot: every byte a kernel is handed."""

import os
import re
import struct

import bsd_media as media
from bsd_boot_test import Report, check_kernel, check_module
from harness import BHYVE, BUILD, GRUB_BHYVE, Flow, main, make_iso

BASE = 0x400000  # where the test kernel is linked
GDT = struct.pack("<6Q", 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF,
                  0x00008B0068000067, 0)
SELECTORS = {"cs": 0x10, "ds": 0x18, "es": 0x18, "fs": 0x18, "gs": 0x18, "ss": 0x18,
             "tr": 0x20, "ldtr": 0, "gdtr": 0x6000, "gdtr_limit": 47, "idtr_limit": 0,
             "eflags": 2, "cr3": 0, "cr4": 0, "efer": 0, "ecx": 0, "edx": 0, "esi": 0, "edi": 0}
MAP = [(0, 0xA0000), (0x100000, 0x3F00000)]  # of 64 MiB


class Image:
    """The test kernel: its one segment, with headers of any kind."""

    def __init__(self):
        with open(os.path.join(BUILD, "test/guest/flat-kernel"), "rb") as f:
            d = f.read()
        self.entry, phoff, shoff = struct.unpack_from("<III", d, 24)
        _, off, _, _, filesz, self.memsz = struct.unpack_from("<6I", d, phoff)
        self.data = d[off:off + filesz]
        self.symbols = {}
        shnum = struct.unpack_from("<H", d, 48)[0]
        heads = [struct.unpack_from("<10I", d, shoff + 40 * i) for i in range(shnum)]
        for h in heads:
            if h[1] != 2:
                continue
            names = heads[h[6]][4]
            for at in range(h[4], h[4] + h[5], 16):
                name, value = struct.unpack_from("<II", d, at)
                text = d[names + name:d.index(b"\0", names + name)].decode()
                self.symbols[text] = value

    def elf(self, wide=False, high=0, header=b"", extra=()):
        """As ELF32 or ELF64, linked high; header: bytes between ELF's and the segment."""
        phs = [(1, None, BASE + high, len(self.data), self.memsz), *extra]
        at = 4096
        assert len(header) <= 2048
        names = b"\0rd_root_size\0rd_root_image\0"
        values = [(1, self.symbols["rd_root_size"] + high),
                  (14, self.symbols["rd_root_image"] + high)]
        if wide:
            syms = b"".join(struct.pack("<IBBHQQ", n, 1, 0, 1, v, 4) for n, v in values)
        else:
            syms = b"".join(struct.pack("<IIIBBH", n, v, 4, 1, 0, 1) for n, v in values)
        symat = at + len(self.data) + -len(self.data) % 8
        nameat = symat + len(syms)
        shoff = nameat + len(names) + -len(names) % 8
        mask = (1 << (64 if wide else 32)) - 1
        ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
        entry = (self.entry + high) & mask
        if wide:
            head = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, shoff, 0, 64,
                                       56, len(phs), 64, 3, 0)
            head += b"".join(struct.pack("<IIQQQQQQ", t, 7, at if o is None else o, v & mask,
                                         v & mask, f, m, 4096) for t, o, v, f, m in phs)
            sect = [(0,) * 10, (0, 2, 0, 0, symat, len(syms), 2, 0, 8, 24),
                    (0, 3, 0, 0, nameat, len(names), 0, 0, 1, 0)]
            heads = b"".join(struct.pack("<IIQQQQIIQQ", *s) for s in sect)
        else:
            head = ident + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, shoff, 0, 52,
                                       32, len(phs), 40, 3, 0)
            head += b"".join(struct.pack("<8I", t, at if o is None else o, v & mask, v & mask,
                                         f, m, 7, 4096) for t, o, v, f, m in phs)
            sect = [(0,) * 10, (0, 2, 0, 0, symat, len(syms), 2, 0, 4, 16),
                    (0, 3, 0, 0, nameat, len(names), 0, 0, 1, 0)]
            heads = b"".join(struct.pack("<10I", *s) for s in sect)
        assert len(head) <= 1024
        out = head.ljust(1024, b"\0") + header
        out = out.ljust(at, b"\0") + self.data
        return out.ljust(symat, b"\0") + (syms + names).ljust(shoff - symat, b"\0") + heads


class Handover:
    """What the guest printed."""

    def __init__(self, text):
        assert "handover: done" in text, text[-3000:]
        assert "bss zero" in text
        self.regs = {n: int(v, 16) for n, v in re.findall(r"^reg (\w+) (\w+)$", text, re.M)}
        self.low = bytearray(0xA0000)
        for at, data in re.findall(r"^low (\w+) (\w+)$", text, re.M):
            self.low[int(at, 16):int(at, 16) + 64] = bytes.fromhex(data)
        self.pages = {int(at, 16): int(v, 16)
                      for at, v in re.findall(r"^page (\w+) (\w+)$", text, re.M)}

    def check_processor(self, **more):
        for name, value in {**SELECTORS, **more}.items():
            assert self.regs[name] == value, (name, hex(self.regs[name]), hex(value))
        assert self.regs["cr0"] & ~0x30 == 1

    def words(self, at, n):
        return struct.unpack_from(f"<{n}I", self.low, at)

    def check_file(self, at, data):
        """The file lies there, on pages, with zeros behind it."""
        assert at % 4096 == 0
        for i in range(0, len(data), 4096):
            page = data[i:i + 4096].ljust(4096, b"\0")
            assert self.pages[at + i] == media.fnv(page), hex(at + i)

    def check_nothing_else(self, *known):
        """Low memory holds these pieces and zeros, bit by bit."""
        low = bytearray(self.low)
        # The processor marks the descriptors it loads.
        pieces = [(0x6000, GDT), *known]
        for at, data in pieces:
            assert low[at:at + len(data)] == data, (hex(at), low[at:at + len(data)].hex(),
                                                    data.hex())
            low[at:at + len(data)] = bytes(len(data))
        rest = {at for at in range(0, len(low), 16) if any(low[at:at + 16])}
        assert not rest, [hex(v) for v in sorted(rest)]


def load(flow, files, *lines, memory="64M"):
    make_iso(flow, "k.iso", files)
    flow.write("device.map", "(cd0) ./k.iso\n")
    text = "".join(line + "\n" for line in lines) + "boot\n"
    return flow.run(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "-M", memory, "vm",
                    input=text.encode())


def run(flow, memory="64M", tier="jit"):
    code, text = flow.run(BHYVE, "-o", "cpu.tier=" + tier, "-c", "1", "-m", memory, "-A", "-H",
                          "-s", "0,hostbridge", "-s", "1,lpc", "-l", "com1,stdio", "vm",
                          timeout=120)
    assert code == 1, (code, text[-2000:])
    flow.destroy("vm")
    return text


def boot(flow, files, *lines, **more):
    code, out = load(flow, files, *lines)
    assert code == 0, out
    return Handover(run(flow, **more))


def smap(entries):
    return b"".join(struct.pack("<QQI", *e) for e in entries)


def openbsd_args(console):
    memory = smap([(0, 0xA0000, 1), (0xA0000, 0x60000, 2), (0x100000, 0x3F00000, 1), (0, 0, 0)])
    out = b""
    for kind, data in ((0, memory), (5, console), (0xFFFFFFFF, b"")):
        out += struct.pack("<III", kind, 12 + len(data), 0) + data
    return out


def check_openbsd(h, howto, dev, console):
    args = openbsd_args(console)
    esp = 0x80000 - 36
    stack = struct.pack("<9I", Image().entry, howto, dev, 0xE, 0, 0x3F00000 >> 10, 640,
                        len(args), 0x20000)
    h.check_processor(esp=esp, ebp=esp, eax=0, ebx=0)
    h.check_nothing_else((0x20000, args), (esp, stack))


def test_openbsd(flow: Flow):
    """i386 and amd64, each option, both forms of the console argument, the ram disk."""
    image = Image()
    disk = os.urandom(9000)
    files = {"bsd": image.elf(high=0xD0000000),
             "bsd64": image.elf(wide=True, high=0xFFFFFFFF80000000), "rd": disk}
    h = boot(flow, files, "kopenbsd -h com0,115200 -r sd0a /bsd")
    check_openbsd(h, 0x2000, 0xA0000004, struct.pack("<IIQIIII", 8 << 8, 115200, 0x3F8, 0, 0, 0, 0))
    assert h.regs["rd_root_size"] == 12288
    h = boot(flow, files, "kopenbsd -h com1 -l -abc -d -s -r wd3e (cd0)/bsd64",
             "kopenbsd_ramdisk /bsd", "kopenbsd_ramdisk /rd", tier="interp")
    check_openbsd(h, 0x244B, 0xA0030400,
                  struct.pack("<IIII", 8 << 8 | 1, 9600, 0x2F8, 0))
    assert h.regs["rd_root_size"] == len(disk)
    assert h.regs["rd_root_sum"] == media.fnv(disk + bytes(12288 - len(disk)))
    h = boot(flow, files, "kopenbsd /bsd64 --single")
    check_openbsd(h, 2, 0xA0000000,
                  struct.pack("<IIQIIII", 12 << 8, 9600, (1 << 64) - 1, 0, 0, 0, 0))


def test_openbsd_random(flow: Flow):
    """The segment for the kernel's canaries is filled, each time anew, and it is told so."""
    image = Image()
    at = image.symbols["rd_root_image"]
    offset = 4096 + at - BASE
    files = {"bsd": image.elf(extra=[(0x65A3DBE6, offset, at, 256, 256)])}
    boots = [boot(flow, files, "kopenbsd -h com0 /bsd") for _ in range(2)]
    sums = {h.regs["rd_root_sum"] for h in boots}
    plain = media.fnv(b"\x01" + bytes(12287))
    assert len(sums) == 2 and plain not in sums, sums
    check_openbsd(boots[0], 0x12000, 0xA0000000,
                  struct.pack("<IIQIIII", 8 << 8, 9600, 0x3F8, 0, 0, 0, 0))


def netbsd_record(kind, data):
    return struct.pack("<II", 8 + len(data), kind) + data


def netbsd_symbols(image, wide, high):
    """An ELF file of nothing but the kernel's symbols."""
    kernel = image.elf(wide, high)
    shoff = struct.unpack_from("<Q", kernel, 40)[0] if wide else \
        struct.unpack_from("<I", kernel, 32)[0]
    form, size, head = ("<IIQQQQIIQQ", 64, 64) if wide else ("<10I", 40, 52)
    sections = [struct.unpack_from(form, kernel, shoff + size * i) for i in (1, 2)]
    parts = [kernel[s[4]:s[4] + s[5]] for s in sections]
    at = head + 3 * size
    out = kernel[:16] + struct.pack("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH", 2,
                                    62 if wide else 3, 1, 0, 0, head, 0, head, 0, 0, size, 3, 0)
    out += bytes(size)
    out += struct.pack(form, 0, 2, 0, 0, at, len(parts[0]), 2, 0, 0, 24 if wide else 16)
    out += struct.pack(form, 0, 3, 0, 0, at + len(parts[0]), len(parts[1]), 0, 0, 0, 0)
    out += parts[0] + parts[1]
    return out + bytes(-len(out) % 8)


def test_netbsd(flow: Flow):
    image = Image()
    mod, fs = os.urandom(5000), os.urandom(4096)
    files = {"netbsd": image.elf(high=0xC0000000),
             "netbsd64": image.elf(wide=True, high=0xFFFFFFFF80000000), "m.kmod": mod, "fs": fs}
    for kernel, words, howto, root, console in (
            ("netbsd", "-h com0,38400 -r ld0a -1 -2 -v", 0x30020000, b"ld0a",
             (b"com", 0x3F8, 38400)),
            ("netbsd64", "-abcdmqsxz", 0xD124B, b"", (b"pc", 0, 9600)),
            ("netbsd64", "-h 0x2f8", 0, b"", (b"com", 0x2F8, 9600))):
        h = boot(flow, files, f"knetbsd {words} (cd0)/{kernel}",
                 "knetbsd_module_elf (cd0)/m.kmod", "knetbsd_module /fs")
        esp = 0x80000 - 28
        h.check_processor(esp=esp, ebp=esp, eax=0, ebx=0)
        end = BASE + image.memsz
        symbols = netbsd_symbols(image, kernel == "netbsd64",
                                 0xC0000000 if kernel == "netbsd" else 0xFFFFFFFF80000000)
        symat = end + -end % 4096
        at = [symat + len(symbols) + -len(symbols) % 4096]
        at.append(at[0] + 8192)
        records = [netbsd_record(6, console[0].ljust(16, b"\0") + struct.pack("<II", *console[1:]))]
        if root:
            records.append(netbsd_record(1, root.ljust(16, b"\0")))
        records.append(netbsd_record(9, struct.pack("<I", 2) + smap(e + (1,) for e in MAP)))
        records.append(netbsd_record(8, struct.pack("<III", 1, symat, symat + len(symbols))))
        modules = b"/m.kmod".ljust(80, b"\0") + struct.pack("<III", 1, len(mod), at[0])
        modules += b"/fs".ljust(80, b"\0") + struct.pack("<III", 4, len(fs), at[1])
        records.append(netbsd_record(10, struct.pack("<II", 2, at[1] + len(fs)) + modules))
        place, table = 0x20000 + 36, struct.pack("<I", len(records))
        for r in records:
            table += struct.pack("<I", place)
            place += len(r)
        info = table.ljust(36, b"\0") + b"".join(records)
        stack = struct.pack("<7I", image.entry, howto, 0, 0x20000, symat + len(symbols),
                            0x3F00000 >> 10, 640)
        h.check_nothing_else((0x20000, info), (esp, stack))
        h.check_file(symat, symbols)
        h.check_file(at[0], mod)
        h.check_file(at[1], fs)


def mb_header(flags, *more):
    magic = 0x1BADB002
    return struct.pack("<III", magic, flags, -(magic + flags) & 0xFFFFFFFF) + \
        struct.pack(f"<{len(more)}I", *more)


def text_at(h, at):
    return bytes(h.low[at:h.low.index(0, at)]).decode()


def test_multiboot(flow: Flow):
    """ELF32, ELF64 and the header's own addresses; modules; arguments."""
    image = Image()
    mods = [os.urandom(4097), b"", os.urandom(10)]
    offset = 0x100
    own = mb_header(0x10003, BASE - 0x1000 + offset, BASE - 0x1000, BASE + len(image.data),
                    BASE + image.memsz, image.entry)
    files = {"k32": image.elf(header=mb_header(3)), "k64": image.elf(True, header=mb_header(2)),
             "raw": bytes(offset) + own.ljust(0x1000 - offset, b"\0") + image.data + b"behind",
             **{f"m{i}": m for i, m in enumerate(mods)}}
    for kernel in ("k32", "k64", "raw"):
        h = boot(flow, files, f"multiboot /{kernel} one 'two words'", "module /m0 first x=1",
                 "module --nounzip /m1", "module /m2 last")
        h.check_processor(eax=0x2BADB002, ebx=0x20000, esp=0, ebp=0)
        info = h.words(0x20000, 29)
        assert info[:5] == (0x24D, 640, 0x3F00000 >> 10, 0, info[4])
        assert text_at(h, info[4]) == "one two words" and text_at(h, info[16]) == "grub-bhyve"
        assert info[5] == 3 and info[7:11] == (0, 0, 0, 0) and info[11] == 48
        assert not any(info[13:16]) and not any(info[17:])
        assert bytes(h.low[info[12]:info[12] + 48]) == b"".join(
            struct.pack("<IQQI", 20, *e, 1) for e in MAP)
        end = BASE + image.memsz
        for i, args in enumerate(("first x=1", "", "last")):
            start, stop, string, zero = h.words(info[6] + 16 * i, 4)
            assert start == end + -end % 4096 and stop - start == len(mods[i]) and zero == 0
            assert text_at(h, string) == args
            h.check_file(start, mods[i])
            end = stop
        used = max(info[12] + 48, info[6] + 48) - 0x20000
        h.check_nothing_else((0x20000, bytes(h.low[0x20000:0x20000 + used])))


def mb2_header(*tags):
    body = b"".join(t + bytes(-len(t) % 8) for t in tags) + struct.pack("<HHI", 0, 0, 8)
    magic, size = 0xE85250D6, 16 + len(body)
    return struct.pack("<IIII", magic, 0, size, -(magic + size) & 0xFFFFFFFF) + body


def mb2_tag(kind, *words, flags=0):
    return struct.pack("<HHI", kind, flags, 8 + 4 * len(words)) + \
        struct.pack(f"<{len(words)}I", *words)


def test_multiboot2(flow: Flow):
    image = Image()
    mod = os.urandom(3333)
    own = mb2_header(mb2_tag(2, BASE - 0x1000, BASE - 0x1000, 0, BASE + image.memsz),
                     mb2_tag(3, image.entry), mb2_tag(6))
    files = {"k32": image.elf(header=mb2_header(mb2_tag(1, 1, 2, 3, 4, 6), mb2_tag(9, 1, 1))),
             "k64": image.elf(True, header=mb2_header(mb2_tag(5, 0, 0, 32, flags=1))),
             "raw": own.ljust(0x1000, b"\0") + image.data, "m": mod}
    for kernel in ("k32", "k64", "raw"):
        h = boot(flow, files, f"multiboot2 /{kernel} a b", "module2 /m name x")
        h.check_processor(eax=0x36D76289, ebx=0x20000, esp=0, ebp=0)
        at = BASE + image.memsz
        at += -at % 4096
        tags = [(1, b"a b\0"), (2, b"grub-bhyve\0"), (4, struct.pack("<II", 640, 0x3F00000 >> 10)),
                (6, struct.pack("<II", 24, 0) + b"".join(
                    struct.pack("<QQII", *e, 1, 0) for e in MAP)),
                (3, struct.pack("<II", at, at + len(mod)) + b"name x\0"), (0, b"")]
        body = b""
        for kind, data in tags:
            body += struct.pack("<II", kind, 8 + len(data)) + data + bytes(-len(data) % 8)
        h.check_nothing_else((0x20000, struct.pack("<II", 8 + len(body), 0) + body))
        h.check_file(at, mod)


def test_freebsd(flow: Flow):
    """Kernel, module, file, and variables from GRUB and from a file."""
    data, base, root = media.kernel(), media.module("base"), os.urandom(70001)
    files = {"boot/kernel/kernel": data, "boot/kernel/base.ko": base, "boot/root": root,
             "boot/device.hints": '# hints\nhint.uart.0.at="isa"\nhint.uart.0.port="0x3F8"\n\n'
                                  'plain=a b\n'}
    code, out = load(flow, files, "kfreebsd -v --serial /boot/kernel/kernel -snq",
                     "kfreebsd_loadenv /boot/device.hints",
                     "kfreebsd_module_elf (cd0)/boot/kernel/base.ko -x 1",
                     "kfreebsd_module /boot/root type=mfs_root",
                     "kfreebsd_module /boot/device.hints and more",
                     "set kFreeBSD.vfs.root.mountfrom=ufs:/dev/md0", "set kFreeBSDnot=1",
                     memory="3200M")
    assert code == 0, out
    with open(os.path.join(flow.vmm, "vm"), "rb") as f:
        f.seek(0x200000)
        loaded = f.read(32 << 20)
    r = Report(run(flow, memory="3200M"), loaded)
    end = check_kernel(r, data, howto=0x10201802)
    end = check_module(r, 1, "/boot/kernel/base.ko", base, end, "-x 1")
    assert r.get(2, 1) == "/boot/root" and r.get(2, 2) == "mfs_root"
    assert int(r.get(2, 3), 16) == end + -end % 4096 and r.files[2]["contents"] == media.fnv(root)
    assert r.get(3, 2) == "raw" and r.get(3, 6) == "and more" and len(r.files) == 4
    assert r.env == {"hint.uart.0.at": "isa", "hint.uart.0.port": "0x3F8", "plain": "a b",
                     "vfs.root.mountfrom": "ufs:/dev/md0"}, r.env
    assert r.smap == [(0, 0xA0000, 1), (0x100000, 0xBFF00000, 1), (1 << 32, 128 << 20, 1)]


def test_refused(flow: Flow):
    """A sentence for each kind of nonsense, at the prompt; what was loaded stays."""
    image = Image()
    good = image.elf()
    arm = bytearray(good)
    arm[18] = 40
    moved = bytearray(good)
    moved[16] = 3
    files = {"bsd": good, "cut": good[:9000], "head": good[:60], "arm": bytes(arm),
             "dyn": bytes(moved), "text": "hello\n", "empty": "",
             "low": image.elf(high=-BASE + 0x1000),
             "far": image.elf(high=0x4000000),
             "twice": image.elf(extra=[(1, 4096, BASE + 4096, 4096, 4096)]),
             "huge": image.elf(extra=[(1, 4096, 0x1000000, 16, 0x7FFFFFFF)]),
             "small": image.elf(extra=[(1, 4096, 0x1000000, 4096, 16)]),
             "big": bytes(13000), "fill": bytes(40 << 20),
             "video": image.elf(header=mb_header(4)), "odd": image.elf(header=mb_header(8)),
             "mbcut": mb_header(0x10000), "env": "a=1\nnonsense\n", "env2": 'b="x\n',
             "mbtag": image.elf(header=mb2_header(mb2_tag(77))),
             "mbwant": image.elf(header=mb2_header(mb2_tag(1, 14)))}
    kernel = media.kernel()
    files["fbsd"] = kernel
    files["fcut"] = kernel[:5000]
    over = bytearray(kernel)
    at = struct.unpack_from("<Q", kernel, 32)[0]
    over[at + 56 + 16:at + 56 + 24] = kernel[at + 16:at + 24]
    files["fover"] = bytes(over)
    cases = [
        ("kopenbsd", "the file is missing"), ("kopenbsd /none", "not found"),
        ("kopenbsd -y /bsd", "unknown option -y"), ("kopenbsd --yes /bsd", "unknown option --yes"),
        ("kopenbsd -hfoo /bsd", "not a serial port"), ("kopenbsd -h com9 /bsd", "another, /bsd"),
        ("kopenbsd /bsd -r", "root device is wanted"), ("kopenbsd -r sd0 /bsd", "not a disk"),
        ("kopenbsd -r sd16a /bsd", "not a disk"), ("kopenbsd -r ld0a /bsd", "not a disk"),
        ("kopenbsd /cut", "truncated kernel"), ("knetbsd /head", "truncated kernel"),
        ("knetbsd /arm", "another machine"), ("knetbsd /dyn", "not an executable"),
        ("knetbsd /text", "not an ELF file"), ("knetbsd /empty", "not an ELF file"),
        ("knetbsd /low", "below 1 MiB"), ("knetbsd /far", "more with -M"),
        ("kopenbsd /twice", "lies over the kernel"), ("kopenbsd /huge", "more with -M"),
        ("kopenbsd /small", "larger in the file"),
        ("multiboot /bsd", "not a Multiboot kernel"), ("multiboot2 /bsd", "not a Multiboot2"),
        ("multiboot /video", "graphics mode"), ("multiboot /odd", "does not know"),
        ("multiboot /mbcut", "header is cut"), ("multiboot2 /mbtag", "tag 77"),
        ("multiboot2 /mbwant", "type 14"), ("module /text", "with the command multiboot"),
        ("kfreebsd /text", "not an ELF file"), ("kfreebsd /fcut", "truncated"),
        ("kfreebsd /fover", "lie over each other"), ("kfreebsd /bsd", "i386"), ("boot", "kernel"),
        ("kopenbsd /bsd", ""), ("kopenbsd_ramdisk /big", "has room for 12288"),
        ("module2 /text", "with the command multiboot2"), ("knetbsd /bsd", ""),
        ("knetbsd_module /fill", ""), ("knetbsd_module /fill", "larger than the guest's memory"),
        ("kfreebsd /fbsd", ""), ("kfreebsd_loadenv /env", "line 2 is not name=value"),
        ("kfreebsd_loadenv /env2", "no second quote"), ("kfreebsd_module_elf /fbsd", "a kernel"),
        ("kfreebsd_module /fill", ""),
        ("kfreebsd_module /fill", "larger than the guest's memory"),
    ]
    make_iso(flow, "k.iso", files)
    flow.write("device.map", "(cd0) ./k.iso\n")
    c = flow.start(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "-M", "64M", "vm")
    c.expect_exact("grub> ")
    for line, want in cases:
        c.send(line + "\r")
        c.expect_exact("\n")
        c.expect_exact("grub> ")
        out = " ".join(c.child.before.split())
        assert want in out and (want or "error" not in out), (line, want, out)
    c.send("boot\r")
    assert c.wait() == 0
    run(flow)


if __name__ == "__main__":
    main(test_openbsd, test_openbsd_random, test_netbsd, test_multiboot, test_multiboot2,
         test_freebsd, test_refused)
