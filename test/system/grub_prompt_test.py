#!/usr/bin/env python3
"""grub-bhyve at its prompt: commands, ends, the terminal, confinement."""

import gzip
import os
import pty
import signal
import time

import pexpect
from pexpect import fdpexpect

from harness import GRUB_BHYVE, Flow, make_ext4, make_iso, main, plain, tiny_kernel

HALT = b"\xfa\xf4"
INITRD = gzip.compress(os.urandom(50001))
SECOND = gzip.compress(b"second part")
PROMPT = "grub> "


def media(flow):
    make_iso(flow, "linux.iso", {
        "isolinux/vmlinuz": tiny_kernel(HALT),
        "isolinux/initrd.img": INITRD,
        "isolinux/second.img": SECOND,
        "isolinux/text": "hello\n",
        "isolinux/cut": tiny_kernel(HALT)[:700],
    })
    make_ext4(flow, "linux.img", {"etc/motd": "on the disk\n"})
    flow.write("device.map", "# disks\n(hd0) ./linux.img\n\n(cd0)\t./linux.iso \n")


def start(flow, *options):
    media(flow)
    c = flow.start(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "-M", "128M", *options, "vm")
    c.expect_exact(PROMPT)
    return c


def command(c, line):
    """Types a line; what GRUB printed up to the next prompt."""
    c.send(line + "\r")
    c.expect_exact("\n")  # ends the echo
    c.expect_exact(PROMPT)
    return plain(c.child.before)


def test_handbook_lines(flow: Flow):
    c = start(flow)
    assert "(hd0) (cd0) (host)" in command(c, "ls")
    assert "vmlinuz" in command(c, "ls (cd0)/isolinux")
    assert "on the disk" in command(c, "cat (hd0)/etc/motd")
    command(c, 'linux (cd0)/isolinux/vmlinuz root=/dev/vda "x=a b"')
    command(c, "initrd (cd0)/isolinux/initrd.img (cd0)/isolinux/second.img")
    c.send("boot\r")
    assert c.wait() == 0
    c.check_modes()
    assert flow.objects() == ["vm"]
    assert flow.cmdline("vm") == \
        'console=ttyS0 BOOT_IMAGE=(cd0)/isolinux/vmlinuz root=/dev/vda "x=a b"'
    # Joined at multiples of four bytes, and as packed as they were.
    assert flow.initrd("vm") == b"".join(p + bytes(-len(p) % 4) for p in (INITRD, SECOND))
    assert flow.left_behind() == []


def test_errors_keep_the_prompt(flow: Flow):
    c = start(flow)
    assert "not found" in command(c, "linux (cd0)/nothing")
    assert "not a Linux kernel" in command(c, "linux (cd0)/isolinux/text")
    assert "truncated" in command(c, "linux (cd0)/isolinux/cut")
    assert "load a kernel first" in command(c, "initrd (cd0)/isolinux/initrd.img")
    assert "kernel" in command(c, "boot")
    command(c, "linux (cd0)/isolinux/vmlinuz")
    assert "newc:" in command(c, "initrd newc:a:(cd0)/isolinux/text")
    assert "not found" in command(c, "initrd (cd0)/isolinux/none")
    c.send("boot\r")
    assert c.wait() == 0
    assert flow.cmdline("vm") == "console=ttyS0 BOOT_IMAGE=(cd0)/isolinux/vmlinuz"


def test_options(flow: Flow):
    media(flow)
    code, out = flow.run(GRUB_BHYVE, "-n", "-e", "-S", "--device-map=device.map", "--root=(cd0)",
                         "--memory", "64M", "vm",
                         input=b"linux (cd0)/isolinux/vmlinuz a\nboot\n")
    assert code == 0, out
    assert flow.cmdline("vm") == "BOOT_IMAGE=(cd0)/isolinux/vmlinuz a"
    code, out = flow.run(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "vm",
                         input=b"linux (cd0)/isolinux/vmlinuz console=tty0\nboot\n")
    assert code == 0, out
    assert flow.cmdline("vm").startswith("BOOT_IMAGE=")
    code, out = flow.run(GRUB_BHYVE, "--help")
    assert code == 0 and "Examples" in out
    code, out = flow.run(GRUB_BHYVE, "--version")
    assert code == 0 and out.startswith("grub-bhyve ")


