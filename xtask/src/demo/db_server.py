# Stands for a database: accepts, says a line, and waits for the client to close.
import socket, sys, threading

def serve(client):
    with client:
        client.sendall(b"ready for queries\n")
        client.recv(1)

with open("/proc/self/comm", "w") as name:
    name.write("database")
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
