"""What the flow tests share: programs on a terminal of their own, images, tiny kernels.

A test waits for text, never for time. When it fails it prints the console's tail.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import traceback

import pexpect

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.environ.get("MESON_BUILD_ROOT", os.path.join(SOURCE, "build"))
GRUB_BHYVE = os.path.join(BUILD, "src/load/grub/grub-bhyve")
BHYVE = os.path.join(BUILD, "src/bhyve/bhyve")
BHYVECTL = os.path.join(BUILD, "src/bhyvectl/bhyvectl")
MEM_OFFSET = 0x200000  # of guest-physical 0 in a VM object
CMDLINE_ADDR = 0x20000
ZERO_PAGE_ADDR = 0x7000
SHELL = "bhyve# "
BOOT_TIMEOUT = 300


def plain(text):
    """Console output without escape sequences and carriage returns."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return text.replace("\r", "")


class Console:
    """A program on a terminal of 24x80; its exit status and terminal modes are checked."""

    def __init__(self, argv, cwd, env=None, timeout=30):
        self.name = os.path.basename(argv[0])
        self.log = []
        self.child = pexpect.spawn(
            argv[0], argv[1:], cwd=cwd, env=env, timeout=timeout, dimensions=(24, 80),
            encoding="latin-1", echo=True)
        self.child.delaybeforesend = None
        self.modes = None
        self.child.logfile_read = self
        self.fd = self.child.child_fd

    # A file for pexpect's log.
    def write(self, text):
        self.log.append(text)

    def flush(self):
        pass

    def text(self):
        return plain("".join(self.log))

    def expect(self, pattern, timeout=-1):
        return self.child.expect(pattern, timeout=timeout)

    def expect_exact(self, text, timeout=-1):
        return self.child.expect_exact(text, timeout=timeout)

    def send(self, keys):
        self.child.send(keys)

    def wait(self, timeout=60):
        """The exit status, once the program has ended; -signal when it was killed."""
        self.child.expect(pexpect.EOF, timeout=timeout)
        self.child.wait()
        if self.child.signalstatus is not None:
            return -self.child.signalstatus
        return self.child.exitstatus

    def check_modes(self):
        """The terminal is as a shell left it: lines, echo, signals."""
        lflag = termios.tcgetattr(self.fd)[3]
        for flag in (termios.ICANON, termios.ECHO, termios.ISIG):
            assert lflag & flag, "terminal modes were not restored"

    def login(self, timeout=BOOT_TIMEOUT):
        """Waits for the guest's shell and makes its lines long, so that echoes do not wrap."""
        self.expect_exact(SHELL, timeout=timeout)
        self.send("stty cols 500\r")
        self.expect_exact(SHELL, timeout=60)

    def sh(self, command, timeout=60):
        """Runs a command in the guest's shell; its output and status."""
        self.send(command + "; echo DO''NE=$?\r")
        self.expect(r"DONE=(\d+)", timeout=timeout)
        status = int(self.child.match.group(1))
        output = plain(self.child.before)
        self.expect_exact(SHELL, timeout=timeout)
        return output.split("\n", 1)[-1].strip(), status

    def kill(self):
        with contextlib.suppress(Exception):
            os.kill(self.child.pid, signal.SIGKILL)
        self.child.close(force=True)


