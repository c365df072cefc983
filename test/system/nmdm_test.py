#!/usr/bin/env python3
"""Null modems with real clients: cu, screen, picocom and tmux, and the programs between."""

import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
import tty

from harness import BHYVE, BUILD, GRUB_BHYVE, Flow, main, make_iso, tiny_kernel

NMDM = os.path.join(BUILD, "src/nmdm/nmdm")
BASE = ["-A", "-H", "-s", "0,hostbridge", "-s", "1,lpc", "-m", "64M"]
LOCKS = "/var/lock"
CTRL_C = "\x03"


def out8(port, value):
    return b"\xba" + port.to_bytes(4, "little") + bytes([0xB0, value]) + b"\xee"


# Says "Hi", then sends back every byte it receives; 'R' reboots, 'P' powers off.
ECHO = (b"".join(out8(0x3F8, c) for c in b"Hi\r\n") +
        b"\x66\xba\xfd\x03\xec\xa8\x01\x74\xf7"  # 1: in(0x3fd) & 1, or again
        b"\x66\xba\xf8\x03\xec\xee"              # out(0x3f8, in(0x3f8))
        b"\x3c\x52\x74\x06"                      # 'R'
        b"\x3c\x50\x74\x0b\xeb\xe7"              # 'P', or back to 1
        + out8(0xCF9, 6) + b"\xf4\x90\x90"
        + b"\xba\x04\x04\x00\x00\x66\xb8\x00\x34\x66\xef\xf4")


def prepare(flow):
    make_iso(flow, "echo.iso", {"vmlinuz": tiny_kernel(ECHO)})
    flow.write("map", "(cd0) echo.iso\n")
    flow.nmdm = flow.path("nmdm")
    os.mkdir(flow.nmdm)
    # cu becomes another user when root starts it.
    for path in (flow.dir, flow.nmdm):
        os.chmod(path, 0o711)
    flow.env["NMDM_DIR"] = flow.nmdm
    # Lock files of clients are everybody's: a name of our own.
    flow.pair = f"nmdm{os.getpid()}"
    flow.a = f"/dev/{flow.pair}A"
    flow.b = os.path.join(flow.nmdm, flow.pair + "B")


def load(flow, vm="vm"):
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "64M", vm,
                         input=b"linux /vmlinuz\nboot\n")
    assert code == 0, out


def bhyve(flow, vm="vm", end=None):
    load(flow, vm)
    return flow.start(BHYVE, *BASE, "-l", "com1," + (end or flow.a), vm)


@contextlib.contextmanager
def created(flow):
    """A pair made by hand; its name without "nmdm"."""
    name = flow.pair[len("nmdm"):]
    code, out = flow.run(NMDM, "create", name)
    assert code == 0 and out == "", out
    try:
        yield name
    finally:
        code, out = flow.run(NMDM, "destroy", name)
        assert code == 0 and out == "", out
    assert os.listdir(flow.nmdm) == [".nmdm"]


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def gone(flow):
    """Nothing is left of the pair once both ends are closed."""
    wait_for("the pair goes", lambda: os.listdir(flow.nmdm) == [".nmdm"], 30)
    assert os.listdir(os.path.join(flow.nmdm, ".nmdm")) == []


def open_raw(path, local=True):
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd, termios.TCSANOW)
    modes = termios.tcgetattr(fd)
    modes[2] = modes[2] | termios.CLOCAL if local else modes[2] & ~termios.CLOCAL
    termios.tcsetattr(fd, termios.TCSANOW, modes)
    return fd


def read_all(fd, length, seconds=20):
    got = b""
    os.set_blocking(fd, False)
    end = time.monotonic() + seconds
    while len(got) < length and time.monotonic() < end:
        try:
            got += os.read(fd, 65536)
        except BlockingIOError:
            time.sleep(0.01)
    return got


