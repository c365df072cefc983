#!/usr/bin/env python3
"""A Linux guest on the network: slirp, and a tap interface in a network of its own.

The demo guest asks for its address by DHCP. Files go in both directions and arrive
whole; hostfwd leads into the guest; without "open" nothing leads out.
"""

import contextlib
import ctypes
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

from harness import BHYVE, GRUB_BHYVE, Flow, demo_guest, main, make_iso, tiny_kernel

SIZE = 8 << 20
CFG = "linux /vmlinuz console=ttyS0 quiet\ninitrd /initrd.img\nboot\n"
CLONE_NEWNET = 0x40000000


class Web(contextlib.AbstractContextManager):
    """A server on the host with one large file; keeps what is sent to it."""

    def __init__(self, address="127.0.0.1"):
        data = self.data = os.urandom(SIZE)
        got = self.got = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self):
                got.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __exit__(self, *args):
        self.server.shutdown()
        self.server.server_close()

    def sum(self):
        return hashlib.md5(self.data).hexdigest()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def load(flow, vm):
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "256M", vm)
    assert code == 0, out


def boot(flow, device, flavour="cloud"):
    guest = demo_guest(flavour)
    files = {"boot/grub/grub.cfg": CFG}
    for name in ("vmlinuz", "initrd.img"):
        with open(os.path.join(guest, name), "rb") as f:
            files[name] = f.read()
    make_iso(flow, "linux.iso", files)
    flow.write("map", "(cd0) linux.iso\n")
    load(flow, "vm")
    c = flow.start(BHYVE, "-H", "-s", "0,hostbridge", "-s", "1,lpc", "-s", device,
                   "-l", "com1,stdio", "-m", "256M", "vm")
    c.login()
    return c


def refused(flow, device, says):
    """A second VM with this device is told why it cannot have it."""
    load(flow, "vm2")
    code, out = flow.run(BHYVE, "-s", "0,hostbridge", "-s", device, "vm2")
    assert code == 4 and says in " ".join(out.split()), out
    assert flow.destroy("vm2")[0] == 0


def wait_address(c, address):
    out, _ = c.sh("i=0; while [ $i -lt 100 ] && ! ip addr show dev eth0 | grep -qF "
                  f"{address}/; do sleep 0.2; i=$((i+1)); done; ip addr show dev eth0")
    assert address in out, out


def transfer(c, web, host):
    """A file in, the same file out again; both whole."""
    url = f"http://{host}:{web.port}/file"
    out, code = c.sh(f"wget -q -O /tmp/file {url} && md5sum /tmp/file", timeout=120)
    assert code == 0 and out.split()[0] == web.sum(), out
    out, code = c.sh(
        "(printf 'POST /file HTTP/1.0\\r\\nContent-Length: "
        f"{SIZE}\\r\\n\\r\\n'; cat /tmp/file) | nc {host} {web.port}", timeout=120)
    assert "200 OK" in out, out
    assert web.got.pop() == web.data


def connect(port, talk):
    """Connects to the guest's server until one answers; what talk() makes of it."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), \
                socket.create_connection(("127.0.0.1", port), timeout=30) as s:
            result = talk(s)
            if result:
                return result
        assert time.monotonic() < deadline, "nothing came through hostfwd"


def from_outside(c, port):
    """A server in the guest, reached through the host's port: a file out, one in."""
    def receive(s):
        return b"".join(iter(lambda: s.recv(65536), b""))

    def send(s):
        # The server's first byte says that this is not slirp alone.
        if s.recv(1):
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            return s.recv(1) == b""
        return False

    want, _ = c.sh("dd if=/dev/urandom of=/tmp/out bs=1M count=2 2>/dev/null; "
                   "md5sum < /tmp/out")
    c.sh("(nc -l -p 7 < /tmp/out > /dev/null &)")
    got = connect(port, receive)
    assert hashlib.md5(got).hexdigest() == want.split()[0]
    data = os.urandom(1 << 20)
    c.sh("(echo | nc -l -p 7 > /tmp/in &)")
    connect(port, send)
    out, _ = c.sh("while pidof nc >/dev/null; do sleep 0.1; done; md5sum < /tmp/in")
    assert out.split()[0] == hashlib.md5(data).hexdigest(), out


def power_off(flow, c):
    c.send("poweroff\r")
    assert c.wait(timeout=120) == 1
    c.check_modes()
    assert flow.destroy("vm")[0] == 0


def test_slirp(flow: Flow):
    port = free_port()
    with Web() as web:
        forward = f"hostfwd=tcp:127.0.0.1:{port}-:7"
        c = boot(flow, f"2,virtio-net,slirp,open,{forward},mac=00:a0:98:12:34:56,mtu=4000")
        wait_address(c, "10.0.2.15")
        out, _ = c.sh("cd /sys/class/net/eth0; while [ $(cat operstate) != up ]; do sleep 0.1; "
                      "done; cat address mtu operstate; cd /")
        assert out.split() == ["00:a0:98:12:34:56", "4000", "up"], out
        out, code = c.sh("ping -c 3 10.0.2.2")
        assert code == 0, out
        transfer(c, web, "10.0.2.2")
        from_outside(c, port)
        refused(flow, f"2,virtio-net,slirp,{forward}", f"port {port} is taken")
        power_off(flow, c)


