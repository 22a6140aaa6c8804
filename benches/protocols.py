"""How one content is put and got: as a Filetracker client does it, and as a presigned S3 request.

Both build the request target and the headers only, so that the same code serves wrk, plain sockets and curl.
"""

import hashlib
import hmac
import time
from urllib.parse import quote

HOST = "bench"
VERSION = "Tue%2C+14+Nov+2023+22%3A13%3A20+-0000"


class Filetracker:
    """Protocol 2, with the hint headers of the real client."""

    def put_target(self, name):
        return f"/files/{name}?last_modified={VERSION}"

    def get_target(self, name):
        return f"/files/{name}"

    def list_target(self):
        return "/list/"

    def put_headers(self, content):
        return {
            "Content-Encoding": "gzip",
            "SHA256-Checksum": content.digest,
            "Logical-Size": str(content.size),
        }

    def get_headers(self):
        return {"Accept-Encoding": "gzip, deflate"}


class S3:
    """Path-style S3 with the signature in the query (AWS Signature Version 4, unsigned payload)."""

    def __init__(self, bucket, region, access_key, secret_key):
        self.bucket = bucket
        self.date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.scope = f"{self.date[:8]}/{region}/s3/aws4_request"
        self.query = "&".join([
            "X-Amz-Algorithm=AWS4-HMAC-SHA256",
            f"X-Amz-Credential={quote(f'{access_key}/{self.scope}', safe='')}",
            f"X-Amz-Date={self.date}",
            "X-Amz-Expires=86400",
            "X-Amz-SignedHeaders=host",
        ])
        key = f"AWS4{secret_key}".encode()
        for part in self.scope.split("/"):
            key = _hmac(key, part).digest()
        self.key = key

    def put_target(self, name):
        return self._presigned("PUT", name)

    def get_target(self, name):
        return self._presigned("GET", name)

    def put_headers(self, _content):
        return {}

    def get_headers(self):
        return {}

    def _presigned(self, method, name):
        path = f"/{self.bucket}/{quote(name)}"
        canonical = f"{method}\n{path}\n{self.query}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self.date}\n{self.scope}\n{hashed}"
        return f"{path}?{self.query}&X-Amz-Signature={_hmac(self.key, text).hexdigest()}"


def _hmac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256)
