#!/usr/bin/env python3
"""Debian's own installer on the serial console, from a CD, by keystrokes to the network.

Kernel and initrd are those of Debian's package; nothing answers for the user but these
keys. The installer finds the network card, asks slirp's DHCP server and stops where it
asks for the name that this server could not tell.
"""

import glob
import os
import shutil
import subprocess
import tempfile

from guest import BHYVE, Flow
from harness import GRUB_BHYVE, main, make_iso, plain

PACKAGE = "debian-installer-12-netboot-amd64"
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")),
                     "bhyve/installer")
IMAGES = "./usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/"
CFG = ("set timeout=0\nmenuentry Installer {\n"
       " linux /install/linux console=ttyS0 priority=%s\n"
       " initrd /install/initrd.gz\n}\n")
KILL_LINE = "\x15"


def package():
    """The package's file, from the archive when the cache has none."""
    debs = glob.glob(os.path.join(CACHE, PACKAGE + "_*.deb"))
    if not debs:
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as get:
            subprocess.run(["apt-get", "-qq", "download", PACKAGE], cwd=get, check=True,
                           stderr=subprocess.DEVNULL)
            debs = [shutil.move(deb, CACHE) for deb in glob.glob(get + "/*.deb")]
    return debs[0]


def file_of(deb, name):
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as tar:
        data = subprocess.run(["tar", "-xO", IMAGES + name], stdin=tar.stdout, check=True,
                              stdout=subprocess.PIPE).stdout
    return data


def answer(c, question, keys, timeout=300):
    """A dialogue whose text shows is drawn whole once its last line, the help, is there."""
    c.expect(question, timeout=timeout)
    c.expect_exact("activates buttons", timeout=60)
    c.send(keys)


def test_installer(flow: Flow):
    deb = package()
    make_iso(flow, "debian.iso", {
        "boot/grub/grub.cfg": CFG % "high", "install/linux": file_of(deb, "linux"),
        "install/initrd.gz": file_of(deb, "initrd.gz")}, volume="DEBIAN")
    with open(flow.path("linux.img"), "wb") as f:
        f.truncate(16 << 30)
    flow.write("device.map", "(hd0) ./linux.img\n(cd0) ./debian.iso\n")
    code, out = flow.run(GRUB_BHYVE, "-m", "device.map", "-r", "cd0", "-M", "1024M", "vm")
    assert code == 0, out
    c = flow.start(BHYVE, "-A", "-H", "-P", "-s", "0:0,hostbridge", "-s", "1:0,lpc",
                   "-s", "2:0,virtio-net,slirp,open", "-s", "3:0,virtio-blk,./linux.img",
                   "-s", "4:0,ahci-cd,./debian.iso", "-l", "com1,stdio", "-c", "2",
                   "-m", "1024M", "vm")
    answer(c, "Select a language", "\r")
    answer(c, "Select your location", "\r")
    answer(c, "Keymap to use", "\r")
    # It has its address now; slirp's DHCP server tells no name.
    answer(c, "Please enter the hostname", KILL_LINE + "guest7\r")
    answer(c, "The domain name", KILL_LINE + "example.org\r")
    c.expect("mirror", timeout=300)
    # A shell on the installer's second screen tells what the network is.
    c.send("\x012")
    c.expect("~ #", timeout=60)
    c.send("hostname; cat /etc/hostname; ip -o addr; echo SH''OWN\r")
    c.expect_exact("SHOWN", timeout=60)
    screen = plain(c.child.before)
    assert "guest7" in screen and "10.0.2.15/24" in screen, screen
    c.send("poweroff -f\r")
    assert c.wait(timeout=120) == 1
    c.check_modes()
    assert flow.destroy("vm")[0] == 0


if __name__ == "__main__":
    main(test_installer)
