"""What a network's card says of routing: observed on photos, summed up as curves over scores.

Nothing here trains a network.
"""
