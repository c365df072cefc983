#!/usr/bin/env python3
"""How a VM ends and what its object is then, with kernels of a few instructions."""

import os
import signal

from harness import BHYVE, BHYVECTL, GRUB_BHYVE, Flow, main, make_iso, tiny_kernel


def out8(port, value):
    return b"\xba" + port.to_bytes(4, "little") + bytes([0xB0, value]) + b"\xee"


def out16(port, value):
    return (b"\xba" + port.to_bytes(4, "little") + b"\x66\xb8" + value.to_bytes(2, "little") +
            b"\x66\xef")


SAY = b"".join(out8(0x3F8, c) for c in b"Hi\r\n")
HALT = b"\xfa\xf4"
CODE = {
    "reset": SAY + out8(0xCF9, 6) + HALT,
    "poweroff": SAY + out16(0x404, 5 << 10 | 1 << 13) + HALT,
    "halt": SAY + HALT,
    "triple": SAY + b"\x0f\x0b",  # #UD without an IDT
    "ports": b"\xba\x34\x12\x00\x00\xed" + SAY + HALT,
    "spin": SAY + b"\xeb\xfe",
    "idle": SAY + b"\xfb\xf4\xeb\xfd",  # sti; hlt; again
}
MACHINE = ("-A", "-H", "-P", "-s", "0:0,hostbridge", "-s", "1:0,lpc", "-l", "com1,stdio",
           "-m", "128M")


def load(flow, kind, memory="128M"):
    if not os.path.exists(flow.path("kernels.iso")):
        make_iso(flow, "kernels.iso", {name: tiny_kernel(code) for name, code in CODE.items()})
        flow.write("map", "(cd0) kernels.iso\n")
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", memory, "vm",
                         input=f"linux /{kind}\nboot\n".encode())
    assert code == 0, out


def test_codes(flow: Flow):
    for kind, want in (("reset", 0), ("poweroff", 1), ("halt", 2), ("triple", 3)):
        load(flow, kind)
        c = flow.start(BHYVE, *MACHINE, "vm")
        c.expect_exact("Hi")
        got = c.wait()
        assert got == want, (kind, got)
        c.check_modes()
        assert flow.objects() == ["vm"]
    assert flow.destroy("vm")[0] == 0
    assert flow.objects() == []


def test_strict_ports(flow: Flow):
    load(flow, "ports")
    c = flow.start(BHYVE, *MACHINE, "vm")
    c.expect_exact("Hi")  # reads ones and goes on
    assert c.wait() == 2
    load(flow, "ports")
    c = flow.start(BHYVE, "-e", *MACHINE, "vm")
    assert c.wait() == 4
    assert "0x1234" in c.text()


def test_destroy_on_poweroff(flow: Flow):
    load(flow, "poweroff")
    c = flow.start(BHYVE, "-D", *MACHINE, "vm")
    assert c.wait() == 1
    assert flow.objects() == []


def test_used_object(flow: Flow):
    """Not loaded again, never loaded, and of another size: each says what to do."""
    code, out = flow.run(BHYVE, *MACHINE, "vm")
    assert code == 4 and "cannot be booted" in out, out
    load(flow, "halt")
    c = flow.start(BHYVE, *MACHINE, "vm")
    assert c.wait() == 2
    code, out = flow.run(BHYVE, *MACHINE, "vm")
    assert code == 4 and "virtual machine cannot be booted" in out, out
    load(flow, "halt", "64M")
    code, out = flow.run(BHYVE, *MACHINE, "vm")
    assert code == 4 and "64" in out and "128" in out, out
    load(flow, "halt")
    with open(os.path.join(flow.vmm, "vm"), "r+b") as f:
        f.truncate(1 << 20)
    code, out = flow.run(BHYVE, *MACHINE, "vm")
    assert code == 4, out
    assert flow.destroy("vm")[0] == 0
    assert flow.objects() == []


def test_running(flow: Flow):
    """A running VM: others are told; the control socket ends it."""
    load(flow, "idle")
    c = flow.start(BHYVE, *MACHINE, "vm")
    c.expect_exact("Hi")
    pid = c.child.pid
    code, out = flow.run(BHYVE, *MACHINE, "vm")
    assert code == 4 and str(pid) in out, out
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "vm")
    assert code == 1 and f"in use by pid {pid}" in out, out
    code, out = flow.run(BHYVECTL, "--list")
    assert code == 0 and "vm" in out and str(pid) in out, out
    assert flow.run(BHYVECTL, "--force-reset", "--vm=vm")[0] == 0
    assert c.wait() == 0
    load(flow, "idle")
    c = flow.start(BHYVE, *MACHINE, "vm")
    c.expect_exact("Hi")
    assert flow.run(BHYVECTL, "--force-poweroff", "--vm=vm")[0] == 0
    assert c.wait() == 1
    load(flow, "idle")
    c = flow.start(BHYVE, *MACHINE, "vm")
    c.expect_exact("Hi")
    assert flow.destroy("vm")[0] == 0
    assert c.wait() == 4
    assert flow.objects() == []


def test_killed(flow: Flow):
    """SIGKILL leaves an object that can be loaded again, and destroyed."""
    for again in (True, False):
        load(flow, "spin")
        c = flow.start(BHYVE, *MACHINE, "vm")
        c.expect_exact("Hi")
        os.kill(c.child.pid, signal.SIGKILL)
        assert c.wait() == -signal.SIGKILL
        assert flow.objects() == ["vm"]
        if again:
            code, out = flow.run(BHYVE, *MACHINE, "vm")
            assert code == 4 and "cannot be booted" in out, out
            load(flow, "reset")
            c = flow.start(BHYVE, *MACHINE, "vm")
            assert c.wait() == 0
        assert flow.destroy("vm")[0] == 0
        assert flow.objects() == []


if __name__ == "__main__":
    main(test_codes, test_strict_ports, test_destroy_on_poweroff, test_used_object,
         test_running, test_killed)
