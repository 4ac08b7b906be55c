"""Status for relying parties over plain HTTP: what is served here is signed by itself."""
