"""Server: the HTTP API and the console: the only room that knows status codes."""
