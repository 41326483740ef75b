"""Base models as prepare needs them: tokenizer, chat template, token counts, sizes."""
