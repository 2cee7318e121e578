# A daemon on a unix socket that takes what it is asked and never answers; with "datagrams" it reads nothing either.
#
#   silent_daemon.py PATH [datagrams]
#
# Prints "ready" when it is there.
import socket, sys, time

kind = socket.SOCK_DGRAM if "datagrams" in sys.argv else socket.SOCK_STREAM
with socket.socket(socket.AF_UNIX, kind) as daemon:
    daemon.bind(sys.argv[1])
    with open("/proc/self/comm", "w") as name:
        name.write("silent")
    if kind == socket.SOCK_STREAM:
        daemon.listen()
    print("ready", flush=True)
    clients = []
    while kind == socket.SOCK_STREAM:
        client, _ = daemon.accept()
        client.recv(512)
        clients.append(client)
    time.sleep(3600)
