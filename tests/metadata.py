"""The metadata server of a virtual machine of Google Cloud, on the loopback."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MetadataServer:
    """Answers with `values`, by their keys below instance/, which a test may change while it runs."""

    def __init__(self, values: dict[str, str]):
        self.values = values
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                folder, _, key = self.path.partition("/instance/")
                known = folder == "/computeMetadata/v1" and key in server.values
                asked_well = self.headers.get("Metadata-Flavor") == "Google"
                self.send_response(200 if known and asked_well else 404)
                self.end_headers()
                self.wfile.write(server.values.get(key, "").encode())

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
