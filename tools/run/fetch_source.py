"""Fetches the one file of a package that has a known hash, as an index lists it, and runs nothing of it.

usage: fetch_source.py INDEX PACKAGE SHA256 FILE
The index is a "simple" one, as pip reads it. Whether what came has the hash is for the caller to see.
"""

import html.parser
import sys
import urllib.parse
import urllib.request

TIMEOUT_S = 60


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag == "a":
            self.found += [value for name, value in attributes if name == "href" and value]


def address_of(page, listing, sha256):
    links = Links()
    links.feed(listing)
    for link in links.found:
        address, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(page, link))
        if fragment == "sha256=" + sha256:
            return address
    sys.exit(f"{page}: lists no file with the SHA-256 {sha256}")


def main():
    index, package, sha256, path = sys.argv[1:]
    page = f"{index.rstrip('/')}/{package}/"
    try:
        with urllib.request.urlopen(page, timeout=TIMEOUT_S) as answer:
            address = address_of(answer.url, answer.read().decode(), sha256)
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer, open(path, "wb") as file:
            while part := answer.read(1 << 20):
                file.write(part)
    except OSError as e:
        sys.exit(f"{page}: {e}; is the network there?")


if __name__ == "__main__":
    main()
