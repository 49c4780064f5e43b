"""What `benchmarks.text` compares: each of these programs decodes with the same random weights."""
