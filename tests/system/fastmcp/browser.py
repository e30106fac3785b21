"""What `webbrowser` opens for fastmcp: the user allows what is asked for, and goes back."""

import sys
from urllib.parse import parse_qs, urlsplit

import httpx
from support.clients.person import allow

url = sys.argv[1]
with open(sys.argv[2], "a") as asked:
    print(parse_qs(urlsplit(url).query)["scope"][0], file=asked)
httpx.get(allow(url)).raise_for_status()
