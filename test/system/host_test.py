#!/usr/bin/env python3
"""bhyve-host and the commands of doc/handbook.md, in a network of their own with a card igb0."""

import os
import re

from harness import BHYVE, BHYVECTL, BUILD, GRUB_BHYVE, SOURCE, Flow, main

HOST = os.path.join(SOURCE, "share/host/bhyve-host")
PROGRAMS = (BHYVE, BHYVECTL, GRUB_BHYVE, HOST, os.path.join(BUILD, "src/nmdm/nmdm"))
CARD = """
set -e
ip link set lo up
ip link add igb0 type veth peer name far
ip link set igb0 up
ip link set far up
ip addr add 192.0.2.10/24 dev igb0
ip addr add 2001:db8::10/64 dev igb0 nodad
ip route add default via 192.0.2.1
ip route add 198.51.100.0/24 via 192.0.2.7
"""


def prepare(flow):
    sbin = flow.path("sbin")
    os.mkdir(sbin)
    for program in PROGRAMS:
        os.symlink(program, os.path.join(sbin, os.path.basename(program)))
    flow.env["PATH"] = ":".join([sbin, flow.env["PATH"], "/usr/sbin", "/sbin"])
    flow.netd = flow.path("networkd")
    flow.env["BHYVE_NETWORKD"] = flow.netd
    flow.env["NMDM_DIR"] = flow.path("nmdm")
    os.mkdir(flow.env["NMDM_DIR"], 0o700)


def in_network(flow, script):
    """Runs a shell script in a new network; status and output."""
    return flow.run("unshare", "-n", "sh", "-c", CARD + script)


def may_unshare(flow):
    if flow.run("unshare", "-n", "true")[0] == 0 and os.access("/dev/net/tun", os.W_OK):
        return True
    print("skip  only root makes networks")
    return False


def lines(text, mark):
    """What was printed between the lines "<mark" and "mark>"."""
    return re.search(rf"^<{mark}\n(.*?)^{mark}>\n", text, re.M | re.S).group(1)


def test_check(flow: Flow):
    prepare(flow)
    code, out = flow.run(HOST, "check")
    assert code == 0, out
    for word in ("POPCNT", "VT-x|SVM", "engine=auto chooses soft", "VM objects in", "null modems",
                 "tap|tun", "io_uring", "huge pages", "GRUB|grub"):
        assert re.search(rf"^(ok|note) .*({word})", out, re.M), (word, out)
    with open("/proc/cpuinfo", encoding="ascii") as f:
        flags = re.search(r"^flags.*", f.read(), re.M).group().split()
    assert ("ok    POPCNT" in out) == ("popcnt" in flags), out
    assert ("ok    VT-x with EPT" in out) == ("vmx" in flags and "ept" in flags), out


def test_setup(flow: Flow):
    """Addresses and routes move and come back; again is no error; nothing is left."""
    prepare(flow)
    if not may_unshare(flow):
        return
    code, out = in_network(flow, """
state() { echo "<$1"; ip -o link show; ip -o addr show scope global; ip route; echo "$1>"; }
state before
bhyve-host setup --bridge bridge0 --nic igb0 --tap tap0 --tap tap1
state during
echo '<files'; ls "$BHYVE_NETWORKD"; echo 'files>'
echo '<text'; cat "$BHYVE_NETWORKD"/*bridge0*; echo 'text>'
ip link show master bridge0 | grep -c mtu
bhyve-host setup --bridge bridge0 --nic igb0 --tap tap0 --tap tap1
state again
bhyve-host teardown --bridge bridge0 --nic igb0 --tap tap0 --tap tap1
state after
""")
    assert code == 0, out

    def addresses(mark):
        return re.findall(r"^\d+: (\S+) +inet6? (\S+)", lines(out, mark), re.M)

    def routes(mark):
        return sorted(re.findall(r"^(\S+ via \S+ dev \S+)", lines(out, mark), re.M))

    ours = ["192.0.2.10/24", "2001:db8::10/64"]
    assert addresses("before") == [("igb0", a) for a in ours], out
    assert addresses("during") == addresses("again") == [("bridge0", a) for a in ours], out
    assert addresses("after") == addresses("before"), out
    assert routes("during") == [r.replace("igb0", "bridge0") for r in routes("before")], out
    assert len(routes("before")) == 2 and routes("after") == routes("before"), out
    mac = re.search(r" igb0@.*ether (\S+)", lines(out, "before")).group(1)
    assert re.search(rf" bridge0: .*ether {mac}", lines(out, "during")), out
    for tap in ("tap0", "tap1"):
        assert re.search(rf" {tap}: .*master bridge0", lines(out, "during")), out
    assert lines(out, "files").split() == sorted(
        f"50-bhyve-{n}" for n in ("bridge0.netdev", "bridge0.network", "igb0.network", "tap0.netdev",
                                  "tap0.network", "tap1.netdev", "tap1.network")), out
    for line in ("Kind=bridge", f"MACAddress={mac}", "Address=192.0.2.10/24", "Gateway=192.0.2.1"):
        assert line in lines(out, "text").split("\n"), (line, out)
    assert "bridge0 is there and is used" in out
    assert "bridge0" not in lines(out, "after") and "tap" not in lines(out, "after"), out
    assert os.listdir(flow.netd) == [] and flow.left_behind() == []


