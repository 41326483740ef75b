"""HTTP endpoint clients: retries, chat requests, a journal of answers."""
