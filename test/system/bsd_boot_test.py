#!/usr/bin/env python3
"""bhyveload and bhyve: what a kernel finds in memory, from each kind of disk."""

import bz2
import gzip
import lzma
import os
import re

import bsd_media as media
from harness import BHYVE, BUILD, MEM_OFFSET, Flow, main, make_iso

BHYVELOAD = os.path.join(BUILD, "src/load/bsd/bhyveload")
TIERS = ("jit", "interp")
FSTAB = "# comment\n/dev/vtbd0p3\tnone\tswap\tsw\t0 0\n/dev/vtbd0p2 / ufs rw,noatime 1 1\n"


def files(kernel=None, **more):
    out = {
        "boot/kernel/kernel": media.kernel() if kernel is None else kernel,
        "boot/loader.conf": 'autoboot_delay="-1"\n',
        "etc/fstab": FSTAB,
    }
    out.update({k.replace("__", "/"): v for k, v in more.items()})
    return out


class Report:
    """What the test kernel printed."""

    def __init__(self, text, memory):
        self.memory = memory  # as it was loaded
        assert "handover: 0 failures" in text, text[-3000:]
        assert "FAIL" not in text, text
        self.env = dict(re.findall(r"^env ([^=\n]+)=(.*)$", text, re.M))
        self.names = re.findall(r"^env ([^=\n]+)=", text, re.M)
        self.smap = [tuple(int(v, 16) for v in m)
                     for m in re.findall(r"^smap (\w+) (\w+) (\w+)$", text, re.M)]
        self.files = []
        for kind, size, value in re.findall(r"^record (\w+) (\w+) (.*)$", text, re.M):
            if kind == "1":
                self.files.append({"records": []})
            self.files[-1]["records"].append((int(kind, 16), int(size, 16), value))
        for f, part in zip(self.files, re.split(r"^record 1 ", text, flags=re.M)[1:]):
            f["contents"] = int(re.search(r"^contents (\w+)$", part, re.M).group(1), 16)
            f["sections"] = [tuple(int(v, 16) for v in m) for m in
                             re.findall(r"^section (\w+) (\w+) (\w+) (\w+)$", part, re.M)]
            f["symbols"] = [tuple(int(v, 16) for v in m) for m in
                            re.findall(r"^symbols (\w+) (\w+)$", part, re.M)]

    def get(self, n, kind):
        return next(v for k, _, v in self.files[n]["records"] if k == kind)


def boot(flow, *options, memory="128M", tier="jit", more=(), status=1):
    """Loads without a terminal and runs the guest; its report."""
    code, out = flow.run(BHYVELOAD, "-m", memory, *options, "vm")
    assert code == 0, out
    with open(os.path.join(flow.vmm, "vm"), "rb") as f:
        f.seek(MEM_OFFSET)
        loaded = f.read(32 << 20)
    code, text = flow.run(BHYVE, "-o", "cpu.tier=" + tier, "-c", "1", "-m", memory, "-A", "-H",
                          "-s", "0,hostbridge", "-s", "1,lpc", "-l", "com1,stdio", *more, "vm",
                          timeout=120)
    assert code == status, (code, text[-2000:])
    flow.destroy("vm")
    return Report(text, loaded)


def check_kernel(r, data, howto=0x1000, path="/boot/kernel/kernel"):
    addr, image, ssym, symbols = media.kernel_image(data)
    kinds = [k for k, _, _ in r.files[0]["records"]]
    assert kinds[:4] in ([1, 2, 3, 4], [1, 2, 6, 3]), kinds
    assert r.get(0, 1) == path and r.get(0, 2) == "elf kernel"
    assert int(r.get(0, 3), 16) == addr
    assert int(r.get(0, 4), 16) == len(image)
    assert r.memory[addr:addr + len(image)] == image
    assert int(r.get(0, 0x8003), 16) == ssym
    assert int(r.get(0, 0x8004), 16) == addr + len(image)
    assert r.files[0]["symbols"] == symbols
    assert int(r.get(0, 0x8002), 16) == media.fnv(data[:64])
    elf = media.Elf(data)
    assert int(r.get(0, 0x8009), 16) == \
        media.fnv(data[elf.shoff:elf.shoff + 64 * elf.shnum])
    assert int(r.get(0, 0x8007), 16) == howto, r.get(0, 0x8007)
    for kind in (0x8006, 0x8008, 0x9001):
        assert kinds.count(kind) == 1, kinds
    return addr + len(image)


def check_module(r, n, path, data, end, args=None):
    """The n-th file is that module, on the next page behind end; its own end."""
    size, sections = media.module_sections(data)
    at = end + -end % 4096
    assert r.get(n, 1) == path and r.get(n, 2) == "elf obj module"
    assert int(r.get(n, 3), 16) == at and int(r.get(n, 4), 16) == size
    assert r.files[n]["sections"] == sections, (r.files[n]["sections"], sections)
    kinds = [k for k, _, _ in r.files[n]["records"]]
    assert (6 in kinds) == (args is not None)
    if args is not None:
        assert r.get(n, 6) == args
    return at + size


