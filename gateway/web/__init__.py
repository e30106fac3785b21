"""Parts that the pages of the gateway have in common: templates, style, cookies, form tokens,
headers.

Plain values in and out: the sign-in pages are served by the data plane, the console by an
aiohttp application, and both are built from this.
"""
