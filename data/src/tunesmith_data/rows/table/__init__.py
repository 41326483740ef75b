"""Rows in tables: records, Parquet files, the row store, the split."""
