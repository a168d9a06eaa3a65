"""What LDAP clients feel through the product: `python -m bench.ldap`; `docs/perf-ldap.md` is the guide."""
