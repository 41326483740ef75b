"""Labels by people: rows go out as tasks, to Argilla or in plain files, and come back with what people said."""
