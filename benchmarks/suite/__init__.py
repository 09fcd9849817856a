"""The suite: small programs under Debian's kernel on doppel and on its peers, and on the host itself."""
