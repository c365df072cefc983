#!/usr/bin/env python3
"""bhyveload on a terminal: the menu, the prompt and its commands, ends, bad disks."""

import gzip
import os
import pty
import signal
import struct

from pexpect import fdpexpect

import bsd_media as media
from harness import BHYVE, BUILD, MEM_OFFSET, Flow, main, plain

BHYVELOAD = os.path.join(BUILD, "src/load/bsd/bhyveload")


def files(conf='autoboot_delay="NO"\nbeastie_disable="YES"\n'):
    return {
        "boot/kernel/kernel": media.kernel(),
        "boot/kernel/base.ko": media.module("base"),
        "boot/kernel/top.ko": media.module("top"),
        "boot/kernel.old/kernel": media.kernel(),
        "boot/loader.conf": conf,
        "boot/motd": "line one\nline \x1b[31mtwo\n",
        "boot/long": "".join(f"row {i}\n" for i in range(60)),
        "boot/commands": "# a comment\nset from_file=yes\n@set silent=1\n-load nothing\n",
        "boot/link": ("->", "../boot/motd"),
        "boot/loop": ("->", "loop"),
        "secret": "inside\n",
    }


def start(flow, *options, conf=None):
    image = media.make_ufs(flow, "u.img", files() if conf is None else files(conf))
    c = flow.start(BHYVELOAD, "-m", "64M", "-d", image, *options, "vm")
    if conf is None:
        c.expect_exact("OK ")
    return c


def command(c, line, prompt="OK "):
    c.send(line + "\r")
    c.expect_exact("\n")  # ends the echo
    c.expect_exact(prompt)
    return plain(c.child.before)


def howto(flow):
    """The kernel's howto and arguments in the loaded VM object."""
    with open(os.path.join(flow.vmm, "vm"), "rb") as f:
        f.seek(MEM_OFFSET + 0x1004)
        f.seek(MEM_OFFSET + struct.unpack("<I", f.read(4))[0])
        md = f.read(65536)
    at, args, value = 0, None, None
    while True:
        kind, size = struct.unpack_from("<II", md, at)
        if kind == 0:
            return value, args
        if kind == 6:
            args = md[at + 8:at + 8 + size - 1].decode()
        if kind == 0x8007:
            value, = struct.unpack_from("<I", md, at + 8)
        at += 8 + size + -size % 8


def environment(flow):
    with open(os.path.join(flow.vmm, "vm"), "rb") as f:
        f.seek(MEM_OFFSET)
        memory = f.read(16 << 20)
    at = memory.index(b"LINES=")
    at = memory.rindex(b"\0\0", 0, at) + 2
    return dict(v.split("=", 1) for v in
                memory[at:memory.index(b"\0\0", at)].decode().split("\0"))


def test_commands(flow: Flow):
    c = start(flow)
    out = command(c, "ls /boot")
    assert " d  kernel\n" in out and " l  link\n" in out and "   motd\n" in out, out
    assert "row 1\n" not in out
    assert "motd" in command(c, "ls -l boot/motd")
    out = command(c, "more /boot/link /secret")
    assert "line one\nline ?[31mtwo\ninside\n" in out, out
    assert "loop" in command(c, "ls /boot/loop")
    assert "no such file" in command(c, "more /nothing")
    assert "disk0: whole disk" in command(c, "lsdev")
    assert "UFS" in command(c, "lsdev -v")
    assert "set name=value" in command(c, "set")
    command(c, 'set greeting="a  b"')
    assert "x a  b 'c\n" in command(c, "echo x $greeting \\'c")
    assert "$greeting\n" in command(c, "echo '$greeting'")
    assert "a  b\n" in command(c, "show greeting")
    command(c, "unset greeting")
    assert "not set" in command(c, "show greeting")
    assert "unknown command 'frobnicate'" in command(c, "frobnicate")
    assert "missing" in command(c, 'echo "x')
    assert "boot-conf" in command(c, "?")
    assert "status 2" in command(c, "help reboot")
    assert "set from_file=yes" in command(c, "include /boot/commands")
    assert "yes" in command(c, "show from_file") and "1" in command(c, "show silent")
    assert "load a kernel first" in command(c, "load -t md_image /boot/long")
    assert "load a kernel first" in command(c, "load /boot/kernel/base.ko")
    assert "can't find 'nothing'" in command(c, "load nothing")
    assert "not an ELF file" in command(c, "load /boot/motd")
    command(c, "load kernel")
    assert "loaded already" in command(c, "load /boot/kernel.old/kernel")
    command(c, "load top")
    out = command(c, "lsmod")
    assert "0x200000: /boot/kernel/kernel (elf kernel, " in out and "base.3" in out, out
    command(c, "unload")
    assert command(c, "lsmod").strip() == ""
    assert "is no device" in command(c, "set currdev=disk7:")
    c.send("quit\r")
    assert c.wait() == 1
    c.check_modes()
    assert flow.objects() == []


