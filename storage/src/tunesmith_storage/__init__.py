"""What storage URIs name, fetched and published: content-addressed, resumable, verified after upload.

``open_remote`` opens a URI with the Secret of its role; ``artifacts``, ``trees``, ``mirror`` move folders. The client
of a store is imported when a URI names it.
"""
