#!/usr/bin/env python3
"""The units under a booted systemd: Debian in a guest of ours is the host, and runs guests.

Units are enabled, started, stopped, left to end and to fail; the host reboots and powers
off with guests running. The guests, two floors down, are a few instructions each: one of
them waits for its power button.
"""

import os
import re
import subprocess
import time

from guest import CACHE, HERE, boot_cd, copy_sparse
from guest_unit_test import IDLE, POWEROFF, SAY, out
from harness import BHYVE, BUILD, GRUB_BHYVE, Flow, main, make_ext4, plain, tiny_kernel

MEDIA = os.path.join(os.path.dirname(CACHE), "units")
PROMPT = "READY# "
TO_HOST = """until [ -b /dev/vda ] && [ -b /dev/vdb ]; do sleep 0.1; done
mount -t ext4 -o rw /dev/vda /mnt
mkdir /more
mount -t ext4 -o ro /dev/vdb /more
cp -rp /more/. /mnt/
umount /more
mount -o move /dev /mnt/dev
umount /proc
exec switch_root /mnt /sbin/init"""
CONF = """memory.size=64M
pci.0.0.0.device=hostbridge
pci.0.1.0.device=lpc
pci.0.3.0.device=virtio-blk
pci.0.3.0.path=/var/lib/bhyve/%(name).img
lpc.com1.path={console}
"""
CRASH = SAY + b"\x0f\x0b"
# Turns ACPI on and looks at the button's status bit until it is set.
BUTTON = (out(0xB2, 0xA0, 1) + SAY + b"\xba\x00\x04\x00\x00\x66\xed\xf6\xc4\x01\xf3\x90\x74\xf7" +
          POWEROFF)
TINY = {"idle": IDLE, "off": POWEROFF, "crash": CRASH, "modem": IDLE, "button": BUTTON}


def disks(flow):
    """The host's disk, and one with what is put onto it: our programs and the guests."""
    subprocess.run([os.path.join(HERE, "units.sh"), MEDIA], check=True)
    copy_sparse(os.path.join(MEDIA, "units.img"), flow.path("host.img"))
    tree = flow.path("more")
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet"], check=True,
                   env=dict(os.environ, DESTDIR=tree))
    for path in ("var/lib/bhyve", "var/log/journal"):  # what systemd says is to be kept
        os.makedirs(os.path.join(tree, path))
    for name, code in TINY.items():
        make_ext4(flow, f"more/var/lib/bhyve/{name}.img", {
            "vmlinuz": tiny_kernel(code), "boot/grub/grub.cfg": "linux /vmlinuz\nboot\n"}, size="8M")
        console = "/dev/nmdm7A" if name == "modem" else "stdio"
        flow.write(f"more/etc/bhyve/{name}.conf", f"name={name}\n" + CONF.format(console=console))
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    subprocess.run(["truncate", "-s", "512M", flow.path("more.img")], check=True)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, flow.path("more.img")],
                   check=True, env=env)


def boot(flow):
    """The host up to its shell."""
    code, text = flow.run(GRUB_BHYVE, "-m", "map", "-r", "cd0", "-M", "1G", "host")
    assert code == 0, text
    c = flow.start(BHYVE, "-A", "-H", "-P", "-c", "2", "-m", "1G", "-s", "0:0,hostbridge",
                   "-s", "1:0,lpc", "-s", "3:0,virtio-blk,host.img", "-s", "4:0,virtio-blk,more.img",
                   "-l", "com1,stdio", "host")
    c.expect_exact("root@host:~#", timeout=300)
    c.send("stty cols 500; PS1='READ''Y# '\r")
    c.expect_exact(PROMPT, timeout=60)
    return c


def sh(c, command, want=0, timeout=120):
    """Output of a command that has to end with this status."""
    c.send(command + "; echo DO''NE=$?\r")
    c.expect(r"DONE=(\d+)", timeout=timeout)
    status = int(c.child.match.group(1))
    text = plain(c.child.before).split("\n", 1)[-1].strip()
    c.expect_exact(PROMPT, timeout=60)
    assert status == want, f"{command}: {status}: {text}"
    return text


def until(c, command, what, timeout=180):
    end = time.monotonic() + timeout
    while True:
        text = sh(c, command + " || true")
        if re.search(what, text):
            return text
        assert time.monotonic() < end, f"{command}: {text}"
        time.sleep(1)