def test_pager_and_editing(flow: Flow):
    c = start(flow)
    c.send("more /boot/long\r")
    c.expect_exact("--more--")
    assert "row 22" in plain(c.child.before) and "row 23" not in plain(c.child.before)
    c.send("\r")
    c.expect_exact("row 23")
    c.expect_exact("--more--")
    c.send(" ")
    c.expect_exact("--more--")
    c.send("q")
    c.expect_exact("OK ")
    assert "row 59" not in plain(c.child.before)
    c.send("echo abX\x7fc\r")
    c.expect_exact("\nabc\r\n")
    c.expect_exact("OK ")
    c.send("\x1b[A\r")  # the line before
    c.expect_exact("\nabc\r\n")
    c.expect_exact("OK ")
    c.send("echo lost\x15echo kept\r")
    c.expect_exact("\nkept\r\n")
    c.expect_exact("OK ")
    c.send("echo lost\x03")
    c.expect_exact("^C")
    c.expect_exact("OK ")
    os.kill(c.child.pid, signal.SIGTERM)
    assert c.wait() == -signal.SIGTERM
    c.check_modes()


def test_boots(flow: Flow):
    for line, want in (("boot", (0x1000, None)), ("boot -s", (0x1002, "-s")),
                       ("boot-conf -v", (0x1800, "-v")),
                       ("boot kernel.old -s -v", (0x1802, "-s -v")),
                       ("autoboot 0", (0x1000, None))):
        c = start(flow)
        c.send(line + "\r")
        assert c.wait() == 0, line
        c.check_modes()
        assert howto(flow) == want, (line, howto(flow))
        name = "/boot/kernel.old/kernel" if "old" in line else "/boot/kernel/kernel"
        assert environment(flow)["kernelname"] == name
    c = start(flow)
    c.send("autoboot 60 'press it'\r")
    c.expect_exact("press it")
    c.expect_exact("Booting [/boot/kernel/kernel] in 60 seconds...")
    c.send("x")
    c.expect_exact("OK ")
    c.send("reboot\r")
    assert c.wait() == 2
    assert flow.objects() == ["vm"]  # it was there before


def test_menu(flow: Flow):
    conf = 'autoboot_delay="60"\nloader_menu_title="Hello menu"\n'
    c = start(flow, conf=conf)
    c.expect_exact("Hello menu")
    c.expect_exact("1. Boot Multi user [Enter]")
    c.expect_exact("[K]ernel: kernel (1 of 2)")
    c.expect_exact("Autoboot in 60 seconds")
    c.send(" ")
    c.send("k")
    c.expect_exact("[K]ernel: kernel.old (2 of 2)")
    c.send("o")
    c.expect_exact("[A]CPI       : On")
    c.expect_exact("[V]erbose    : off")
    for key, text in (("v", "[V]erbose    : On"), ("a", "[A]CPI       : off"),
                      ("m", "Safe [M]ode  : On"), ("s", "[S]ingle user: On")):
        c.send(key)
        c.expect_exact(text)
    c.send("\x7f")
    c.expect_exact("1. Boot [S]ingle user [Enter]")
    c.send("\r")
    assert c.wait() == 0
    assert howto(flow) == (0x1802, None)
    e = environment(flow)
    assert e["hint.acpi.0.disabled"] == "1" and e["kern.smp.disabled"] == "1"
    assert e["kernelname"] == "/boot/kernel.old/kernel"
    c = start(flow, conf=conf)
    c.expect_exact("Autoboot in")
    c.send("\x1b[A")  # an arrow key is no escape
    c.send("o")
    c.expect_exact("Boot Options:")
    c.send("1r")
    assert c.wait() == 2
    for keys, code in (("r", 2), ("4", 2), ("\x1bquit\r", 1), ("3reboot\r", 2), ("2", 0)):
        c = start(flow, conf=conf)
        c.expect_exact("Autoboot in")
        if len(keys) > 1:
            c.send(keys[0])
            c.expect_exact("OK ")
            keys = keys[1:]
        c.send(keys)
        assert c.wait() == code, keys
        c.check_modes()
    assert howto(flow) == (0x1002, None)


