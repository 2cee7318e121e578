# A TCP client without a kernel: it decides what each segment holds, in which order they go, and what gets lost.
#
#   segments.py DEVICE SOURCE TARGET PORT TARGET_MAC PLAN
#
# PLAN is JSON: {"sends": [[offset, "hex"], …], "acks": true|false, "again": seconds}. It asks for a connection, acknowledges
# the answer unless it is not to (that segment is "lost"), sends the segments, and prints "sent". Every segment is
# sent again each `again` seconds, if that is given. Lives until its standard input ends.
import json, random, select, socket, struct, sys, time

device, source, target, port, mac, plan = sys.argv[1:4] + [int(sys.argv[4]), sys.argv[5], json.loads(sys.argv[6])]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
wire.bind((device, 0x0800))
here, there = socket.inet_aton(source), socket.inet_aton(target)
own = random.randrange(20000, 60000)
SYN, PUSH, ACK = 2, 8, 16


def total(data):
    data += b"\0" * (len(data) % 2)
    words = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return ~words & 0xFFFF


def segment(seq, ack, flags, data=b""):
    options = b"\2\4\5\xb4\4\2\1\1" if flags & SYN else b""  # A maximum segment size; selective acknowledgements.
    offset = (20 + len(options)) // 4 << 4
    head = lambda check: struct.pack("!HHIIBBHHH", own, port, seq & 0xFFFFFFFF, ack, offset, flags, 65000, check, 0)
    tail = options + data
    pseudo = here + there + struct.pack("!BBH", 0, 6, 20 + len(tail))
    tcp = head(total(pseudo + head(0) + tail)) + tail
    ip = lambda check: struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, check) + here + there
    to = bytes(int(part, 16) for part in mac.split(":"))
    wire.sendto(ip(total(ip(0))) + tcp, (device, 0x0800, 0, 0, to))


def answer():
    while True:
        packet = wire.recv(65536)
        at = (packet[0] & 15) * 4
        if packet[9] == 6 and packet[12:20] == there + here and packet[at + 13] & (SYN | ACK) == SYN | ACK:
            if struct.unpack("!HH", packet[at : at + 4]) == (port, own):
                return struct.unpack("!I", packet[at + 4 : at + 8])[0]


first = random.randrange(1 << 31)
segment(first, 0, SYN)
ack = answer() + 1 & 0xFFFFFFFF
if plan.get("acks", True):
    segment(first + 1, ack, ACK)


def send():
    for offset, data in plan["sends"]:
        segment(first + 1 + offset, ack, PUSH | ACK, bytes.fromhex(data))


send()
print("sent", own, flush=True)
while not select.select([sys.stdin], [], [], plan.get("again"))[0]:
    send()