def test_ends(flow: Flow):
    media(flow)
    for line, code in ((b"exit\n", 1), (b"halt\n", 0), (b"reboot\n", 0), (b"", 1),
                       (b"ls\n", 1), (b"linux (cd0)/isolinux/vmlinuz\n", 1)):
        got, out = flow.run(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "vm", input=line)
        assert got == code, (line, got, out)
        assert flow.objects() == [], line
        assert flow.left_behind() == []
    assert "input ended" in out


def test_idle_and_interrupt(flow: Flow):
    c = start(flow)
    c.send("\x03")  # ^C is a key like others
    assert "(hd0)" in command(c, "ls")
    children = open(f"/proc/{c.child.pid}/task/{c.child.pid}/children").read().split()
    assert len(children) == 1
    before = ticks(children[0])
    # Nothing is to happen here: that is what is measured.
    assert c.child.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=1.5) == 0
    assert ticks(children[0]) - before < 20, "GRUB spins while it waits for a key"
    os.kill(c.child.pid, signal.SIGTERM)
    assert c.wait() == 1
    c.check_modes()
    assert flow.objects() == [] and flow.left_behind() == []


def ticks(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_killed(flow: Flow):
    """SIGKILL: GRUB goes with its front, and the name can be used again."""
    c = start(flow)
    child = open(f"/proc/{c.child.pid}/task/{c.child.pid}/children").read().split()[0]
    os.kill(c.child.pid, signal.SIGKILL)
    assert c.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and \
            open(f"/proc/{child}/stat").read().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "GRUB outlived grub-bhyve"
    code, out = flow.run(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "vm",
                         input=b"linux (cd0)/isolinux/vmlinuz\nboot\n")
    assert code == 0, out


def test_in_use(flow: Flow):
    c = start(flow)
    code, out = flow.run(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "vm")
    assert code == 1 and f"in use by pid {c.child.pid}" in out, out
    c.send("exit\r")
    assert c.wait() == 1


def test_console_device(flow: Flow):
    """-c: another terminal, as a null modem's end."""
    media(flow)
    master, slave = pty.openpty()
    c = flow.start(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "-c", os.ttyname(slave), "vm")
    there = fdpexpect.fdspawn(master, encoding="latin-1", timeout=30)
    there.expect_exact(PROMPT)
    there.send("linux (cd0)/isolinux/vmlinuz\r")
    there.expect_exact("\n")
    there.expect_exact(PROMPT)
    there.send("boot\r")
    assert c.wait() == 0
    assert PROMPT not in c.text()


def test_confined(flow: Flow):
    """A guest's disk as root: the host's files are out of reach."""
    c = start(flow)
    secret = flow.write("secret", "do not read\n")
    assert "do not read" not in command(c, f"cat (host){secret}")
    assert "root:" not in command(c, "cat (host)/etc/passwd")
    pid = open(f"/proc/{c.child.pid}/task/{c.child.pid}/children").read().split()[0]
    with open(f"/proc/{pid}/status") as f:
        status = dict(line.split(":", 1) for line in f if ":" in line)
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    if os.geteuid() == 0:
        assert "0" not in status["Uid"].split(), status["Uid"]
    c.send("exit\r")
    assert c.wait() == 1


def test_host_root(flow: Flow):
    """-r host -d DIR: a configuration of the host's, as managers of guests make them."""
    media(flow)
    flow.write("conf/grub.cfg", "linux (cd0)/isolinux/vmlinuz from=host\nboot\n")
    code, out = flow.run(GRUB_BHYVE, "-m", "device.map", "-r", "host", "-d", flow.path("conf"),
                         "vm")
    assert code == 0, out
    assert flow.cmdline("vm").endswith("from=host")


if __name__ == "__main__":
    main(test_handbook_lines, test_errors_keep_the_prompt, test_options, test_ends,
         test_idle_and_interrupt, test_killed, test_in_use, test_console_device,
         test_confined, test_host_root)