def test_ufs(flow: Flow):
    """UFS1, UFS2 as makefs makes it and as FreeBSD does; both tiers."""
    data = media.kernel()
    for i, (version, options) in enumerate(((1, ""), (2, ""), (2, "bsize=65536,fsize=8192"),
                                            (1, "bsize=4096,fsize=512"))):
        image = media.make_ufs(flow, f"u{i}.img", files(), version, options)
        if "65536" in options:
            media.super_at_64k(image)
        for tier in TIERS if i < 2 else TIERS[:1]:
            r = boot(flow, "-d", image, tier=tier)
            check_kernel(r, data)
            assert len(r.files) == 1
            assert r.smap == [(0, 0xA0000, 1), (0x100000, 0x7F00000, 1)]
            assert r.names == sorted(r.names)
            env = dict(r.env)
            assert env.pop("kernelname") == "/boot/kernel/kernel"
            assert env == {
                "LINES": "24", "boot_serial": "1", "smbios.bios.vendor": "BHYVE",
                "console": "userboot", "autoboot_delay": "-1", "currdev": "disk0:",
                "loaddev": "disk0:", "kernel_path": "/boot/kernel",
                "loader_conf_dirs": "/boot/loader.conf.d",
                "local_loader_conf_files": "/boot/loader.conf.local",
                "module_path": "/boot/kernel;/boot/modules",
                "vfs.root.mountfrom": "ufs:/dev/vtbd0p2",
                "vfs.root.mountfrom.options": "rw,noatime"}, env


def test_large_memory(flow: Flow):
    image = media.make_ufs(flow, "u.img", files())
    r = boot(flow, "-d", image, "-e", "test.one=a b", "-e", "test.two=x=y", memory="3200M")
    assert r.smap == [(0, 0xA0000, 1), (0x100000, 0xBFF00000, 1), (1 << 32, 128 << 20, 1)]
    assert r.env["test.one"] == "a b" and r.env["test.two"] == "x=y"


def test_partitions(flow: Flow):
    """GPT, its copy when the first is damaged, MBR with a disklabel, a disklabel alone."""
    data = media.kernel()
    with open(media.make_ufs(flow, "u.img", files(), 2, size="8m"), "rb") as f:
        ufs = f.read()
    n = len(ufs) // 512
    total = 2048 + n + 64
    pieces = media.gpt([("freebsd-boot", 40, 1000), ("freebsd-ufs", 2048, n)], total)
    pieces[2048] = ufs
    image = media.join(flow, "gpt.img", pieces, total)
    r = boot(flow, "-d", image)
    check_kernel(r, data)
    assert r.env["currdev"] == "disk0p2:"
    pieces[1] = bytes(512)
    r = boot(flow, "-d", media.join(flow, "gpt2.img", pieces, total))
    assert r.env["currdev"] == "disk0p2:"
    label = media.disklabel({"a": (7, 16, n), "c": (0, 0, n + 16), "b": (1, n, 8)})
    image = media.join(flow, "mbr.img", {0: media.mbr([(0x83, 1, 30), (0xA5, 63, n + 16)]),
                                         64: label, 63 + 16: ufs}, 63 + n + 64)
    r = boot(flow, "-d", image)
    check_kernel(r, data)
    assert r.env["currdev"] == "disk0s2a:"
    image = media.join(flow, "bsd.img", {1: label, 16: ufs}, n + 64)
    r = boot(flow, "-d", "gpt.img", "-d", image, "-e", "currdev=disk1a:")
    check_kernel(r, data)
    assert r.env["currdev"] == "disk1a:"


def test_iso_fat_host(flow: Flow):
    data = media.kernel()
    iso = make_iso(flow, "cd.iso", files(boot__kernel__A_rather_long_Name="x"))
    check_kernel(boot(flow, "-d", iso), data)
    for size in (8, 40):
        fat = media.make_fat(flow, f"fat{size}.img", files(), size)
        check_kernel(boot(flow, "-d", fat), data)
    top = media.tree(flow, files(boot__kernel__kernel=("->", "/boot/real/k"),
                                 boot__real__k=data))
    r = boot(flow, "-h", top)
    check_kernel(r, data)
    assert r.env["currdev"] == "host0:"


def test_packed(flow: Flow):
    data = media.kernel()
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)):
        f = files()
        del f["boot/kernel/kernel"]
        f["boot/kernel/kernel" + suffix] = pack(data)
        f["boot/kernel/base.ko" + suffix] = pack(media.module("base"))
        f["boot/loader.conf"] += 'base_load="YES"\n'
        r = boot(flow, "-d", media.make_ufs(flow, "u.img", f, 2))
        end = check_kernel(r, data)
        check_module(r, 1, "/boot/kernel/base.ko", media.module("base"), end)


