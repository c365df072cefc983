#!/usr/bin/env python3
"""vmrun.sh: an installation from CD, reboot into the disk, power-off; its loop and its end."""

import os
import re
import socket

from harness import (BHYVE, BHYVECTL, GRUB_BHYVE, SOURCE, Flow, demo_guest, main, make_ext4,
                     make_iso, tiny_kernel)

VMRUN = os.path.join(SOURCE, "share/examples/vmrun.sh")
DISK_CFG = """
set timeout=0
menuentry Linux {
  linux /boot/vmlinuz quiet from=disk
  initrd /boot/initrd.img
}
"""
TINY_CFG = "linux /vmlinuz\nboot\n"


def out(port, value, size):
    data = value.to_bytes(size, "little")
    store = b"\xb0" + data + b"\xee" if size == 1 else b"\x66\xb8" + data + b"\x66\xef"
    return b"\xba" + port.to_bytes(4, "little") + store


SAY = b"".join(out(0x3F8, c, 1) for c in b"Hi\r\n")
HALT = b"\xfa\xf4"
REBOOT = tiny_kernel(SAY + out(0xCF9, 6, 1) + HALT)
STOP = tiny_kernel(SAY + HALT)
IDLE = tiny_kernel(SAY + b"\xfb\xf4\xeb\xfd")
FAULT = tiny_kernel(SAY + b"\x0f\x0b")


def prepare(flow):
    dirs = [os.path.dirname(p) for p in (BHYVE, BHYVECTL, GRUB_BHYVE)]
    flow.env["PATH"] = ":".join(dirs + [flow.env["PATH"]])


def tiny_disk(flow, name, kernel):
    make_ext4(flow, name, {"vmlinuz": kernel, "boot/grub/grub.cfg": TINY_CFG}, size="8M")


def test_linux(flow: Flow):
    """Installation CD, reboot, disk, power-off: the session of a user with a Linux guest."""
    prepare(flow)
    guest = demo_guest("cloud")
    files = {"boot/grub/grub.cfg": DISK_CFG}
    for name in ("vmlinuz", "initrd.img"):
        with open(os.path.join(guest, name), "rb") as f:
            files["boot/" + name] = f.read()
    make_ext4(flow, "guest disk.img", files, size="96M")
    c = flow.start(VMRUN, "-L", "linux", "-c", "2", "-m", "256M", "-t", "slirp,open",
                   "-d", "guest disk.img", "-i", "-I", os.path.join(guest, "grub.iso"), "vm")
    c.expect_exact("loading vm from")
    c.login()
    text, code = c.sh("cat /proc/cmdline; nproc; ls /sys/bus/virtio/devices")
    assert "from=disk" not in text and text.split("\n")[1] == "2", text
    assert len(text.split("\n")[2].split()) == 2, text  # disk, network
    c.send("reboot\r")
    c.expect(r"loading vm\r")
    c.login()
    text, code = c.sh("cat /proc/cmdline")
    assert code == 0 and "from=disk" in text, text
    c.send("poweroff\r")
    assert c.wait(timeout=120) == 1
    c.check_modes()
    assert flow.objects() == [] and flow.left_behind() == []


def test_loop(flow: Flow):
    """A reboot leads to the disk, a halt ends the loop; an empty disk is installed."""
    prepare(flow)
    tiny_disk(flow, "disk.img", STOP)
    make_iso(flow, "cd.iso", {"vmlinuz": REBOOT, "boot/grub/grub.cfg": TINY_CFG})
    args = [VMRUN, "-L", "linux", "-m", "64M", "-A"]
    c = flow.start(*args, "-d", "disk.img", "-i", "-I", "cd.iso", "vm")
    assert c.wait() == 2
    assert re.findall(r"loading vm.*\n", c.text()) == ["loading vm from cd.iso\n",
                                                       "loading vm\n"], c.text()
    assert c.text().count("Hi") == 2
    assert flow.objects() == [] and flow.left_behind() == []
    # The disk is made, found empty, and after the "installation" still cannot be booted.
    c = flow.start(*args, "-d", "new.img", "-I", "cd.iso", "vm")
    c.expect_exact("made new.img with 8G")
    c.expect_exact("loading vm from cd.iso")
    c.expect(r"loading vm\r")
    c.expect_exact("grub> ")
    c.send("halt\r")
    c.wait()
    assert os.stat(flow.path("new.img")).st_size == 8 << 30
    assert flow.objects() == [] and flow.left_behind() == []


def test_failed_guest_stays(flow: Flow):
    prepare(flow)
    tiny_disk(flow, "disk.img", FAULT)
    c = flow.start(VMRUN, "-L", "linux", "-m", "64M", "-d", "disk.img", "vm")
    assert c.wait() == 3
    assert flow.objects() == ["vm"]
    # And the next run takes its place.
    tiny_disk(flow, "disk.img", STOP)
    c = flow.start(VMRUN, "-L", "linux", "-m", "64M", "-d", "disk.img", "vm")
    assert c.wait() == 2
    assert flow.objects() == []


def test_interrupt(flow: Flow):
    """Control-C where it does not go to the guest: nothing is left, not even in GRUB's menu."""
    prepare(flow)
    tiny_disk(flow, "disk.img", IDLE)
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    c = flow.start(VMRUN, "-L", "linux", "-m", "64M", "-d", "disk.img",
                   "-C", f"tcp=127.0.0.1:{port}", "vm")
    c.expect_exact("engine")
    assert flow.objects() == ["vm"]
    c.send("\x03")
    assert c.wait() in (130, -2)
    c.check_modes()
    assert flow.objects() == [] and flow.left_behind() == []


def test_bad_input(flow: Flow):
    prepare(flow)
    flow.write("empty.img", bytes(1 << 20))
    linux = ["-L", "linux"]
    for argv, says in (
            ([], "usage: vmrun.sh"), (["a", "b"], "usage: vmrun.sh"), (["-Z", "vm"], "usage"),
            (["-L", "netbsd", "vm"], '-L netbsd: "linux" is the only'),
            (["-L", "127.0.0.1", "vm"], "not part of this version"),
            (["-E", "vm"], "-E: UEFI is not part of this version"),
            (["-n", "ne2000", "vm"], "-n ne2000: no such network card; use virtio-net or e1000"),
            (linux + ["-e", "a=b", "vm"], "-e is an option of bhyveload"),
            (["-r", "hd0", "vm"], "only GRUB has a root device; use it with -L linux"),
            (linux + ["-d", "/nowhere/x.img", "vm"], "-d /nowhere/x.img: cannot be made"),
            (linux + ["-d", "empty.img", "vm"],
             "empty.img is to be installed, but the CD ./release.iso is not there")):
        code, text = flow.run(VMRUN, *argv)
        assert code == 1 and says in " ".join(text.split()), (argv, code, text)
        assert flow.objects() == [] and flow.left_behind() == []
    code, text = flow.run(VMRUN, "-h")
    assert code == 0 and "-L linux" in text
    # FreeBSD guests, where their loader is missing.
    flow.env["PATH"] = "/usr/bin:/bin"
    code, text = flow.run(VMRUN, "-d", "empty.img", "vm")
    if code == 1 and "bhyveload, which loads FreeBSD guests, is not installed" not in text:
        assert "release.iso" in text, text  # it is installed on this machine


if __name__ == "__main__":
    main(test_linux, test_loop, test_failed_guest_stays, test_interrupt, test_bad_input)