def test_cu(flow: Flow):
    """bhyve first, then cu; bhyve again under the same cu; cu again under the same bhyve."""
    prepare(flow)
    guest = bhyve(flow)
    guest.expect_exact(f'other end is {flow.b}; for example "cu -l {flow.b}"')
    cu = flow.start("/usr/bin/cu", "-l", flow.b, "-s", "9600")
    cu.expect_exact("Connected.")
    cu.expect_exact("Hi")  # said before cu came
    cu.send("one")
    cu.expect_exact("one")
    cu.send("R")
    assert guest.wait() == 0
    guest = bhyve(flow)
    cu.expect_exact("Hi")
    cu.send("two\r")
    cu.expect_exact("two")
    cu.send("~.")
    cu.expect_exact("Disconnected.")
    assert cu.wait() == 0
    again = flow.start("/usr/bin/cu", "-l", flow.b, "-s", "9600")
    again.expect_exact("Connected.")
    again.send("bye")
    again.expect_exact("bye")
    code, out = flow.run(NMDM, "list")
    assert code == 0 and re.search(rf"{flow.pair}A +process \d+ \(bhyve\)", out), out
    assert re.search(rf"{flow.pair}B +process \d+ \(cu\)", out), out
    again.send("P")
    assert guest.wait() == 1
    b = os.open(flow.b, os.O_RDWR | os.O_NOCTTY)
    local = termios.tcgetattr(b)[2] & termios.CLOCAL
    os.close(b)
    # Debian's cu sets CLOCAL on some days and not on others.
    if local:
        again.send("\r~.")
    else:
        again.expect_exact("hangup signal")
    assert again.wait() == 0
    gone(flow)


def test_client_first(flow: Flow):
    """The pair made by hand; what is typed before the guest is there reaches it."""
    prepare(flow)
    with created(flow) as name:
        code, out = flow.run(NMDM, "create", name)  # again: it is there
        assert code == 0 and out == "", out
        cu = flow.start("/usr/bin/cu", "-l", flow.b, "-s", "9600")
        cu.expect_exact("Connected.")
        cu.send("early")
        guest = bhyve(flow)
        cu.expect_exact("early")
        cu.send("P")
        assert guest.wait() == 1
        cu.send("\r~.")
        assert cu.wait() == 0
        time.sleep(0.1)
        assert os.path.islink(flow.b)
    code, out = flow.run(NMDM, "destroy", name)
    assert code == 1 and "there is no null modem" in out, out


def test_other_clients(flow: Flow):
    """picocom and screen, each after the other on the same guest."""
    prepare(flow)
    guest = bhyve(flow)
    guest.expect_exact("other end")
    pico = flow.start("/usr/bin/picocom", "-b", "9600", flow.b)
    pico.expect_exact("Terminal ready")
    pico.send("first")
    pico.expect_exact("first")
    pico.send("\x01\x18")
    assert pico.wait() == 0
    flow.env["SCREENDIR"] = flow.path("screens")
    os.mkdir(flow.env["SCREENDIR"], 0o700)
    screen = flow.start("/usr/bin/screen", flow.b, "9600")
    time.sleep(0.5)  # its first output clears the screen
    screen.send("second")
    screen.expect_exact("second")
    screen.send("\x01\x04")  # detached: the line stays open
    screen.expect_exact("detached")
    assert screen.wait() == 0
    screen = flow.start("/usr/bin/screen", "-r")
    screen.expect_exact("second")
    screen.send("else")
    screen.expect_exact("else")
    screen.send("P")
    assert guest.wait() == 1
    flow.run("/usr/bin/screen", "-X", "quit")
    screen.wait()
    gone(flow)


def test_tmux(flow: Flow):
    """The Handbook's way without a null modem: bhyve on the terminal of a detached tmux."""
    prepare(flow)
    load(flow)
    server = flow.path("tmux.socket")

    def tmux(*args):
        return flow.run("/usr/bin/tmux", "-S", server, "-f", "/dev/null", *args)

    line = " ".join([BHYVE, *BASE, "-l", "com1,stdio", "vm"]) + "; echo status $?; read x"
    code, out = tmux("new-session", "-d", "-s", "guest", "-x", "80", "-y", "24", line)
    assert code == 0, out
    try:
        wait_for("the guest speaks", lambda: "Hi" in tmux("capture-pane", "-p")[1])
        attached = flow.start("/usr/bin/tmux", "-S", server, "attach", "-t", "guest")
        attached.expect_exact("Hi")
        attached.send("typed")
        attached.expect_exact("typed")
        time.sleep(0.2)  # keys that come at once are taken for a paste
        attached.send("\x02")
        time.sleep(0.2)
        attached.send("d")
        attached.expect_exact("detached")
        assert attached.wait() == 0
        tmux("send-keys", "-t", "guest", "P")
        wait_for("the guest ends", lambda: "status 1" in tmux("capture-pane", "-p")[1])
    finally:
        tmux("kill-server")


