"""Level 5: HTTP over the same table and the same options. `app.build(Settings())` is the whole server."""
