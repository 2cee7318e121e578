# A TLS client that judges the server's certificate when the handshake is over, as .NET's does: it fetches, and only
# then says its first word.
#
#   validating_client.py ADDRESS PORT FETCH_ADDRESS FETCH_PORT SECONDS
#
# Prints "ready", and begins with the first line of its standard input.
import socket, ssl, sys

context = ssl._create_unverified_context()
print("ready", flush=True)
sys.stdin.readline()
peer = context.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2]))), server_hostname="slow.test")
try:
    socket.create_connection((sys.argv[3], int(sys.argv[4])), timeout=float(sys.argv[5])).close()
except OSError:
    pass
peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
print("asked", flush=True)
sys.stdin.readline()
