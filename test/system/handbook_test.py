#!/usr/bin/env python3
"""The Handbook's session, typed as it prints it: loader prompt, four CPUs, both disks, reboot."""

import hashlib
import os
import re

from harness import BHYVE, BHYVECTL, GRUB_BHYVE, Flow, demo_guest, fsck, main, make_ext4

NAME = f"linuxguest{os.getpid()}"


def session(flow: Flow):
    guest = demo_guest("amd64")
    os.symlink(os.path.join(guest, "linux.iso"), flow.path("somelinux.iso"))
    make_ext4(flow, "linux.img", {"from-host": "written by the host\n"}, size="64M")
    flow.write("device.map", "(hd0) ./linux.img\n(cd0) ./somelinux.iso\n")

    c = flow.start(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "-M", "1024M", NAME)
    c.expect_exact("grub> ")
    c.send("ls\r")
    c.expect_exact("(hd0) (cd0) (cd0,msdos1) (host)")
    c.expect_exact("grub> ")
    c.send("ls (cd0)/isolinux\r")
    c.expect("initrd.img vmlinuz")
    c.expect_exact("grub> ")
    c.send("linux (cd0)/isolinux/vmlinuz\r")
    c.expect_exact("\n")
    c.expect_exact("grub> ")
    c.send("initrd (cd0)/isolinux/initrd.img\r")
    c.expect_exact("\n")
    c.expect_exact("grub> ")
    c.send("boot\r")
    assert c.wait() == 0
    c.check_modes()

    c = flow.start(
        BHYVE, "-AI", "-H", "-P", "-s", "0:0,hostbridge", "-s", "1:0,lpc",
        "-s", "3:0,virtio-blk,./linux.img", "-s", "4:0,ahci-cd,./somelinux.iso",
        "-l", "com1,stdio", "-c", "4", "-m", "1024M", NAME)
    c.login()
    code, out = flow.run("ls", "-al", flow.vmm)
    assert re.search(rf"-rw------- .* {NAME}\n", out), out

    out, code = c.sh("nproc; cat /sys/devices/system/cpu/online")
    assert out.split() == ["4", "0-3"], out
    out, code = c.sh("cat /mnt/from-host")
    assert out == "written by the host"
    out, code = c.sh("until [ -b /dev/sr0 ]; do sleep 0.1; done; "
                     "mount -t iso9660 /dev/sr0 /cdrom && cat /cdrom/README")
    assert code == 0 and "A file on the CD." in out, out
    with open(os.path.join(guest, "initrd.img"), "rb") as f:
        want = hashlib.md5(f.read()).hexdigest()
    out, code = c.sh("md5sum /cdrom/isolinux/initrd.img", timeout=120)
    assert want in out, out
    out, code = c.sh("head -c 3000000 /dev/urandom > /mnt/random; cp /bin/busybox /mnt/; sync; "
                     "md5sum /mnt/random", timeout=120)
    written = out.split()[0]
    c.send("reboot\r")
    assert c.wait(timeout=120) == 0
    c.check_modes()

    # What the guest wrote is on the image, and the file system is clean.
    check = fsck(flow.path("linux.img"))
    assert check.returncode == 0, check.stdout
    code, out = flow.run("/usr/sbin/debugfs", "-R", "dump random random.out",
                         flow.path("linux.img"))
    assert code == 0, out
    with open(flow.path("random.out"), "rb") as f:
        assert hashlib.md5(f.read()).hexdigest() == written

    code, out = flow.run(BHYVECTL, "--destroy", "--vm=" + NAME)
    assert code == 0, out
    assert NAME not in flow.objects()


def test_handbook(flow: Flow):
    try:
        session(flow)
    finally:
        if NAME in flow.objects():  # /dev/vmm is everybody's
            for c in flow.consoles:
                c.kill()
            flow.destroy(NAME)


if __name__ == "__main__":
    main(test_handbook, system_dir=True)
