"""What reproduces the papers' own figures and training, and is no part of the product.

`costs` counts operations as the upstream counters do; `train` trains by the papers' own losses;
`narrow` makes the first weights of a narrower CARN.
"""
