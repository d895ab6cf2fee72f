"""Training sets: Larder beside Feast's own DuckDB store, Polars and hand-written DuckDB SQL, over the same Parquet."""
