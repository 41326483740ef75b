"""Fetching and publishing of the files at storage URIs: content-addressed, resumable, verified after upload.

``stores`` opens a URI with the Secret of its role; ``artifacts``, ``trees`` and ``mirror`` move folders. The client
library of a store is imported when a URI names that store.
"""