def test_tcp(flow: Flow):
    """bhyve's tcp= form: one client after the other."""
    prepare(flow)
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    guest = bhyve(flow, end=f"tcp=127.0.0.1:{port}")
    guest.expect_exact("engine")
    for keys in (b"one", b"two", b"xP"):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
            s.sendall(keys)
            got = b""
            while keys[:2] not in got:
                data = s.recv(100)
                assert data, got
                got += data
    assert guest.wait() == 1


def test_nothing_is_lost(flow: Flow):
    """Bytes wait for a closed end; a full ring keeps the newest; a slow reader blocks."""
    prepare(flow)
    with created(flow):
        lose_nothing(flow)


def lose_nothing(flow):
    a_path = flow.b[:-1] + "A"
    a = open_raw(a_path)
    data = os.urandom(50000)
    rest = data
    while rest:
        rest = rest[os.write(a, rest):]
    os.close(a)
    b = open_raw(flow.b)
    # As cu does when it sets its modes.
    termios.tcflush(b, termios.TCIFLUSH)
    assert read_all(b, len(data)) == data
    # In pieces, with the reader away in between.
    a = open_raw(a_path)
    for i in range(5):
        os.write(a, b"piece %d\n" % i)
        if i == 2:
            os.close(b)
    b = open_raw(flow.b)
    want = b"".join(b"piece %d\n" % i for i in range(5))
    got = read_all(b, len(want))
    assert got == want, got
    # An open end that does not read stops the writer after a bounded amount.
    os.set_blocking(a, False)
    sent = 0
    quiet = 0
    while quiet < 20:
        try:
            sent += os.write(a, bytes(4096))
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.05)
        assert sent < 1 << 20, "a slow reader does not stop the writer"
    assert read_all(b, sent) == bytes(sent)
    # A closed end never does, and what comes last is kept.
    os.close(b)
    time.sleep(0.3)
    os.set_blocking(a, True)
    for i in range(50):
        os.write(a, b"%4095d\n" % i)
    os.close(a)
    b = open_raw(flow.b)
    got = read_all(b, 1 << 20, 2)
    assert len(got) >= 65536, len(got)
    assert b"".join(b"%4095d\n" % i for i in range(50)).endswith(got)
    os.close(b)


def test_hang_up(flow: Flow):
    """Who minds the carrier is hung up when the other end stays closed."""
    prepare(flow)
    guest = bhyve(flow)
    guest.expect_exact("other end")
    minds = open_raw(flow.b, local=False)
    assert read_all(minds, 4) == b"Hi\r\n"
    os.set_blocking(minds, True)
    os.write(minds, b"xP")
    assert guest.wait() == 1
    got = b""
    while True:  # ends when the line is hung up
        try:
            data = os.read(minds, 100)
        except OSError:
            break
        if not data:
            break
        got += data
    assert got == b"xP", got
    os.close(minds)
    # The pair lives on: the next guest and client find each other.
    guest = bhyve(flow)
    guest.expect_exact("other end")
    b = open_raw(flow.b)
    assert read_all(b, 4) == b"Hi\r\n"
    os.write(b, b"P")
    assert guest.wait() == 1
    os.close(b)
    # A shell whose terminal it is gets SIGHUP.
    guest = bhyve(flow)
    guest.expect_exact("other end")
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.setsid()
        fd = os.open(flow.b, os.O_RDWR)
        fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
        os.write(fd, b"P")
        time.sleep(60)
        os._exit(0)
    assert guest.wait() == 1
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGHUP
    gone(flow)


