# A TLS server (OpenSSL) whose SNI callback does what PLAN says for the name asked for.
#
#   tls_server.py ADDRESS PORT CERT KEY PLAN
#
# PLAN is JSON: {"sni": {"name": ["fetch", "192.0.2.64", 80, 3]}, "serve": "threads"|"single"|"pool"|"fork",
# "background": [["fetch", …]], "defer_accept": seconds, "fast_open": queue, "out_of_descriptors": seconds,
# "pause": seconds}. Prints "ready" when it listens; what is in the background begins with the
# first line of its standard input.
import json, os, resource, select, socket, ssl, struct, subprocess, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

QUESTION = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\4apps\tidentrust\7example\0\0\1\0\1"


def fetch(address, port, timeout, times=1, pause=0):
    for _ in range(times):
        time.sleep(pause)
        try:
            socket.create_connection((address, port), timeout=timeout).close()
        except OSError:
            pass


def request(address, port, timeout):
    with socket.create_connection((address, port)) as peer:
        peer.settimeout(timeout)
        peer.sendall(b"GET /issuer.der HTTP/1.0\r\n\r\n")
        try:
            peer.recv(4096)
        except OSError:
            pass


def resolve(address, timeout):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        resolver.settimeout(timeout)
        resolver.connect((address, 53))
        resolver.send(QUESTION)
        try:
            resolver.recv(512)
        except OSError:
            pass


def resolve_tcp(address, timeout):
    with socket.create_connection((address, 53)) as resolver:
        resolver.settimeout(timeout)
        resolver.sendall(len(QUESTION).to_bytes(2, "big") + QUESTION)
        try:
            resolver.recv(512)
        except OSError:
            pass


def helper(address, port, timeout):
    code = f"import socket\ntry: socket.create_connection(({address!r}, {port}), timeout={timeout})\nexcept OSError: pass"
    subprocess.run([sys.executable, "-S", "-c", code], capture_output=True)


def locked(seconds):
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(seconds, lock.release).start()
    lock.acquire()


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def executor(*args):
    pool.submit(ACTIONS[args[0]], *args[1:]).result()


def shell(command):
    subprocess.run(command, shell=True, capture_output=True)


def again(delay, times, action):
    time.sleep(delay)
    for _ in range(times):
        act(action)


def log(address, port):
    if address not in logs:
        logs[address] = socket.create_connection((address, port))
    logs[address].sendall(b"<134>tls: a client came\n")


def ask_daemon(path, timeout):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.connect(path)
        daemon.sendall(b"issuer?")
        daemon.settimeout(timeout)
        try:
            daemon.recv(512)
        except OSError:
            pass


def log_locally(path, timeout):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as logger:
        logger.connect(path)
        logger.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(timeout), int(timeout % 1 * 1e6)))
        try:
            while True:
                logger.send(b"<134>tls: a client came")
        except OSError:
            pass


def read_file(path):
    try:
        with open(path) as file:
            file.read()
    except OSError:
        pass


def fill_pipe(command, seconds):
    with subprocess.Popen(command, stdin=subprocess.PIPE) as reader:
        threading.Timer(seconds, reader.kill).start()
        try:
            while True:
                os.write(reader.stdin.fileno(), bytes(4096))
        except OSError:
            pass


def both(*actions):
    for action in actions:
        act(action)


ACTIONS = dict(
    fetch=fetch, request=request, resolve=resolve, resolve_tcp=resolve_tcp, helper=helper, locked=locked, spin=spin,
    executor=executor, sleep=time.sleep, shell=shell, again=again, log=log, both=both, ask_daemon=ask_daemon,
    log_locally=log_locally, read_file=read_file, fill_pipe=fill_pipe,
)


def act(action):
    ACTIONS[action[0]](*action[1:])


def on_name(connection, name, _):
    if name in plan.get("sni", {}):
        act(plan["sni"][name])


def serve(client):
    # A worker that is busy with its first customer before it has read a word.
    if "before" in plan:
        act(plan["before"])
    try:
        context.wrap_socket(client, server_side=True).close()
    except OSError:
        pass


address, port, cert, key, plan = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], json.loads(sys.argv[5])
pool = ThreadPoolExecutor(4)
workers = ThreadPoolExecutor(1)
logs = {}  # Connections to collectors of log lines, who never say a word.
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
context.sni_callback = on_name
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.create_server((address, port), family=family, backlog=64)
for option, name in ("TCP_DEFER_ACCEPT", "defer_accept"), ("TCP_FASTOPEN", "fast_open"):
    if name in plan:
        listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), plan[name])
held = []  # Descriptors that are held until some seconds after the first accept has failed.
if "out_of_descriptors" in plan:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass


def accept():
    failed = None
    while True:
        try:
            return listener.accept()[0]
        except OSError:
            failed = failed or time.monotonic()
            time.sleep(0.1)
            if time.monotonic() - failed > plan["out_of_descriptors"]:
                for _ in range(min(8, len(held))):
                    os.close(held.pop())


print("ready", flush=True)
if "background" in plan:
    sys.stdin.readline()  # Whoever watches is watching now.
for action in plan.get("background", []):
    threading.Thread(target=act, args=(action,), daemon=True).start()
if "pause" in plan:
    select.epoll().poll(plan["pause"])  # As an event loop that is at its limit on connections.
while True:
    client = accept()
    how = plan.get("serve", "threads")
    if how == "single":
        serve(client)
    elif how == "fork":
        if os.fork() == 0:
            listener.close()
            serve(client)
            os._exit(0)
        client.close()
    elif how == "pool":
        workers.submit(serve, client)
    else:
        threading.Thread(target=serve, args=(client,), daemon=True).start()
