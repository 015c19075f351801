"""What a results folder holds on disk: reading without trust, seals inside JSON files, hashes of a run's files."""
