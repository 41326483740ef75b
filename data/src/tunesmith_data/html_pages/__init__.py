"""Self-contained HTML pages: base template, style, script and filters that reports share."""