def test_countdown(flow: Flow):
    c = start(flow, conf='autoboot_delay="2"\n')
    c.expect_exact("Autoboot in 2 seconds")
    c.expect_exact("Autoboot in 1 seconds")
    assert c.wait() == 0
    image = media.make_ufs(flow, "u.img", files('autoboot_delay="1"\nbeastie_disable="YES"\n'))
    code, out = flow.run(BHYVELOAD, "-d", image, "vm")
    assert code == 0 and "in 1 second..." in out, out
    code, out = flow.run(BHYVELOAD, "-d", image, "vm2", input=b"x\nquit\n")
    assert code == 1 and flow.objects() == ["vm"], out


def test_options(flow: Flow):
    image = media.make_ufs(flow, "u.img", files('autoboot_delay="-1"\n'))
    text = flow.write("text", "no disk")
    for args, code, said in (
            (["vm", "more"], 64, "one VM name"), ([], 64, "name is missing"),
            (["-m", "12x", "vm"], 64, "not a memory size"), (["-m", "1M", "vm"], 64, "too little"),
            (["-e", "novalue", "vm"], 64, "name=value"), (["-z", "vm"], 64, "Usage"),
            (["-d", "missing", "vm"], 1, "-d missing: No such file"),
            (["-d", text, "vm"], 1, "not a disk image"), (["-d", "/", "vm"], 1, "directory"),
            (["-h", "missing", "vm"], 1, "-h missing"), (["-c", text, "vm"], 1, "not a terminal"),
            (["-l", "/boot/userboot.so", "vm"], 1, "loader built in"),
            (["-e", "currdev=disk9:", "-d", image, "vm"], 1, "no device"),
            (["../vm"], 64, "vmname"), (["vm"], 1, "nothing to load from")):
        got, out = flow.run(BHYVELOAD, *args)
        assert got == code and said in out, (args, got, out)
        assert flow.objects() == [], args
    code, out = flow.run(BHYVELOAD, "-CS", "-m", "64m", "-d", image, "vm")
    assert code == 0, out
    c = start(flow)
    code, out = flow.run(BHYVELOAD, "-d", image, "vm")
    assert code == 1 and f"in use by pid {c.child.pid}" in out, out
    c.send("quit\r")
    assert c.wait() == 1


def test_console_device(flow: Flow):
    """-c: another terminal, as a null modem's end."""
    image = media.make_ufs(flow, "u.img", files())
    master, slave = pty.openpty()
    c = flow.start(BHYVELOAD, "-c", os.ttyname(slave), "-d", image, "vm")
    there = fdpexpect.fdspawn(master, encoding="latin-1", timeout=30)
    there.expect_exact("OK ")
    there.send("boot\r")
    assert c.wait() == 0
    assert "OK " not in c.text()


def test_host_is_confined(flow: Flow):
    """Neither '..' nor links lead out of the host directory."""
    outside = flow.write("outside", "out of reach\n")
    top = media.tree(flow, dict(files(), **{
        "up": ("->", "../outside"), "abs": ("->", outside),
        "passwd": ("->", "/etc/passwd"), "fine": ("->", "/boot/motd")}))
    os.mkfifo(os.path.join(top, "fifo"))
    c = flow.start(BHYVELOAD, "-h", top, "vm")
    c.expect_exact("OK ")
    for path in ("/up", "/abs", "/passwd", "/../outside", "/boot/../../outside",
                 "../../../../etc/passwd", "/proc/self/environ", "/fifo"):
        out = command(c, "more " + path)
        assert "out of reach" not in out and "root:" not in out, (path, out)
        assert path in out, (path, out)  # an error that names it
    assert "line one" in command(c, "more /fine")
    assert "inside" in command(c, "more host0:/boot/../secret")
    with open(f"/proc/{c.child.pid}/status") as f:
        status = dict(line.split(":", 1) for line in f if ":" in line)
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
    c.send("quit\r")
    assert c.wait() == 1


