#!/usr/bin/env python3
"""A whole installation: an empty disk of 16 GiB, a CD, a reboot, the disk's own GRUB menu.

The CD's installer (install.sh) partitions the disk, makes the Handbook's volume group,
copies Debian and reboots. The system is then started from its disk by the prompt, logged
in to, tried on slirp and, twice, on a bridge, and powered off.
"""

import os
import re
import subprocess

from guest import CACHE, copy_sparse
from harness import BHYVE, GRUB_BHYVE, Flow, main, plain
from net_test import Web, enter_own_network, run

HERE = os.path.dirname(os.path.abspath(__file__))
MEDIA = os.path.join(os.path.dirname(CACHE), "install")
PROMPT = "READY# "
NAMES = {"(lvm/VolGroup-lv_root)", "(lvm/VolGroup-lv_swap)", "(hd0,msdos1)", "(hd0,msdos2)"}


def bhyve(flow, vm, disk, *devices, memory="512M", cpus=2):
    return flow.start(BHYVE, "-A", "-H", "-P", "-s", "0:0,hostbridge", "-s", "1:0,lpc",
                      "-s", f"3:0,virtio-blk,./{disk}", *devices, "-l", "com1,stdio",
                      "-c", str(cpus), "-m", memory, vm)


def ended(flow, c, vm, status, timeout=300):
    got = c.wait(timeout=timeout)
    assert got == status, f"exit status {got}"
    c.check_modes()
    assert flow.destroy(vm)[0] == 0


def login(c):
    """A root shell behind getty's login, with a prompt that nothing else prints."""
    c.expect_exact("installed login: ", timeout=400)
    c.send("root\r")
    c.expect_exact("Password: ", timeout=60)
    c.send("bhyve\r")
    c.expect_exact("installed:~#", timeout=60)
    c.send("stty cols 500; PS1='READ''Y# '\r")
    c.expect_exact(PROMPT, timeout=60)


def sh(c, command, timeout=120):
    """Output of a command that has to succeed."""
    c.send(command + "; echo DO''NE=$?\r")
    c.expect(r"DONE=(\d+)", timeout=timeout)
    status = int(c.child.match.group(1))
    text = plain(c.child.before).split("\n", 1)[-1].strip()
    c.expect_exact(PROMPT, timeout=60)
    assert status == 0, f"{command}: {status}: {text}"
    return text


def install(flow):
    os.symlink(os.path.join(MEDIA, "install.iso"), flow.path("install.iso"))
    with open(flow.path("linux.img"), "wb") as f:
        f.truncate(16 << 30)
    flow.write("device.map", "(hd0) ./linux.img\n(cd0) ./install.iso\n")
    code, out = flow.run(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "-M", "512M", "guest")
    assert code == 0, out
    c = bhyve(flow, "guest", "linux.img", "-s", "4:0,virtio-blk,./install.iso,ro")
    c.expect("installer: done, rebooting|installer: .* failed|Kernel panic", timeout=900)
    assert "done" in c.child.match.group(0), c.child.match.group(0)
    ended(flow, c, "guest", 0)
    used = os.stat(flow.path("linux.img")).st_blocks * 512
    assert 100 << 20 < used < 2 << 30, f"{used} bytes of the sparse disk are in use"


def boot_by_prompt(flow, vm, devmap):
    """The Handbook's way: the disk's first partition, `ls`, and the kernel by hand."""
    c = flow.start(GRUB_BHYVE, "-m", devmap, "-r", "hd0,msdos1", "-M", "512M", vm)
    c.expect_exact("Debian on LVM", timeout=60)
    c.send("c")
    c.expect_exact("grub> ")
    c.send("ls\r")
    c.expect_exact("grub> ")
    # A line of the terminal ends anywhere in a name.
    got = set(re.findall(r"\([^)]*\)", plain(c.child.before).replace("\n", "")))
    assert NAMES <= got, got
    c.send("cat (lvm/VolGroup-lv_root)/etc/hostname\r")
    c.expect_exact("installed")
    c.expect_exact("grub> ")
    c.send("linux (hd0,msdos1)/vmlinuz root=/dev/mapper/VolGroup-lv_root\r")
    c.expect_exact("grub> ")
    c.send("initrd (hd0,msdos1)/initrd.img\r")
    c.expect_exact("grub> ", timeout=60)
    c.send("boot\r")
    assert c.wait() == 0
    c.check_modes()


