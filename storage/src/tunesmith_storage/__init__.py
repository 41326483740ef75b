"""What storage URIs name, fetched and published: content-addressed, resumable, verified after upload.

``open_remote`` opens a URI with the Secret of its role; ``artifacts``, ``trees`` and ``mirror`` move folders. Nothing but
the store that a URI names is imported.
"""
