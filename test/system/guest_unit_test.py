#!/usr/bin/env python3
"""Guests at boot: the command lines of bhyve@.service, as systemd would run them."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time

from harness import (BHYVE, BHYVECTL, BUILD, GRUB_BHYVE, SHELL, SOURCE, Flow, demo_guest, main,
                     make_ext4, tiny_kernel)

NMDM = os.path.join(BUILD, "src/nmdm/nmdm")
UNITS = [os.path.join(BUILD, "share", name) for name in ("bhyve@.service", "nmdm@.service")]
CONF = """# a guest
cpus=1
memory.size={memory}
dir={dir}
pci.0.0.0.device=hostbridge
pci.0.1.0.device=lpc
pci.0.3.0.device=virtio-blk
pci.0.3.0.path=%(dir)/%(name).img
lpc.com1.path={console}
"""


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def prepare(flow):
    """The programs where a unit finds them, and a folder in place of /etc/bhyve."""
    flow.sbin = flow.path("sbin")
    os.mkdir(flow.sbin)
    for program in (BHYVE, BHYVECTL, GRUB_BHYVE, NMDM,
                    os.path.join(SOURCE, "share/host/bhyve-guest")):
        os.symlink(program, os.path.join(flow.sbin, os.path.basename(program)))
    flow.guests = flow.path("guests")
    os.mkdir(flow.guests)
    flow.env["BHYVE_GUESTS"] = flow.guests
    flow.nmdm = flow.path("nmdm")
    os.mkdir(flow.nmdm)
    flow.env["NMDM_DIR"] = flow.nmdm
    with open(UNITS[0], encoding="ascii") as f:
        flow.unit = f.read()


def command(flow, key, name):
    """A command line of the unit, for the instance of this name."""
    line = re.search(rf"^{key}=-?(.*)$", flow.unit, re.M).group(1).replace("%i", name).split()
    return [os.path.join(flow.sbin, os.path.basename(line[0]))] + line[1:]


def configure(flow, name="vm", console="stdio", memory="64M", more=""):
    conf = CONF.format(memory=memory, dir=flow.dir, console=console)
    flow.write(f"guests/{name}.conf", conf.replace("# a guest", f"name={name}") + more)


def disk(flow, code, name="vm.img"):
    make_ext4(flow, name, {"vmlinuz": tiny_kernel(code),
                           "boot/grub/grub.cfg": "linux /vmlinuz\nboot\n"}, size="8M")


def out(port, value, size):
    data = value.to_bytes(size, "little")
    store = b"\xb0" + data + b"\xee" if size == 1 else b"\x66\xb8" + data + b"\x66\xef"
    return b"\xba" + port.to_bytes(4, "little") + store


SAY = b"".join(out(0x3F8, c, 1) for c in b"Hi\r\n")
POWEROFF = SAY + out(0x404, 5 << 10 | 1 << 13, 2) + b"\xfa\xf4"
IDLE = SAY + b"\xfb\xf4\xeb\xfd"


def stop(flow, unit):
    """As systemd does: all processes of the unit are told."""
    pids = subprocess.run(["pgrep", "-f", f"{flow.sbin}|nmdm create .*{flow.nmdm}"], text=True,
                          check=False, stdout=subprocess.PIPE).stdout.split()
    pids += subprocess.run(["pgrep", "-P", str(unit.child.pid)], text=True,
                           check=False, stdout=subprocess.PIPE).stdout.split()
    assert str(unit.child.pid) in pids
    for pid in set(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)


def test_linux(flow: Flow):
    """A Linux guest: check, run, reboot, stop; a client on its null modem sees it all."""
    prepare(flow)
    guest = demo_guest("cloud")
    files = {"boot/grub/grub.cfg": "set timeout=0\nmenuentry Linux {\n"
                                   "linux /boot/vmlinuz quiet\ninitrd /boot/initrd.img\n}\n"}
    for name in ("vmlinuz", "initrd.img"):
        with open(os.path.join(guest, name), "rb") as f:
            files["boot/" + name] = f.read()
    make_ext4(flow, "vm.img", files, size="96M")
    for path in (flow.dir, flow.nmdm):
        os.chmod(path, 0o711)
    pair = f"nmdm{os.getpid()}"
    configure(flow, console=f"/dev/{pair}A", memory="256M",
              more="loader=grub-bhyve -r hd0 -g grub.cfg\n")
    code, text = flow.run(*command(flow, "ExecStartPre", "vm"))
    assert code == 0 and text == "", text
    unit = flow.start(*command(flow, "ExecStart", "vm"))
    unit.expect_exact("loading vm: grub-bhyve -r hd0 -g grub.cfg")
    b = os.path.join(flow.nmdm, pair + "B")
    unit.expect_exact("other end")
    cu = flow.start("/usr/bin/cu", "-l", b, "-s", "9600")
    cu.expect_exact("Connected.")
    cu.expect_exact(SHELL, timeout=300)
    cu.send("reboot\r")
    unit.expect_exact("the guest rebooted", timeout=120)
    unit.expect_exact("loading vm")
    cu.expect_exact("Welcome to GRUB!")
    cu.expect_exact(SHELL, timeout=300)
    time.sleep(0.5)  # the guest's program for the button starts beside its shell
    stop(flow, unit)
    assert unit.wait(timeout=120) == 0, unit.text()
    assert "the guest powered off" in unit.text()
    cu.expect_exact("Power down", timeout=60)  # the pair outlived the guest's last words
    assert flow.objects() == [] and flow.left_behind() == []
    wait_for("the pair goes",
             lambda: os.listdir(flow.nmdm) + os.listdir(flow.nmdm + "/.nmdm") == [".nmdm"])
    cu.expect_exact("Disconnected.")  # and takes its lock away
    assert cu.wait() == 0


def test_ends(flow: Flow):
    """Power-off is an end as it should be; a failed guest is not, and a loader neither."""
    prepare(flow)
    configure(flow)
    for code, want in ((POWEROFF, 0), (SAY + b"\xfa\xf4", 0), (SAY + b"\x0f\x0b", 3)):
        disk(flow, code)
        unit = flow.start(*command(flow, "ExecStart", "vm"))
        unit.expect_exact("Hi")
        assert unit.wait() == want
        assert flow.objects() == (["vm"] if want else [])
        assert flow.left_behind() == []
    make_ext4(flow, "vm.img", {"nothing": "here"}, size="8M")
    code, text = flow.run(*command(flow, "ExecStart", "vm"))
    assert code == 4 and "vm: its loader failed (status 1): grub-bhyve -r hd0" in text, text
    assert flow.left_behind() == []


def test_stop(flow: Flow):
    """A guest without ACPI ends at once; so does one that is still in its loader."""
    prepare(flow)
    configure(flow)
    disk(flow, IDLE)
    unit = flow.start(*command(flow, "ExecStart", "vm"))
    unit.expect_exact("Hi")
    stop(flow, unit)
    assert unit.wait() == 0, unit.text()
    assert flow.objects() == [] and flow.left_behind() == []
    make_ext4(flow, "vm.img", {"nothing": "here"}, size="8M")
    unit = flow.start(*command(flow, "ExecStart", "vm"))
    unit.expect_exact("grub> ")
    stop(flow, unit)
    assert unit.wait() == 0, unit.text()
    assert flow.objects() == [] and flow.left_behind() == []


def test_bad_input(flow: Flow):
    prepare(flow)
    check = command(flow, "ExecStartPre", "vm")[:-1]

    def fails(name, says):
        for argv in (check + [name], command(flow, "ExecStart", name)):
            code, text = flow.run(*argv)
            assert code == 4 and re.search(says, " ".join(text.split())), (argv, code, text)
            assert flow.objects() == [] and flow.left_behind() == []

    fails("vm", f"there is no {flow.guests}/vm.conf")
    fails("..", "cannot name a guest")
    configure(flow)
    fails("vm", rf"vm.conf: pci.0.3.0.path={flow.dir}/vm.img: this image is gone; "
                r"put it back, or correct the line")
    disk(flow, IDLE)
    configure(flow, more="loader=rm -rf /\n")
    fails("vm", "loader=rm -rf /: begins with the name of a loader")
    configure(flow, more="loader=bhyveload\n")
    if not shutil.which("bhyveload"):
        fails("vm", "bhyveload is not installed")
    configure(flow, more="cpus=\n")
    fails("vm", "vm.conf line 10.*cannot be used")
    flow.write("guests/vm.conf", "cpus=1\n")
    fails("vm", "the guest has no devices")
    configure(flow, more="pci.0.4.0.device=ahci\npci.0.4.0.port.0.type=cd\n"
                         "pci.0.4.0.port.0.path=gone.iso\n")
    fails("vm", "pci.0.4.0.port.0.path=gone.iso: this image is gone")
    configure(flow, memory="nonsense")
    code, text = flow.run(*command(flow, "ExecStart", "vm"))
    assert code == 4 and "nonsense" in text, text
    code, text = flow.run(*check)
    assert code == 64 and "usage: bhyve-guest" in text, text


def test_verify(flow: Flow):
    """systemd-analyze finds nothing wrong with the units."""
    prepare(flow)
    for unit in UNITS:
        with open(unit, encoding="ascii") as f:
            text = re.sub(r"=(-?)/\S+/sbin/", rf"=\1{flow.sbin}/", f.read())
        # Manual pages are found only when installed.
        text = re.sub(r"^Documentation=.*\n", "", text, flags=re.M)
        path = flow.write(os.path.basename(unit).replace("@", "@vm1"), text)
        code, out_text = flow.run("systemd-analyze", "verify", path)
        ours = [line for line in out_text.splitlines() if "vm1" in line]
        assert code == 0 and ours == [], out_text
    # It would have found this.
    path = flow.write("wrong.service", "[Service]\nExecStart=/nowhere/at/all\n")
    assert flow.run("systemd-analyze", "verify", path)[0] != 0


if __name__ == "__main__":
    main(test_linux, test_ends, test_stop, test_bad_input, test_verify)
