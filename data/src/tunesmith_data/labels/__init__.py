"""Labels by people: rows as tasks in Argilla or in plain files, and the answers as rows."""
