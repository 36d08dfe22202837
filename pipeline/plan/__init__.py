"""What was asked and what was decided: frozen, typed data, from options to the plan of an image.

Nothing here reads pixels, opens files or runs a network; modules of higher packages do that and
build these types. `Draft` grows into `ScoredPlan` and then into `Plan`; each is whole when made.
"""
