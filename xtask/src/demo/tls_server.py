# A TLS server that fetches over plain HTTP inside its handshake, as one does that completes its
# certificate chain (AIA) or checks revocation (OCSP, CRL) before it answers.
import socket, ssl, sys, threading
from urllib.parse import urlsplit

address, port, url, cert, key = sys.argv[1], int(sys.argv[2]), urlsplit(sys.argv[3]), sys.argv[4], sys.argv[5]

def fetch(connection, name, context):
    try:
        with socket.create_connection((url.hostname, 80), timeout=6) as http:
            http.sendall(f"GET {url.path} HTTP/1.0\r\n\r\n".encode())
            http.recv(4096)
    except OSError:
        pass  # The chain stays as it is; the handshake goes on.

def serve(client):
    try:
        with context.wrap_socket(client, server_side=True) as tls:
            tls.recv(1)
    except OSError:
        pass

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
context.sni_callback = fetch
listener = socket.create_server((address, port))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