def test_grub_on_the_line(flow: Flow):
    """Loader and guest on the same null modem, one client for both."""
    prepare(flow)
    with created(flow):
        cu = flow.start("/usr/bin/cu", "-l", flow.b, "-s", "9600")
        cu.expect_exact("Connected.")
        grub = flow.start(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "64M", "-c", flow.a, "vm")
        cu.expect_exact("grub> ")
        cu.send("linux /vmlinuz\r")
        cu.expect_exact("grub> ")
        cu.send("boot\r")
        assert grub.wait() == 0
        guest = flow.start(BHYVE, *BASE, "-l", "com1," + flow.a, "vm")
        cu.expect_exact("Hi")
        cu.send("P")
        assert guest.wait() == 1
        cu.send("\r~.")
        assert cu.wait() == 0


def test_two_guests(flow: Flow):
    """Two guests on the two ends talk; two on one end do not."""
    prepare(flow)
    one = bhyve(flow)
    one.expect_exact("other end")
    load(flow, "vm2")
    code, out = flow.run(BHYVE, *BASE, "-l", "com1," + flow.a, "vm2")
    out = " ".join(out.split())
    assert code == 4, out
    assert re.search(rf"-l com1: {flow.a} is in use by process {one.child.pid} "
                     r"\(bhyve\).*use another pair", out), out
    b = open_raw(flow.b)
    os.write(b, b"P")
    assert one.wait() == 1
    os.close(b)
    code, out = flow.run(BHYVE, *BASE, "-l", f"com1,{flow.a}", "-l", f"com2,{flow.a}", "vm2")
    assert code == 4 and "is in use by" in " ".join(out.split()), out
    gone(flow)


def test_locks(flow: Flow):
    """A dead client's lock goes with a warning; a living one's counts."""
    prepare(flow)
    dead = subprocess.Popen(["/bin/true"])
    dead.wait()
    lock_a = os.path.join(LOCKS, f"LCK..{flow.pair}A")
    lock_b = os.path.join(LOCKS, f"LCK..{flow.pair}B")
    if not os.access(LOCKS, os.W_OK):
        print("skip ", LOCKS, "is not ours to write to")
        return
    try:
        with open(lock_b, "w", encoding="ascii") as f:
            f.write(f"{dead.pid:10d}\n")
        guest = bhyve(flow)
        guest.expect(rf"removed {lock_b}: process {dead.pid}[^:]* is\s+gone")
        assert not os.path.exists(lock_b)
        guest.expect_exact("other end")
        guest.kill()
        with open(lock_a, "w", encoding="ascii") as f:
            f.write(f"{os.getpid():10d}\n")
        load(flow)
        code, out = flow.run(BHYVE, *BASE, "-l", "com1," + flow.a, "vm")
        assert code == 4, out
        assert f"{flow.a} is in use by process {os.getpid()}" in " ".join(out.split()), out
    finally:
        for path in (lock_a, lock_b):
            if os.path.exists(path):
                os.unlink(path)
    gone(flow)


def test_killed_keeper(flow: Flow):
    """A keeper that was killed leaves links behind; the next one takes their place."""
    prepare(flow)
    guest = bhyve(flow)
    guest.expect_exact("other end")
    keeper = int(re.search(r"\d+", subprocess.check_output(
        ["pgrep", "-f", f"nmdm create .*{flow.nmdm} {flow.pair}"], text=True)).group())
    os.kill(keeper, signal.SIGKILL)
    guest.expect_exact("the terminal's other end is gone")
    guest.kill()
    assert os.path.islink(flow.b)
    guest = bhyve(flow)
    guest.expect_exact("other end")
    b = open_raw(flow.b)
    assert read_all(b, 4) == b"Hi\r\n"
    os.write(b, b"P")
    assert guest.wait() == 1
    os.close(b)
    gone(flow)
    # Or what it left is removed by hand.
    assert flow.run(NMDM, "create", flow.pair)[0] == 0
    keeper = subprocess.check_output(["pgrep", "-f", f"nmdm create {flow.pair}"], text=True)
    os.kill(int(keeper), signal.SIGKILL)
    wait_for("the keeper ends", lambda: "process" not in flow.run(NMDM, "list")[1])
    wait_for("its locks end", lambda: flow.run(NMDM, "list")[1] == "")
    code, out = flow.run(NMDM, "destroy", flow.pair)
    assert code == 0 and out == "", out
    assert os.listdir(flow.nmdm) == [".nmdm"]


