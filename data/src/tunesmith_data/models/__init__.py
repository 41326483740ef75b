"""Base models as data preparation sees them: tokenizer, chat template, token counts, sizes."""
