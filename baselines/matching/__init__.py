"""Matching: images optimised until a network sees in them what it sees in real images.

``dm`` matches mean features of random networks, ``dc`` and ``dsa`` gradients of networks that are trained on the
images themselves, ``idc`` gradients of networks that are trained on real images, with several pictures in one image.
They need the training images and nothing else.
"""
