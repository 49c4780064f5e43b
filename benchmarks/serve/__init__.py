"""The server under load: many streams at once, ten thousand requests, and the same weights behind other servers."""
