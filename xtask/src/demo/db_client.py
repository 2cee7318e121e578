# Stands for a worker: connects to the database, reads its line, and closes.
import socket, sys

with open("/proc/self/comm", "w") as name:
    name.write("worker")
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as database:
    sys.exit(0 if database.recv(64) else "the database closed")
