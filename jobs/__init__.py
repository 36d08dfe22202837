"""What a person or a scheduler runs: the command line, the dataset job, ingest, evaluation,
training.
"""
