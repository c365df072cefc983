#!/usr/bin/env python3
"""bhyve -G with Debian's gdb, on a guest of two CPUs that count until they are stopped."""

import os
import re
import socket
import time

from harness import BHYVE, BUILD, GRUB_BHYVE, Flow, main, make_iso

KERNEL = os.path.join(BUILD, "test/guest/guest-debug")
MACHINE = ("-H", "-P", "-c", "2", "-m", "64M", "-s", "0:0,hostbridge", "-s", "1:0,lpc",
           "-l", "com1,stdio")


def load(flow):
    if not os.path.exists(flow.path("k.iso")):
        with open(KERNEL, "rb") as f:
            make_iso(flow, "k.iso", {"kernel": f.read()})
        flow.write("map", "(cd0) k.iso\n")
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "64M", "vm",
                         input=b"multiboot /kernel\nboot\n")
    assert code == 0, out


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Gdb:
    def __init__(self, flow, port):
        self.c = flow.start("/usr/bin/gdb", "-nx", "-q", KERNEL, timeout=30)
        self.c.expect_exact("(gdb) ")
        for line in ("set pagination off", "set confirm off", "set width 0",
                     "set style enabled off", "set startup-with-shell off"):
            self.do(line)
        out = self.do(f"target remote 127.0.0.1:{port}")
        assert f"Remote debugging using 127.0.0.1:{port}" in out, out

    def do(self, command, *wants):
        """What the command prints, in which each of these patterns occurs."""
        self.c.send(command + "\n")
        self.c.expect_exact("(gdb) ")
        out = self.c.child.before.replace("\r", "").split("\n", 1)[-1]
        for want in wants:
            assert re.search(want, out), f"{command}: no {want!r} in:\n{out}"
        return out

    def number(self, expression):
        return int(re.search(r"= (-?\d+)", self.do(f"print/d {expression}")).group(1))

    def interrupt(self):
        self.c.send("\3")
        self.c.expect_exact("(gdb) ")
        return self.c.child.before


