/* What bhyve says about itself: -h and --help. */
#include <stdio.h>

#include "bhyve/options.h"

static const char synopsis[] =
    "usage: bhyve [-AaCDeHhIPSuWwxY]\n"
    "             [-c [[cpus=]numcpus][,sockets=n][,cores=n][,threads=n]]\n"
    "             [-G [w][addr:]port] [-f [name=]name,(string|file)=data]\n"
    "             [-K layout] [-k config_file] [-l lpcdev[,conf]]\n"
    "             [-m size[K|M|G|T]] [-n id=id,size=size,cpus=cpus]\n"
    "             [-o var=value] [-p vcpu:hostcpu] [-r file]\n"
    "             [-s slot,emulation[,conf]] [-U uuid] vmname\n"
    "       bhyve --help | --version | -s help | -l help\n";

static const char details[] =
    "\n"
    "Runs the virtual machine vmname, which grub-bhyve has loaded.\n"
    "\n"
    "  -c N, -c sockets=2,cores=2,threads=1\n"
    "                 virtual CPUs (default 1)\n"
    "  -m SIZE        memory: 512M, 4G; a bare number is MB (default 256M);\n"
    "                 the same as the loader was given\n"
    "  -s SLOT,DEVICE[,CONF]\n"
    "                 a PCI device; SLOT is S, S:F or B:S:F; \"-s help\" lists "
    "devices\n"
    "  -l DEVICE[,CONF]\n"
    "                 an LPC device; \"-l help\" lists devices\n"
    "                 com1..com4 take stdio, a terminal's path, tcp=address:port,\n"
    "                 or an end of a null modem: com1,/dev/nmdm0A, see nmdm(8)\n"
    "  -k FILE        reads name=value lines, see bhyve_config(5)\n"
    "  -o NAME=VALUE  sets one variable of bhyve_config(5)\n"
    "  -p VCPU:HOSTCPU\n"
    "                 binds a virtual CPU to a host CPU; may be repeated\n"
    "  -U UUID        system UUID the guest sees (default: from name and host)\n"
    "  -G [w][ADDRESS:]PORT\n"
    "                 GDB's remote protocol on a TCP port (of localhost); with w the\n"
    "                 guest waits for the debugger\n"
    "  -K LAYOUT      keyboard layout for a graphical console\n"
    "  -C             guest memory goes into core dumps\n"
    "  -D             destroys the VM object when the guest powers off\n"
    "  -e             exits when the guest touches a port that is not there\n"
    "  -S             wires guest memory\n"
    "  -u             the guest's clock shows UTC, not local time\n"
    "  -W             virtio devices use MSI in place of MSI-X\n"
    "  -w             unknown MSRs read 0 and ignore writes\n"
    "  -x             x2APIC mode, -a the opposite (default)\n"
    "  -Y             no MP table\n"
    "  -A -H -I -P    accepted for old command lines; idle CPUs always sleep\n"
    "  -h             short usage\n"
    "  -f -n -r       known, but not part of this version: refused\n"
    "\n"
    "Options take effect in the order given; a later one wins.\n"
    "\n"
    "Exit status: 0 the guest rebooted, 1 powered off, 2 halted, 3 triple fault,\n"
    "4 error; 1 and 64 also for wrong usage.\n"
    "SIGTERM presses the guest's power button.\n"
    "\n"
    "Examples\n"
    "  A Linux guest with console here, a disk and a CD:\n"
    "    grub-bhyve -m device.map -r cd0 -M 1024M linuxguest\n"
    "    bhyve -A -H -P -c 2 -m 1024M -s 0:0,hostbridge -s 1:0,lpc \\\n"
    "      -s 3:0,virtio-blk,./linux.img -s 4:0,ahci-cd,./somelinux.iso \\\n"
    "      -l com1,stdio linuxguest\n"
    "    bhyvectl --destroy --vm=linuxguest\n"
    "  What a command line means, as variables:\n"
    "    bhyve -o config.dump=1 -c 4 -s 2,virtio-rnd vm1\n"
    "  The same from a file:\n"
    "    bhyve -k vm1.conf vm1\n";

void usage_short(void)
{
	fputs(synopsis, stderr);
}

void usage_long(void)
{
	fputs(synopsis, stdout);
	fputs(details, stdout);
}
