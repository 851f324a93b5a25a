"""Models over HTTP and WebSocket, and a page to try them: the extra `[serve]`."""
