"""What is told of each request: tokens, access log and traces, never contents."""
