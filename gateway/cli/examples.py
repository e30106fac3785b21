"""Examples of each command, for its help and for the reference."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": ("gateway init", "gateway init --upstream http://127.0.0.1:3000 -c other.yaml"),
    "run": ("gateway run", "gateway run -c /etc/gateway/gateway.yaml"),
    "check": ("gateway check gateway.yaml", "gateway check --online --json"),
    "schema": ("gateway schema -o gateway.schema.json",),
    "routes": ("gateway routes", "gateway routes --json"),
    "status": ("gateway status", "gateway status --url http://10.0.0.5:9090 --token-file token"),
    "reload": ("gateway reload",),
    "explain": (
        "gateway explain GET /api/orders",
        "gateway explain POST https://api.example.com/api/orders -H 'X-Tenant: blue' "
        "--source 10.0.0.7",
    ),
    "client create": (
        "gateway client create shop",
        "gateway client create shop --name 'The shop' --scope 'orders:read orders:write'",
        "gateway client create web --grant-type authorization_code "
        "--redirect-uri https://web.example.com/callback",
        'printf %s "$SECRET" | gateway client create shop --secret-file -',
    ),
    "client list": ("gateway client list", "gateway client list --json --limit 100 --after shop"),
    "client show": ("gateway client show shop",),
    "client update": ("gateway client update shop --scope orders:read",),
    "client renew": ("gateway client renew shop",),
    "client end-overlap": ("gateway client end-overlap shop",),
    "client release": ("gateway client release billing",),
    "client hash": (
        "gateway client hash",
        'printf %s "$SECRET" | gateway client hash --secret-file -',
    ),
    "client rotate": (
        "gateway client rotate shop",
        "gateway client rotate shop --grace 1h",
        "gateway client rotate shop --revoke-tokens",
    ),
    "client limit": (
        "gateway client limit shop --requests 100 --per 1s --burst 200",
        "gateway client limit shop --none",
    ),
    "client delete": ("gateway client delete shop",),
    "token issue": (
        "TOKEN=$(gateway token issue shop)",
        "gateway token issue shop --scope orders:read --ttl 5m",
    ),
    "token list": ("gateway token list shop", "gateway token list shop --limit 10000 --json"),
    "token inspect": ('printf %s "$TOKEN" | gateway token inspect',),
    "token revoke": ('printf %s "$TOKEN" | gateway token revoke',),
    "token families": (
        "gateway token families web",
        "gateway token families web --revoke-all",
    ),
    "admin create": (
        "gateway admin create alice",
        'printf %s "$PASSWORD" | gateway admin create bob --role viewer --password-file -',
    ),
    "admin list": ("gateway admin list",),
    "admin show": ("gateway admin show alice",),
    "admin token show": ("gateway admin token show ci",),
    "key create": (
        "gateway key create shop --name nightly-export",
        "gateway key create shop --name partner --scope orders:read --expires 90d --requests 10",
    ),
    "key list": ("gateway key list shop",),
    "key rotate": ("gateway key rotate shop KEY_ID --overlap 1d",),
    "key revoke": ("gateway key revoke shop KEY_ID",),
    "key inspect": ('printf %s "$KEY" | gateway key inspect',),
    "key show": ("gateway key show KEY_ID --json",),
    "signing-key list": ("gateway signing-key list",),
    "signing-key show": ("gateway signing-key show KEY_ID --json",),
    "admin password": ("gateway admin password alice",),
    "admin role": ("gateway admin role bob operator",),
    "admin delete": ("gateway admin delete bob",),
    "admin token create": (
        "gateway admin token create ci --role operator --expires 30d",
        "gateway admin token create dashboard --json",
    ),
    "admin update": ("gateway admin update alice --role viewer",),
    "admin token list": ("gateway admin token list",),
    "admin token revoke": ("gateway admin token revoke ci",),
    "user create": (
        "gateway user create carol --name 'Carol C.'",
        'printf %s "$PASSWORD" | gateway user create carol --password-file -',
    ),
    "user list": ("gateway user list", "gateway user list --limit 100 --after carol"),
    "user update": ("gateway user update carol --name 'Carol Clark'",),
    "user show": ("gateway user show carol",),
    "user password": ("gateway user password carol",),
    "user delete": ("gateway user delete carol",),
    "import mule": ("gateway import mule provider.xml --properties prod.properties --dry-run",),
    "migrate": (
        "gateway migrate --from sqlite:///./gateway.db --to redis://127.0.0.1:6379/0",
        "gateway migrate --from sqlite:///./gateway.db --to @redis-url",
    ),
    "backup": ("gateway backup gateway-2026-01-31.db",),
    "restore": ("gateway restore gateway-2026-01-31.db",),
    "completion": (
        "source <(gateway completion bash)",
        "gateway completion fish > ~/.config/fish/completions/gateway.fish",
    ),
    "manpage": ("gateway manpage > gateway.1",),
    "version": ("gateway version",),
    "help": ("gateway help client create",),
}