class Flow:
    """A working directory with a VM directory; all is gone afterwards."""

    def __init__(self, system_dir=False):
        self.dir = tempfile.mkdtemp(prefix="flow.")
        self.tmp = os.path.join(self.dir, "tmp")
        os.mkdir(self.tmp)
        self.env = dict(os.environ, TMPDIR=self.tmp, TERM="xterm", LC_ALL="C.UTF-8")
        self.env["ASAN_OPTIONS"] = "exitcode=99"
        if system_dir and os.geteuid() == 0:
            self.env.pop("VMM_DIR", None)
            self.vmm = "/dev/vmm"
        else:
            self.vmm = os.path.join(self.dir, "vmm")
            os.mkdir(self.vmm, 0o700)
            self.env["VMM_DIR"] = self.vmm
        self.consoles = []

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, data):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
        return path

    def start(self, *argv, timeout=30):
        console = Console(list(argv), self.dir, self.env, timeout)
        self.consoles.append(console)
        return console

    def run(self, *argv, input=b"", timeout=60):
        """Without a terminal: exit status and output of both kinds."""
        p = subprocess.run(argv, cwd=self.dir, env=self.env, input=input, timeout=timeout,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return p.returncode, plain(p.stdout.decode("latin-1"))

    def objects(self):
        return sorted(n for n in os.listdir(self.vmm) if not n.startswith("."))

    def left_behind(self):
        return os.listdir(self.tmp)

    def cmdline(self, vm):
        """The kernel's command line in a loaded VM object."""
        with open(os.path.join(self.vmm, vm), "rb") as f:
            f.seek(MEM_OFFSET + CMDLINE_ADDR)
            return f.read(4096).split(b"\0", 1)[0].decode()

    def initrd(self, vm):
        """The initrd in a loaded VM object, as the kernel's zero page names it."""
        with open(os.path.join(self.vmm, vm), "rb") as f:
            f.seek(MEM_OFFSET + ZERO_PAGE_ADDR + 0x218)
            at, size = (int.from_bytes(f.read(4), "little") for _ in range(2))
            f.seek(MEM_OFFSET + at)
            return f.read(size)

    def destroy(self, vm):
        return self.run(BHYVECTL, "--destroy", "--vm=" + vm)

    def close(self):
        for c in self.consoles:
            c.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def demo_guest(flavour):
    """The directory of the demo guest with that kernel, made when missing."""
    out = os.path.join(BUILD, "demo-guest" + ("" if flavour == "cloud" else "-" + flavour))
    subprocess.run([os.path.join(SOURCE, "scripts/demo-guest.sh"), "-f", flavour, out],
                   check=True)
    return out


def tiny_kernel(code, magic=b"HdrS"):
    """A bzImage whose 64-bit entry is these bytes of machine code."""
    setup = bytearray(1024)
    payload = bytearray(0x200) + code
    payload += bytes(-len(payload) % 16)
    setup[0x1F1] = 1
    setup[0x1F4:0x1F8] = (len(payload) // 16).to_bytes(4, "little")
    setup[0x1FE:0x200] = b"\x55\xaa"
    setup[0x200:0x202] = b"\xeb\x62"
    setup[0x202:0x206] = magic
    setup[0x206:0x208] = b"\x0f\x02"
    setup[0x211] = 1
    setup[0x22C:0x230] = b"\xff\xff\xff\x7f"
    setup[0x230:0x234] = (0x200000).to_bytes(4, "little")
    setup[0x234] = 1
    setup[0x236:0x238] = b"\x01\x00"
    setup[0x238:0x23C] = (2047).to_bytes(4, "little")
    setup[0x258:0x260] = (0x1000000).to_bytes(8, "little")
    setup[0x260:0x264] = (0x100000).to_bytes(4, "little")
    return bytes(setup + payload)


def make_iso(flow, name, files, volume="TEST"):
    """An ISO9660 image with Rock Ridge of these {path: contents}."""
    tree = tempfile.mkdtemp(dir=flow.dir)
    for path, data in files.items():
        path = os.path.join(tree, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
    subprocess.run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", volume, "-o",
                    flow.path(name), tree], check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return flow.path(name)


def make_ext4(flow, name, files, size="32M", offset=0, uuid="random"):
    """An ext4 image holding these files; offset leaves room for a partition table."""
    tree = tempfile.mkdtemp(dir=flow.dir)
    for path, data in files.items():
        path = os.path.join(tree, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data.encode() if isinstance(data, str) else data)
    image = flow.path(name)
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-U", uuid, "-d", tree, image], check=True, env=env)
    shutil.rmtree(tree)
    if offset == 0:
        return image
    with open(image, "rb") as f:
        body = f.read()
    with open(image, "wb") as f:
        f.write(partition_table(offset, len(body)))
        f.write(bytes(offset - 512))
        f.write(body)
    return image


def partition_table(offset, size):
    """A master boot record with one Linux partition."""
    mbr = bytearray(512)
    mbr[446:462] = (b"\x00\xfe\xff\xff\x83\xfe\xff\xff" + (offset // 512).to_bytes(4, "little")
                    + (size // 512).to_bytes(4, "little"))
    mbr[510:512] = b"\x55\xaa"
    return bytes(mbr)


def fsck(image):
    """e2fsck finds nothing to mend."""
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
    return subprocess.run(["e2fsck", "-fn", image], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)


def main(*tests, system_dir=False):
    """Runs the tests, each in a flow of its own."""
    failed = 0
    for test in tests:
        flow = Flow(system_dir)
        try:
            test(flow)
            print("ok   ", test.__name__, flush=True)
        except Exception:  # pylint: disable=broad-except
            failed += 1
            print("FAIL ", test.__name__)
            traceback.print_exc(file=sys.stdout, limit=-3)
            for c in flow.consoles:
                print(f"--- the end of {c.name}'s console:")
                print(c.text()[-3000:], flush=True)
        finally:
            flow.close()
    sys.exit(1 if failed else 0)