def debug(flow, tier):
    load(flow)
    port = free_port()
    vm = flow.start(BHYVE, "-G", f"w127.0.0.1:{port}", "-o", f"cpu.tier={tier}", *MACHINE, "vm")
    vm.expect_exact("waiting for a debugger")
    gdb = Gdb(flow, port)
    # Before the first instruction.
    gdb.do("print $pc", r"_start>")
    assert gdb.number("$pc == &_start") == 1 and gdb.number("counter") == 0
    gdb.do("info threads", r"\* 1 .*vCPU 0\)", r"  2 .*vCPU 1 \(not started\)")
    # Breakpoints, the stack, memory.
    gdb.do("break leaf")
    for i in range(3):
        gdb.do("continue", "Breakpoint 1, leaf")
        assert gdb.number("counter") == i
    gdb.do("backtrace", "#0 +leaf", "#1 .*guest_main")
    gdb.do("finish", "guest_main")
    assert gdb.number("counter") == 3
    gdb.do("set var counter = 1000000")
    gdb.do("continue", "Breakpoint 1, leaf")
    assert gdb.number("counter") == 1000000
    # Steps.
    pc = gdb.number("$pc")
    gdb.do("stepi")
    assert 0 < gdb.number("$pc") - pc < 16
    gdb.do("next")
    gdb.do("info registers", r"rip +0x[0-9a-f]+ +0x[0-9a-f]+ <", r"cr0 +0x80010033",
           r"efer +0xd01", r"eflags +0x[0-9a-f]+ +\[", r"gs_base", r"cs +0x8")
    gdb.do("info registers xmm0 st0 mxcsr", "v4_float", "st0", "0x1f80")
    # Registers that are written are used.
    gdb.do("tbreak leaf")
    gdb.do("continue", "leaf")
    gdb.do("set var $rdi = 7")
    gdb.do("delete")
    gdb.do("finish", "= 21")
    # A watchpoint.
    gdb.do("set var counter = 0x1fff0")
    gdb.do("watch watched", "Hardware watchpoint")
    gdb.do("continue", "Hardware watchpoint", "New value = 131072")
    gdb.do("delete")
    # The other CPU is a thread.
    gdb.do("hbreak other")
    gdb.do("continue", "Thread 2 hit Breakpoint.* other")
    gdb.do("info threads", r"  1 .*vCPU 0", r"\* 2 .*vCPU 1\) +other")
    gdb.do("backtrace", "#1 .*guest_main")
    gdb.do("thread 1", "guest_main|leaf")
    gdb.do("delete")
    # One runs while the other stands still.
    gdb.do("set scheduler-locking on")
    before = gdb.number("other_counter")
    gdb.do("break leaf")
    gdb.do("continue", "Breakpoint")
    assert gdb.number("other_counter") == before
    gdb.do("set scheduler-locking off")
    gdb.do("delete")
    # Both run, until Control-C; on a busy host the other one may need its time.
    for delay in 0.1, 1, 5, 10:
        gdb.c.send("continue\n")
        gdb.c.expect_exact("Continuing.")
        time.sleep(delay)
        assert "SIGINT" in gdb.interrupt()
        if gdb.number("other_counter") > before:
            break
    else:
        raise AssertionError("the other vCPU did not run")
    # Nothing is mapped above 4 GiB.
    gdb.do("x/x 0x123456789000", "Cannot access memory")
    gdb.do("print/x *(unsigned *)0xfee00030", "0x50014")
    # A second one is turned away; the first stays.
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(20)
        assert s.recv(1) == b""
    # It goes, the guest goes on; another one comes.
    count = gdb.number("counter")
    gdb.do("detach", "detached")
    gdb.c.kill()
    gdb = Gdb(flow, port)
    assert gdb.number("counter") > count
    gdb.do("break leaf")
    gdb.do("continue", "leaf")
    # Even when it is killed, with a breakpoint set.
    gdb.c.kill()
    gdb = Gdb(flow, port)
    gdb.do("set var stop = 1")
    gdb.do("continue", "[Rr]emote connection closed")
    vm.expect_exact("stopped")
    assert vm.wait() == 1
    gdb.c.kill()


def test_debug(flow: Flow):
    for tier in ("jit", "interp"):
        debug(flow, tier)


def test_kill(flow: Flow):
    """Without "w" the guest runs at once; "kill" is a power-off."""
    load(flow)
    port = free_port()
    vm = flow.start(BHYVE, "-G", str(port), *MACHINE, "vm")
    vm.expect_exact("counting")
    gdb = Gdb(flow, port)
    assert gdb.number("counter") > 0
    gdb.do("kill", "killed")
    assert vm.wait() == 1


def test_stopped_guest_ends(flow: Flow):
    """A VM that the debugger holds obeys bhyve's signals all the same."""
    load(flow)
    port = free_port()
    vm = flow.start(BHYVE, "-G", f"w{port}", *MACHINE, "vm")
    vm.expect_exact("waiting for a debugger")
    gdb = Gdb(flow, port)
    code, out = flow.run("/usr/bin/env", "kill", "-TERM", str(vm.child.pid))
    assert code == 0, out
    vm.wait()
    assert "has not enabled ACPI" in vm.text()
    gdb.c.kill()


def test_port_in_use(flow: Flow):
    load(flow)
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        code, out = flow.run(BHYVE, "-G", f"127.0.0.1:{port}", *MACHINE, "vm")
        assert code == 4 and f"port {port} of 127.0.0.1 is in use" in out, out
    code, out = flow.run(BHYVE, "-G", "192.0.2.1:1234", *MACHINE, "vm")
    assert code == 4 and "cannot listen on port 1234 of 192.0.2.1" in out, out


if __name__ == "__main__":
    main(test_debug, test_kill, test_stopped_guest_ends, test_port_in_use)
