"""General controller machinery: API client, watches, cache, work queue, leader election, events and TLS.

It knows neither the three kinds nor what is decided about them.
"""
