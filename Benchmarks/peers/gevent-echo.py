# Evergreen: the gevent peer, an echo server on StreamServer, one greenlet per connection.
# SPDX-License-Identifier: MIT

import socket
import sys

from gevent.server import StreamServer


def serve(connection, address):
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            data = connection.recv(65536)
            if not data:
                return
            connection.sendall(data)
    except ConnectionError:
        return  # the load generator ends by resetting its connections


server = StreamServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), serve, backlog=4096)
server.start()
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
