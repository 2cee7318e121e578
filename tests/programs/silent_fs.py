# A file system in user space that answers nothing but its own beginning, until SECONDS after the first question; then
# every file is missing. COMMAND runs beside it, in a mount namespace of their own, which ends with them.
#
#   silent_fs.py DIRECTORY SECONDS COMMAND…
import ctypes, os, signal, struct, sys, time

CLONE_NEWNS, MS_REC, MS_PRIVATE, PR_SET_PDEATHSIG = 0x20000, 0x4000, 0x40000, 1
INIT, FORGET, BATCH_FORGET, INTERRUPT = 26, 2, 42, 36
ENOENT = 2
libc = ctypes.CDLL(None, use_errno=True)


def call(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def mount(source, target, kind, flags, data):
    call(libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, flags, data), "mount")


def answer(device, unique, error, body=b""):
    os.write(device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)


def serve(device, seconds):
    asked = None
    while True:
        try:
            question = os.read(device, 1 << 17)
        except OSError:
            return
        _, operation, unique = struct.unpack_from("=IIQ", question)
        if operation == INIT:
            major, minor = struct.unpack_from("=II", question, 40)
            # Version, read ahead, flags, background, threshold, the longest write; the rest is zero.
            body = struct.pack("=IIIIHHI", 7, min(minor, 31), 0, 0, 16, 12, 4096) + bytes(40)
            answer(device, unique, 0, body)
            continue
        if operation in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        asked = asked or time.monotonic()
        time.sleep(max(0, asked + seconds - time.monotonic()))
        answer(device, unique, -ENOENT)


directory, seconds, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
call(libc.unshare(CLONE_NEWNS), "unshare")
mount("none", "/", None, MS_REC | MS_PRIVATE, None)
if not os.path.exists("/dev/fuse"):
    os.mknod("/dev/fuse", 0o20666, os.makedev(10, 229))
device = os.open("/dev/fuse", os.O_RDWR)
mount("silent", directory, "fuse.silent", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0".encode())
if os.fork() == 0:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with open("/proc/self/comm", "w") as name:
        name.write("silent")
    os.close(1)
    serve(device, seconds)
    os._exit(0)
os.execv(command[0], command)
