"""Storage of rows: records, Parquet files, row store, split."""
