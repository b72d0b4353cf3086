"""Pull raw records from a source and land them untouched."""
