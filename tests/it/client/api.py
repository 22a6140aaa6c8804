"""Every call of the Filetracker client's Python API, against the server at argv[1]."""

import hashlib
import os
import sys
import tempfile
import time

import requests
from filetracker.client import Client, FiletrackerError

url = sys.argv[1]
work = tempfile.mkdtemp()
remote_only = Client(local_store=None, remote_url=url)
cached = Client(cache_dir=os.path.join(work, "cache"), remote_url=url)


def local(content):
    path = os.path.join(work, "in-%d" % time.monotonic_ns())
    with open(path, "wb") as out:
        out.write(content)
    return path


def read(client, name, **kwargs):
    path = os.path.join(work, "out-%d" % time.monotonic_ns())
    versioned = client.get_file(name, path, **kwargs)
    with open(path, "rb") as stored:
        return stored.read(), versioned


def expect_error(call, *args):
    try:
        call(*args)
    except FiletrackerError as error:
        return str(error)
    raise AssertionError("%r%r should have failed" % (call, args))


# The version is the client's clock, and comes back from the server.
before = int(time.time())
versioned = remote_only.put_file("/api/a", local(b"first"))
name, version = versioned.split("@")
assert name == "/api/a" and before <= int(version) <= int(time.time()), versioned
assert remote_only.file_version("/api/a") == int(version)
assert read(remote_only, "/api/a") == (b"first", versioned)
assert read(remote_only, versioned) == (b"first", versioned)
assert remote_only.file_size("/api/a") == 5
assert remote_only.remote_store.exists("/api/a")
assert not remote_only.remote_store.exists("/api/none")

# A stream.
stream, stream_name = remote_only.get_stream("/api/a")
assert stream.read() == b"first" and stream_name == versioned

# Compressed by the server, with and without content.
for content in (b"", b"x", os.urandom(300000), b"abc" * 100000):
    for hint in (True, False):
        remote_only.put_file("/api/sizes/%d-%s" % (len(content), hint), local(content), compress_hint=hint)
        assert read(remote_only, "/api/sizes/%d-%s" % (len(content), hint))[0] == content
        assert remote_only.file_size("/api/sizes/%d-%s" % (len(content), hint)) == len(content)

# Explicit versions: newest wins, the answer names the newer one.
store = remote_only.remote_store
assert store.add_file("/api/v@1700000000", local(b"new")) == "/api/v@1700000000"
assert store.add_file("/api/v@1600000000", local(b"old")) == "/api/v@1700000000"
assert read(remote_only, "/api/v@1700000000")[0] == b"new"
assert "not available" in expect_error(read, remote_only, "/api/v@1600000000")
assert store.add_file("/api/zero@0", local(b"zero")) == "/api/zero@0"
assert store.file_version("/api/zero") == 0
assert store.add_file("/api/negative@-5", local(b"negative")) == "/api/negative@-5"
assert read(remote_only, "/api/negative@-5")[0] == b"negative"

# Names that are no ASCII, and names with everything in them.
odd = "/api/odd/za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 100%+&?#=.txt"
remote_only.put_file(odd, local(b"odd"))
assert read(remote_only, odd)[0] == b"odd"

# A cache in between.
versioned = cached.put_file("/api/cached", local(b"cached"))
assert read(cached, versioned)[0] == b"cached"
assert read(cached, "/api/cached", force_refresh=True)[0] == b"cached"
assert read(cached, "/api/cached", add_to_cache=False)[0] == b"cached"
fresh = Client(cache_dir=os.path.join(work, "cache2"), remote_url=url)
assert read(fresh, versioned)[0] == b"cached"
assert [entry.name for entry in fresh.list_local_files()] == [versioned]
only_remote = cached.put_file("/api/only-remote", local(b"r"), to_local_store=False)
assert read(remote_only, only_remote)[0] == b"r"

# Listings.
future = int(time.time()) + 3600
names = sorted(remote_only.list_remote_files(future))
assert "api/a" in names and odd[1:] in names and len(names) == 13, names
assert sorted(remote_only.list_remote_files(future, "/api/odd")) == [odd.rsplit("/", 1)[1]]
assert sorted(remote_only.list_remote_files(1650000000, "/api")) == ["negative", "zero"]
assert expect_error(remote_only.list_remote_files, future, "/nothing")

# What the server holds is the gzip form of the content.
raw = requests.get(url + "/files/api/a", stream=True)
assert raw.headers["Content-Encoding"] == "gzip" and raw.content == b"first"
assert requests.get(url + "/files/api/a", headers={"Accept-Encoding": "identity"}).content == b"first"

# Errors carry their reason.
reason = expect_error(read, remote_only, "/api/none")
assert "404" in reason and "no such file" in reason, reason

# Digests are verified.
answer = requests.put(url + "/files/api/lie", params={"last_modified": "Tue, 14 Nov 2023 22:13:20 -0000"}, data=b"x",
                      headers={"SHA256-Checksum": hashlib.sha256(b"y").hexdigest()})
assert answer.status_code == 400 and "SHA256-Checksum" in answer.headers["X-Exception"]
assert not store.exists("/api/lie")

# Deletions, by the client's clock.
for name in names:
    remote_only.delete_file("/" + name)
expect_error(remote_only.delete_file, "/api/a")
assert list(remote_only.list_remote_files(future)) == []
print("ok")
