#!/usr/bin/env python3
"""filetracker1.py SOURCE DIR PORT: serves DIR as a Filetracker server of version 1 does, on 127.0.0.1.

SOURCE is the unpacked filetracker 1.1.0 from PyPI. Its server is lighttpd, which reads files itself, and a script that takes
everything else. Here the script is the real one: only its syntax is brought to Python 3. What lighttpd does is done by
a web server of static files: it has no listing of folders, and hands a body on only when it is whole.
"""

import http.server
import io
import os
import re
import sys
import types

source, folder, port = sys.argv[1], os.path.abspath(sys.argv[2]), int(sys.argv[3])
os.makedirs(os.path.join(folder, "files"), exist_ok=True)


def text(*path):
    with open(os.path.join(source, "filetracker", *path), encoding="utf-8") as file:
        old = file.read()
    old = re.sub(r"except ([\w.]+), (\w+):", r"except \1 as \2:", old)
    old = re.sub(r"^(\s*)print (.+)$", r"\1print(\2)", old, flags=re.MULTILINE)
    return old.replace("basestring", "str")


def module(name, code):
    made = types.ModuleType(name)
    exec(compile(code, name, "exec"), made.__dict__)  # pylint: disable=exec-used
    sys.modules[name] = made
    return made


# Of the package itself the server uses one function; the rest is the client.
root = module("filetracker", re.search(r"^def _check_name\(.*?(?=^\S)", text("__init__.py"), re.DOTALL | re.MULTILINE)[0])
root.servers = module("filetracker.servers", "")
root.servers.base = module("filetracker.servers.base", text("servers", "base.py"))
script = module("filetracker.servers.files", text("servers", "files.py")).LocalFileServer(folder)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Reads as lighttpd, writes by the script."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args):
        super().__init__(*args, directory=folder)

    def list_directory(self, path):
        self.send_error(403)

    def log_message(self, *args):
        pass

    def run_script(self):
        from urllib.parse import unquote_to_bytes

        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) != length or not self.path.startswith("/files/"):
            self.close_connection = True
            if len(body) == length:
                self.send_error(404)
            return
        path = unquote_to_bytes(self.path[len("/files"):].split("?")[0])
        environ = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": os.fsdecode(path),
            "wsgi.input": io.BytesIO(body),
        }
        if "Last-Modified" in self.headers:
            environ["HTTP_LAST_MODIFIED"] = self.headers["Last-Modified"]
        said = []
        pieces = script(environ, lambda status, headers, *_: said.append((status, headers)))
        answer = b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in pieces)
        status, headers = said[-1]
        self.send_response(int(status.split()[0]))
        for name, value in headers:
            if name != "Content-Length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST = do_DELETE = run_script


http.server.ThreadingHTTPServer.daemon_threads = True
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
