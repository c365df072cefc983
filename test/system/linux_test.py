#!/usr/bin/env python3
"""Debian's cloud kernel from a partition's own grub.cfg: poweroff, halt, triple fault.

Files written in one boot are intact in the next; a 32-bit program runs.
"""

import os

from harness import BHYVE, BUILD, GRUB_BHYVE, Flow, demo_guest, fsck, main, make_ext4

OFFSET = 1 << 20
CFG = """
set timeout=0
menuentry Linux {
  search --no-floppy --fs-uuid --set=root 0fc63daf-8483-4772-8e79-3d69d8477de4
  linux /boot/vmlinuz quiet
  initrd /boot/initrd.img
}
"""


def boot(flow, cpus="1"):
    code, out = flow.run(GRUB_BHYVE, "-m", "map", "-r", "hd0", "-M", "256M", "vm")
    assert code == 0, out
    c = flow.start(
        BHYVE, "-H", "-s", "0,hostbridge", "-s", "1,lpc", "-s", "2,virtio-blk,linux.img",
        "-s", "3,virtio-rnd", "-l", "com1,stdio", "-c", cpus, "-m", "256M", "vm")
    c.login()
    return c


def test_boots(flow: Flow):
    guest = demo_guest("cloud")
    files = {"boot/grub/grub.cfg": CFG}
    for name in ("vmlinuz", "initrd.img"):
        with open(os.path.join(guest, name), "rb") as f:
            files["boot/" + name] = f.read()
    with open(os.path.join(BUILD, "test/system/i386-program"), "rb") as f:
        files["i386"] = f.read()
    image = make_ext4(flow, "linux.img", files, size="96M", offset=OFFSET,
                      uuid="0fc63daf-8483-4772-8e79-3d69d8477de4")
    flow.write("map", "(hd0) linux.img\n")

    c = boot(flow, cpus="2")
    out, _ = c.sh("nproc")
    assert out == "2", out
    out, code = c.sh("cp /mnt/i386 /tmp && chmod 755 /tmp/i386 && /tmp/i386", timeout=120)
    assert (out, code) == ("i386: good", 0), out
    # Many files and a large one; sums are compared in the next boot.
    out, code = c.sh("cd /mnt && mkdir many && for i in $(seq 200); do echo file $i > many/$i; "
                     "done; cp /bin/busybox big; cat many/* big | md5sum; cd /", timeout=120)
    assert code == 0, out
    want = out.split()[0]
    c.send("poweroff\r")
    assert c.wait(timeout=120) == 1
    c.check_modes()
    check_image(flow, image)

    c = boot(flow)
    out, code = c.sh("cd /mnt; cat many/* big | md5sum; rm -r many; cd /", timeout=120)
    assert out.split()[0] == want, out
    c.send("halt\r")
    assert c.wait(timeout=120) == 2
    check_image(flow, image)

    # A kernel that resets by triple fault.
    c = boot(flow)
    out, code = c.sh("[ ! -e /mnt/many ] && umount /mnt && echo triple > /sys/kernel/reboot/type")
    assert code == 0, out
    c.send("reboot -f\r")
    assert c.wait(timeout=120) == 3
    assert "triple fault" in c.text()
    check_image(flow, image)
    assert flow.destroy("vm")[0] == 0
    assert flow.objects() == []


def check_image(flow, image):
    with open(image, "rb") as f:
        f.seek(OFFSET)
        flow.write("part.img", f.read())
    check = fsck(flow.path("part.img"))
    assert check.returncode == 0, check.stdout


if __name__ == "__main__":
    main(test_boots)