def test_foreign_bridge(flow: Flow):
    """A bridge that somebody else made is used and stays, with its address and its port."""
    prepare(flow)
    if not may_unshare(flow):
        return
    code, out = in_network(flow, """
ip addr flush dev igb0
ip link add br9 type bridge
ip addr add 203.0.113.1/24 dev br9
bhyve-host setup --bridge br9 --nic igb0 --tap tap0
echo '<files'; ls "$BHYVE_NETWORKD"; echo 'files>'
bhyve-host teardown --bridge br9 --nic igb0 --tap tap0
echo '<left'; ip -o addr show scope global; ip -o link show; echo 'left>'
""")
    assert code == 0 and "br9 is there and is used" in out, out
    assert "br9.netdev" not in lines(out, "files"), out
    assert "br9 was not made by bhyve-host and stays" in out, out
    assert re.search(r"br9 +inet 203.0.113.1/24", lines(out, "left")), out
    assert " tap0: " not in out and os.listdir(flow.netd) == [], out


def test_bad_input(flow: Flow):
    prepare(flow)
    if not may_unshare(flow):
        return
    setup, teardown = "bhyve-host setup ", "bhyve-host teardown "
    for command, want, says in (
            ("bhyve-host", 64, "usage"), ("bhyve-host nonsense", 64, "usage"),
            (setup + "--bridge", 64, "usage"), (setup + "--colour x", 64, "--colour: no such option"),
            (setup + "--nic igb0", 1, "no bridge is named"),
            (setup + "--bridge 'a b'", 1, "not the name of an interface"),
            (setup + "--bridge abcdefghijklmnop", 1, "at most 15"),
            (setup + "--bridge bridge0 --nic igb9", 1, "--nic igb9: there is no such interface"),
            (setup + "--bridge igb0", 1, "--bridge igb0: .* is not a bridge; use another name"),
            (setup + "--bridge bridge0 --tap igb0", 1, "--tap igb0: .* is not a tap"),
            (setup + "--bridge bridge0 --user nobody9", 1, "--user nobody9: there is no such user"),
            (teardown + "--bridge bridge7", 1, "bridge7: there is no such interface"),
            (teardown + "--bridge igb0", 1, "igb0: is not a bridge"),
            ("ip link add b1 type bridge; ip link set igb0 master b1; " + setup +
             "--bridge bridge0 --nic igb0", 1, "igb0: is in the bridge b1 already; .*--bridge b1"),
            ("ip link add b1 type bridge; " + teardown + "--bridge b1 --nic igb0", 1,
             "igb0 is not in b1; nothing was changed")):
        code, out = in_network(flow, command)
        assert code == want and re.search(says, " ".join(out.split())), (command, code, out)
        code, out = in_network(flow, f"{{ {command}; }} >/dev/null 2>&1 || true; ip -o link show")
        assert "bridge0" not in out, (command, out)
    assert not os.path.exists(flow.netd) or os.listdir(flow.netd) == []


def test_handbook(flow: Flow):
    """Each block of doc/handbook.md that is marked sh."""
    prepare(flow)
    if not may_unshare(flow):
        return
    with open(os.path.join(SOURCE, "doc/handbook.md"), encoding="utf-8") as f:
        blocks = re.findall(r"^```sh\n(.*?)^```$", f.read(), re.M | re.S)
    assert len(blocks) >= 7
    code, out = in_network(flow, "".join(blocks) + """
echo ALL DONE
ip -o link show master bridge0
ls -ls
""")
    assert code == 0 and "ALL DONE" in out, out
    assert re.search(r" igb0@", out.split("ALL DONE")[1]) and " tap0:" in out, out
    for image in ("guest.img", "linux.img"):
        assert os.stat(flow.path(image)).st_size == 16 << 30
    with open(flow.path("device.map"), encoding="ascii") as f:
        assert f.read() == "(hd0) ./linux.img\n(cd0) ./somelinux.iso\n"
    assert flow.objects() == [] and os.listdir(flow.env["NMDM_DIR"]) == [".nmdm"]


if __name__ == "__main__":
    main(test_check, test_setup, test_foreign_bridge, test_bad_input, test_handbook)