def boot_by_menu(flow, vm, devmap):
    c = flow.start(GRUB_BHYVE, "-m", devmap, "-r", "hd0,msdos1", "-M", "512M", vm)
    c.expect_exact("Debian on LVM", timeout=60)
    c.send("\r")
    assert c.wait() == 0


def power_off(flow, c, vm):
    c.send("poweroff\r")
    ended(flow, c, vm, 1)


def first_boot(flow):
    boot_by_prompt(flow, "guest", "device.map")
    with Web() as web:
        c = bhyve(flow, "guest", "linux.img", "-s", "2:0,virtio-net,slirp,open")
        login(c)
        out = sh(c, "findmnt -no SOURCE /; findmnt -no SOURCE /boot; swapon --noheadings "
                    "--show=SIZE; cat /proc/cmdline; nproc; lvs --noheadings -o lv_name")
        assert out.split()[:3] == ["/dev/mapper/VolGroup-lv_root", "/dev/vda1", "4G"], out
        assert out.split()[-3:] == ["2", "lv_root", "lv_swap"], out
        nic = sh(c, "until ip -o -4 addr show scope global | grep -q .; do sleep 0.2; done; "
                    "ip -o -4 addr show scope global")
        assert "10.0.2.15/24" in nic, nic
        sh(c, "ping -c 3 10.0.2.2")
        # No wget in a Debian this small.
        got = sh(c, "busybox wget -q -O /var/tmp/file http://10.0.2.2:%d/file && sync && "
                    "md5sum </var/tmp/file" % web.port)
        assert got.split()[0] == web.sum(), got
        power_off(flow, c, "guest")
        return web.sum()


def on_bridge(flow, disk, keeps):
    """Two of the installed systems on one bridge; each reads what the other sends."""
    run("ip", "link", "add", "bridge0", "type", "bridge")
    run("ip", "link", "set", "bridge0", "up")
    guests = []
    for i in (1, 2):
        vm = f"guest{i}"
        copy_sparse(disk, flow.path(vm + ".img"))
        flow.write(vm + ".map", f"(hd0) ./{vm}.img\n")
        boot_by_menu(flow, vm, vm + ".map")
        c = bhyve(flow, vm, vm + ".img", "-s", f"2:0,virtio-net,tap{i}", cpus=1)
        guests.append(c)
        # One after the other: what a console prints while nobody reads it is lost.
        login(c)
        run("ip", "link", "set", f"tap{i}", "master", "bridge0", "up")
        # DHCP finds nobody here, so networkd leaves the card to us.
        sh(c, "systemctl stop systemd-networkd.socket systemd-networkd; "
              "nic=$(ls /sys/class/net | grep ^e); ip link set $nic up; "
              f"ip addr add 192.0.2.{i}/24 dev $nic")
    macs = {sh(c, "cat /sys/class/net/e*/address") for c in guests}
    assert len(macs) == 2, macs
    one, two = guests
    sh(one, "for i in $(seq 60); do ping -c 1 -W 1 192.0.2.2 >/dev/null && break; done; "
            "ping -c 5 -W 2 192.0.2.2", timeout=180)
    # What the first guest got through slirp goes on to the second, and is still whole.
    # Busybox's nc ends when the other side has, so the reader keeps its input open.
    two.send("busybox nc -l -p 7 | md5sum; echo RECEI''VED\r")
    sh(one, "until busybox nc 192.0.2.2 7 </var/tmp/file; do sleep 0.2; done")
    two.expect_exact("RECEIVED", timeout=120)
    assert keeps in two.child.before, two.child.before
    two.expect_exact(PROMPT)
    for i, c in enumerate(guests, 1):
        power_off(flow, c, f"guest{i}")


def test_installation(flow: Flow):
    # This asks Debian's archive, so it comes before a network of our own.
    subprocess.run([os.path.join(HERE, "install.sh"), MEDIA], check=True)
    why = enter_own_network()
    install(flow)
    keeps = first_boot(flow)
    if why is not None:
        print("skipped: two guests on a bridge: no network namespace with a tap interface:",
              why)
        return
    on_bridge(flow, flow.path("linux.img"), keeps)


if __name__ == "__main__":
    main(test_installation)
