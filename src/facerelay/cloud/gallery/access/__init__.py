"""Who may see the gallery: logins by a token or an identity provider, sessions, and the access log."""