def test_own_directory(flow: Flow):
    """Who may not write to /dev gets a directory of his own and is told where."""
    prepare(flow)
    del flow.env["NMDM_DIR"]
    runtime = flow.path("runtime")
    os.mkdir(runtime, 0o700)
    flow.env["XDG_RUNTIME_DIR"] = runtime
    load(flow)
    argv = [BHYVE, *BASE, "-l", "com1," + flow.a, "vm"]
    if os.geteuid() == 0:
        for folder, _, files in os.walk(flow.dir):
            for path in [folder] + [os.path.join(folder, name) for name in files]:
                os.chown(path, 65534, 65534)
        for path in (flow.dir, os.path.dirname(BHYVE)):
            if subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                               "test", "-x", path], check=False).returncode != 0:
                print("skip  the build folder is closed to others")
                return
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] + argv
    guest = flow.start(*argv)
    other = f"{runtime}/nmdm/{flow.pair}B"
    guest.expect_exact(f"other end is {other}")
    assert os.stat(runtime + "/nmdm").st_mode & 0o777 == 0o700
    b = open_raw(other)
    assert read_all(b, 4) == b"Hi\r\n"
    os.write(b, b"P")
    assert guest.wait() == 1
    os.close(b)


def test_dev(flow: Flow):
    """/dev itself, as the Handbook has it."""
    prepare(flow)
    if not os.access("/dev", os.W_OK):
        print("skip  only root makes terminals in /dev")
        return
    del flow.env["NMDM_DIR"]
    guest = bhyve(flow)
    other = flow.a[:-1] + "B"
    guest.expect_exact(f"other end is {other}")
    cu = flow.start("/usr/bin/cu", "-l", other, "-s", "9600")
    cu.expect_exact("Hi")
    cu.send("P")
    assert guest.wait() == 1
    cu.send("\r~.")
    assert cu.wait() == 0
    wait_for("the pair goes", lambda: not os.path.islink(other), 30)


def test_bad_input(flow: Flow):
    prepare(flow)
    load(flow)
    os.mkdir(flow.path("open"))
    os.chmod(flow.path("open"), 0o777)
    flow.write("nmdm9A", "not a terminal")
    for path, says in (
            ("/dev/nmdm0", "null modem /dev/nmdm0 does not end in A or B; .*/dev/nmdm0A"),
            ("/dev/nmdm0C", "does not end in A or B"),
            ("/dev/nmdmA", 'has nothing between "nmdm" and its last letter'),
            ("/dev/nmdm" + "x" * 60 + "A", "longer than"),
            ("/dev/nmdm 1A", "blank"),
            ("/nowhere/nmdm0A", "directory /nowhere/: No such file"),
            ("./nmdm9A", "nmdm9A exists and is not a null modem; remove it")):
        code, out = flow.run(BHYVE, *BASE, "-l", "com1," + path, "vm")
        assert code == 4 and re.search(says, " ".join(out.split())), (path, code, out)
        load(flow)
    flow.env["NMDM_DIR"] = flow.path("open")
    code, out = flow.run(BHYVE, *BASE, "-l", "com1," + flow.a, "vm")
    assert code == 4 and "others may write to it" in " ".join(out.split()), out
    for argv, code, says in (
            (["create", "a/b"], 1, "has a '/' in it"), (["create"], 64, "no null modem is named"),
            (["nonsense"], 64, "usage"), (["create", "-x"], 64, "usage"),
            (["create", "-d", "/nowhere", "0"], 1, "/nowhere: No such file")):
        got, out = flow.run(NMDM, *argv)
        assert got == code and says in " ".join(out.split()), (argv, got, out)


def clients():
    return all(shutil.which(c) for c in ("cu", "screen", "picocom", "tmux"))


if __name__ == "__main__":
    assert clients(), "cu, screen, picocom and tmux are needed; see scripts/deps.sh"
    main(*[globals()[name] for name in sys.argv[1:]] or [test_cu, test_client_first, test_other_clients, test_tmux, test_tcp, test_nothing_is_lost,
         test_hang_up, test_grub_on_the_line, test_two_guests, test_locks, test_killed_keeper,
         test_own_directory, test_dev, test_bad_input])
