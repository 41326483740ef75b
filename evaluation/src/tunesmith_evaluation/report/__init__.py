"""Report of an evaluation: document, Markdown, JUnit XML, HTML page, and index of several reports."""