def show(c, unit, *names):
    text = sh(c, f"systemctl show {unit} -p {','.join(names)}")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def journal(c, unit, what):
    return until(c, f"journalctl -q -b -o cat -u {unit}", what)


def leave(c, command, status):
    """The host goes down with its guests running, and nothing has to be killed."""
    began = time.monotonic()
    c.send(command + "\r")
    got = c.wait(timeout=200)
    assert got == status, f"{command}: exit status {got}"
    assert time.monotonic() - began < 100, "systemd waited for a unit until it lost patience"
    assert "SIGKILL" not in c.text()


def ends(c):
    """Units of guests that end by themselves, are stopped, or cannot be started."""
    sh(c, "systemctl start bhyve@idle")
    journal(c, "bhyve@idle", r"(?m)^Hi$")
    assert sh(c, "systemctl is-active bhyve@idle") == "active"
    assert "idle" in sh(c, "ls /dev/vmm")
    sh(c, "systemctl stop bhyve@idle")
    assert show(c, "bhyve@idle", "ActiveState", "Result") == {
        "ActiveState": "inactive", "Result": "success"}
    assert "idle" not in sh(c, "ls -A /dev/vmm")
    sh(c, "systemctl start bhyve@off")
    until(c, "systemctl is-active bhyve@off", r"^inactive$")
    assert show(c, "bhyve@off", "Result") == {"Result": "success"}
    journal(c, "bhyve@off", "the guest powered off")
    sh(c, "systemctl start bhyve@crash")
    until(c, "systemctl is-active bhyve@crash", r"^failed$")
    assert show(c, "bhyve@crash", "ExecMainStatus", "Result") == {
        "ExecMainStatus": "3", "Result": "exit-code"}
    sh(c, "bhyvectl --destroy --vm=crash")
    sh(c, "systemctl start bhyve@gone", want=1)
    journal(c, "bhyve@gone", "there is no /etc/bhyve/gone.conf")


def null_modem(c):
    sh(c, "systemctl start nmdm@7")
    until(c, "ls /dev/nmdm7A /dev/nmdm7B", r"^/dev/nmdm7A\s+/dev/nmdm7B$")
    sh(c, "stty -F /dev/nmdm7B raw -echo; cat /dev/nmdm7B >/run/modem & sleep 1")
    sh(c, "systemctl start bhyve@modem")
    until(c, "cat /run/modem", "Hi")
    sh(c, "systemctl stop bhyve@modem")
    sh(c, "systemctl stop nmdm@7")
    assert show(c, "nmdm@7", "Result", "ActiveState") == {
        "ActiveState": "inactive", "Result": "success"}
    sh(c, "! ls /dev/nmdm7A /dev/nmdm7B")


def power_button(c):
    """Stopping the unit presses the button of a guest that has one, and waits."""
    sh(c, "systemctl start bhyve@button")
    journal(c, "bhyve@button", r"(?m)^Hi$")
    sh(c, "systemctl stop bhyve@button")
    assert show(c, "bhyve@button", "Result") == {"Result": "success"}
    text = sh(c, "journalctl -q -b -o cat -u bhyve@button")
    assert "the guest powered off" in text and "SIGTERM" not in text, text


def test_units(flow: Flow):
    disks(flow)
    boot_cd(flow, TO_HOST, "quiet")
    c = boot(flow)
    ends(c)
    power_button(c)
    null_modem(c)
    sh(c, "systemctl enable bhyve@idle nmdm@7")
    sh(c, "systemctl start bhyve@idle")
    until(c, "journalctl -q -b -o cat -u bhyve@idle | grep -c '^Hi'", r"^2$")
    leave(c, "systemctl reboot", 0)
    flow.destroy("host")
    c = boot(flow)
    text = until(c, "journalctl -q -b -1 -o cat -u bhyve@idle", "Stopped")
    assert "Deactivated successfully" in text and "Killing" not in text, text
    journal(c, "bhyve@idle", r"(?m)^Hi$")
    for unit in ("bhyve@idle", "nmdm@7"):
        assert sh(c, "systemctl is-active " + unit) == "active"
    leave(c, "systemctl poweroff", 1)
    flow.destroy("host")


if __name__ == "__main__":
    main(test_units)
