# A server that speaks no TLS: an event loop that reads what comes and waits for the end of a line, as Redis does.
#
#   plain_server.py ADDRESS PORT plain|ssl
#
# With "ssl" its program has loaded a TLS library all the same. Prints "ready" when it listens.
import select, socket, sys

if sys.argv[3] == "ssl":
    import ssl
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=64)
loop, clients = select.epoll(), {}
loop.register(listener, select.EPOLLIN)
print("ready", flush=True)
while True:
    for fd, _ in loop.poll():
        if fd == listener.fileno():
            client, _ = listener.accept()
            clients[client.fileno()] = client
            loop.register(client, select.EPOLLIN)
        elif not clients[fd].recv(65536):
            clients.pop(fd).close()
