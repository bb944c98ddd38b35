"""Coresets: real images that a rule selects; the floors of methods that make new ones.

``el2n`` and ``forgetting`` watch networks learn the training split, ``kcenter`` looks at feature vectors.
"""