def test_closed(flow: Flow):
    """Without "open" the guest has its address and hostfwd, and nothing else."""
    port = free_port()
    with Web() as web:
        c = boot(flow, f"2,virtio-net,slirp,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:7")
        wait_address(c, "10.0.2.15")
        _, code = c.sh(f"timeout 3 wget -q -O /dev/null http://10.0.2.2:{web.port}/file")
        assert code != 0
        from_outside(c, port)
        power_off(flow, c)


def run(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


def boot_on_tap(flow, card, flavour="cloud"):
    c = boot(flow, f"2,{card},tap77", flavour)
    # Made and up because bhyve opened it.
    assert ",UP" in run("ip", "link", "show", "tap77")
    run("ip", "addr", "add", "192.0.2.1/24", "dev", "tap77")
    c.sh("killall udhcpc; ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up")
    out, code = c.sh("ping -c 3 -W 5 192.0.2.1")
    assert code == 0, out
    return c


def test_e1000(flow: Flow):
    c = boot_on_tap(flow, "e1000", "amd64")
    out, _ = c.sh("dmesg | grep 'NIC Link is Up'; cat /sys/class/net/eth0/speed")
    assert "1000 Mbps Full Duplex" in out and out.split()[-1] == "1000", out
    with Web("192.0.2.1") as web:
        transfer(c, web, "192.0.2.1")
    out, _ = c.sh("cd /sys/class/net/eth0/statistics; cat rx_errors tx_errors rx_crc_errors "
                  "rx_length_errors; cd /")
    assert out.split() == ["0"] * 4, out
    power_off(flow, c)


def test_tap(flow: Flow):
    c = boot_on_tap(flow, "virtio-net")
    with Web("192.0.2.1") as web:
        transfer(c, web, "192.0.2.1")
    refused(flow, "2,virtio-net,tap77", f"tap77 is in use by process {c.child.pid};")
    # The interface goes away under the guest: its link is down, and it runs on.
    run("ip", "link", "del", "tap77")
    out, _ = c.sh("i=0; while [ $i -lt 50 ] && [ $(cat /sys/class/net/eth0/operstate) = up ]; "
                  "do ping -c 1 -W 1 192.0.2.1 >/dev/null; i=$((i+1)); done; "
                  "cat /sys/class/net/eth0/operstate")
    assert out.split()[-1] == "down", out
    power_off(flow, c)
    assert "tap77 was removed" in c.text()


def test_rights(flow: Flow):
    """A user without rights is told what root has to type, and slirp still works."""
    nobody = 65534
    program = shutil.copy(BHYVE, flow.path("bhyve"))
    make_iso(flow, "linux.iso", {"vmlinuz": tiny_kernel(b"\xfa\xf4"),
                                 "boot/grub/grub.cfg": "linux /vmlinuz\nboot\n"})
    flow.write("map", "(cd0) linux.iso\n")
    load(flow, "vm")
    for path, _, files in os.walk(flow.dir):
        for name in ["."] + files:
            os.chown(os.path.join(path, name), nobody, nobody)

    def bhyve(device):
        p = subprocess.run(
            [program, "-s", "0,hostbridge", "-s", device, "vm"], cwd=flow.dir, env=flow.env,
            user=nobody, group=nobody, extra_groups=[], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
        return p.returncode, " ".join(p.stdout.split())

    code, out = bhyve("2,virtio-net,tap78")
    assert code == 4 and "as root run" in out, out
    assert '"ip tuntap add dev tap78 mode tap user nobody"' in out, out
    code, out = bhyve("2,virtio-net,slirp,hostfwd=tcp:127.0.0.1:80-:80")
    assert code == 4 and "only root may listen on port 80" in out, out
    code, out = bhyve("2,virtio-net,lo,type=tap")
    assert code == 4, out
    # HLT with interrupts off: the machine was built and ran.
    code, out = bhyve("2,e1000,slirp,open")
    assert code == 2, out


def enter_own_network():
    """0, or why this process cannot have a network of its own with tap interfaces."""
    if os.geteuid() != 0:
        return "it needs root"
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return "unshare: " + os.strerror(ctypes.get_errno())
    probe = subprocess.run("ip link set lo up && ip tuntap add dev probe0 mode tap && "
                           "ip link del probe0", shell=True, check=False, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return "ip: " + probe.stdout if probe.returncode != 0 else None


if __name__ == "__main__":
    if sys.argv[1:] == ["tap"]:
        why = enter_own_network()
        if why is not None:
            print("skipped: no network namespace with a tap interface:", why)
            sys.exit(77)
        main(test_rights, test_tap, test_e1000)
    main(test_slirp, test_closed)
