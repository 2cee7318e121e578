# The network beyond the firewall: takes every packet that is routed here and says nothing. With `tap`, the
# network beyond a switch: takes frames.
import fcntl, os, struct, sys

tun = os.open("/dev/net/tun", os.O_RDWR)
IFF_TUN, IFF_TAP, IFF_NO_PI, TUNSETIFF = 0x0001, 0x0002, 0x1000, 0x400454CA
kind = IFF_TAP if sys.argv[2:] == ["tap"] else IFF_TUN
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", sys.argv[1].encode(), kind | IFF_NO_PI))
print("ready", flush=True)
while True:
    os.read(tun, 65536)
