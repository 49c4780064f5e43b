"""The studio: a page over the same table, the same options and the same worker as the server."""
