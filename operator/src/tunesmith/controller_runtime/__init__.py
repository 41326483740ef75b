"""General controller machinery: API client, watches, cache, work queue, leader election, events and TLS.

Independent of the three kinds and of the decisions about them.
"""