def test_bad_configuration(flow: Flow):
    """Lines that make no sense are named with file and line, the others count."""
    conf = ('autoboot_delay="NO"\nbeastie_disable="YES"\nthis is nothing\n=x\nq="open\n'
            'a="1" b\ngood="yes"\nd="$"\n\nexec="frobnicate"\ntop_load="YES"\n'
            'newer_load="YES"\norphan_load="YES"\ncut_load="YES"\nfile_load="YES"\n'
            'file_type="x"\nfile_name="/none"\nexec="include /boot/self"\n')
    f = files(conf)
    f["boot/self"] = "include /boot/self\n"
    f["boot/kernel/newer.ko"] = media.module("newer")
    f["boot/kernel/orphan.ko"] = media.module("orphan")
    f["boot/kernel/cut.ko"] = media.module("base")[:3000]
    f["boot/kernel/cutz.ko.gz"] = gzip.compress(media.module("base"))[:300]
    c = flow.start(BHYVELOAD, "-d", media.make_ufs(flow, "u.img", f), "vm")
    c.expect_exact("OK ")
    out = plain(c.child.before)
    for line, why in ((3, "no '='"), (4, "no name"), (5, "closing"), (6, "behind the value"),
                      (8, "stray '$'"), (10, "unknown command"), (18, "include within")):
        assert f"/boot/loader.conf:{line}: " in out and why in out, (line, out)
    assert "loader.conf:7:" not in out and "yes" in command(c, "show good")
    command(c, "load kernel")
    assert "in a version from 7 to 9" in command(c, "load newer")
    assert "can't find module 'absent'" in command(c, "load orphan")
    assert "truncated" in command(c, "load cut")
    assert "packed, and damaged" in command(c, "load cutz")
    command(c, "load base")
    c.send("boot-conf\r")
    assert c.wait() == 0
    out = c.text()
    for name in ("newer", "orphan", "cut", "file"):
        assert f"{name}_load: " in out, out


def test_bad_disks(flow: Flow):
    """Damaged kernels and file systems: a sentence and the prompt."""
    for cut in (10, 100, 2000, 5000):
        f = files()
        f["boot/kernel/kernel"] = media.kernel()[:cut]
        image = media.make_ufs(flow, "u.img", f)
        code, out = flow.run(BHYVELOAD, "-d", image, "vm", input=b"boot\n")
        assert code == 1 and "/boot/kernel/kernel: " in out, (cut, out)
    big = bytearray(media.kernel())
    at = struct.unpack_from("<Q", big, 32)[0] + 56
    struct.pack_into("<Q", big, at + 40, 1 << 40)  # p_memsz
    f["boot/kernel/kernel"] = bytes(big)
    code, out = flow.run(BHYVELOAD, "-d", media.make_ufs(flow, "u.img", f), "vm",
                         input=b"boot\n")
    assert code == 1 and "larger than the guest's memory" in out, out
    with open(media.make_ufs(flow, "u.img", files()), "rb") as f:
        whole = f.read()
    told = 0
    for cut in range(4096, 150000, 8192):
        flow.write("cut.img", whole[:cut])
        code, out = flow.run(BHYVELOAD, "-d", "cut.img", "vm",
                             input=b"ls /boot/kernel\nmore /boot/long\nboot\nquit\n")
        assert code in (0, 1), (cut, out)
        told += "cannot be read" in out
    assert told > 0
    pieces = media.gpt([("freebsd-zfs", 2048, 4096)], 8192)
    pieces[2048 + 256] = struct.pack("<Q", 0x00BAB10C)
    code, out = flow.run(BHYVELOAD, "-d", media.join(flow, "z.img", pieces, 8192), "vm")
    assert code == 1 and "disk0p1: is a ZFS pool" in out and "bhyveload -h DIR" in out, out
    pieces[1] = pieces[8191] = b"EFI PART" + bytes(504)
    code, out = flow.run(BHYVELOAD, "-d", media.join(flow, "g.img", pieces, 8192), "vm")
    assert code == 1 and "both GPT headers are damaged" in out, out


def test_guest_runs(flow: Flow):
    """The whole way as a user types it."""
    c = start(flow, conf='autoboot_delay="60"\n')
    c.expect_exact("Autoboot in")
    c.send("1")
    assert c.wait() == 0
    g = flow.start(BHYVE, "-c", "1", "-m", "64M", "-A", "-H", "-P", "-s", "0,hostbridge",
                   "-s", "1,lpc", "-l", "com1,stdio", "vm", timeout=100)
    g.expect_exact("handover: 0 failures")
    assert g.wait() == 1


if __name__ == "__main__":
    main(test_commands, test_pager_and_editing, test_boots, test_menu, test_countdown,
         test_options, test_console_device, test_host_is_confined, test_bad_configuration,
         test_bad_disks, test_guest_runs)