def test_modules(flow: Flow):
    """What loader.conf asks for, and what that needs, by linker.hints and by name."""
    root = os.urandom(70001)
    f = files()
    f["boot/modules/top.ko"] = media.module("top")
    f["boot/kernel/hinted.ko"] = media.module("base")
    f["boot/kernel/cycle1.ko"] = media.module("cycle1")
    f["boot/kernel/cycle2.ko"] = media.module("cycle2")
    f["boot/kernel/linker.hints"] = media.hints([
        ("base", 9, "missing.ko"), ("base", 3, "hinted.ko"), ("other", 1, "x.ko")])
    f["boot/root.img"] = root
    f["boot/loader.conf"] += ('top_load="YES" # wanted\ntop_flags="-x 1"\ncycle1_load=YES\n'
                              'not_load="NO"\nmd_load="YES"\nmd_type="md_image"\n'
                              'md_name="/boot/root.img"\n')
    r = boot(flow, "-d", media.make_ufs(flow, "u.img", f, 2))
    assert [x["records"][0][2] for x in r.files] == [
        "/boot/kernel/kernel", "/boot/modules/top.ko", "/boot/kernel/hinted.ko",
        "/boot/kernel/cycle1.ko", "/boot/kernel/cycle2.ko", "/boot/root.img"]
    end = check_kernel(r, media.kernel())
    end = check_module(r, 1, "/boot/modules/top.ko", media.module("top"), end, "-x 1")
    end = check_module(r, 2, "/boot/kernel/hinted.ko", media.module("base"), end)
    end = check_module(r, 3, "/boot/kernel/cycle1.ko", media.module("cycle1"), end)
    end = check_module(r, 4, "/boot/kernel/cycle2.ko", media.module("cycle2"), end)
    assert r.get(5, 2) == "md_image" and int(r.get(5, 4), 16) == len(root)
    assert int(r.get(5, 3), 16) == end + -end % 4096
    assert r.files[5]["contents"] == media.fnv(root)


def test_configuration(flow: Flow):
    """Every file of the configuration, in order; howto from variables and arguments."""
    f = files()
    f["boot/defaults/loader.conf"] = (
        'exec="echo told by defaults"\nkernel="kernel"\nbootfile="kernel"\n'
        'module_path="/boot/modules;/boot/more"\nautoboot_delay="-1"\n'
        'loader_conf_files="/boot/device.hints /boot/loader.conf"\n'
        'loader_conf_dirs="/boot/loader.conf.d"\n'
        'local_loader_conf_files="/boot/loader.conf.local"\nlast="defaults"\n')
    f["boot/device.hints"] = 'hint.uart.0.at="isa"\nhint.uart.0.port="0x3F8"\n'
    f["boot/loader.conf"] = (
        'last="conf"\nloader_conf_files="/boot/extra.conf"\nkernel_options="-v"\n'
        'a="one"\nb="${a}-two-$a"\nboot_single="YES"\nboot_verbose="NO"\n')
    f["boot/extra.conf"] = 'extra=1\nloader_conf_files="/boot/extra.conf /boot/extra2.conf"\n'
    f["boot/extra2.conf"] = "extra2=yes"
    f["boot/loader.conf.d/20.conf"] = 'last="d20"\ntwenty="1"\n'
    f["boot/loader.conf.d/10.conf"] = 'last="d10"\nten="1"\n'
    f["boot/loader.conf.d/no.txt"] = 'never="1"\n'
    f["boot/loader.conf.local"] = 'last="local"\nvfs.root.mountfrom="ufs:/dev/md0"\n'
    r = boot(flow, "-d", media.make_ufs(flow, "u.img", f, 1))
    check_kernel(r, media.kernel(), howto=0x1802)
    assert r.get(0, 6) == "-v"
    e = r.env
    assert e["last"] == "local" and e["b"] == "one-two-one" and e["extra"] == "1"
    assert e["extra2"] == "yes" and e["ten"] == "1" and e["twenty"] == "1"
    assert e["hint.uart.0.port"] == "0x3F8" and "never" not in e
    assert "loader_conf_files" not in e
    assert e["module_path"] == "/boot/kernel;/boot/modules;/boot/more"
    assert e["vfs.root.mountfrom"] == "ufs:/dev/md0"


def test_exit_port(flow: Flow):
    """The guest's write to the exit port of -l pc-testdev is bhyve's exit status."""
    disk = media.make_ufs(flow, "u.img", files(), 2)
    for tier in TIERS:
        boot(flow, "-d", disk, "-e", "test.exit=3", tier=tier, more=("-l", "pc-testdev"),
             status=7)
    # Without the device the port is nobody's, and the guest goes on to power off.
    boot(flow, "-d", disk, "-e", "test.exit=3")


if __name__ == "__main__":
    main(test_ufs, test_large_memory, test_partitions, test_iso_fat_host, test_packed,
         test_modules, test_configuration, test_exit_port)
