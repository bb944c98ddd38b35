"""Matching: images optimised until a network sees in them what it sees in real images.

``dm`` matches mean features of random networks, ``dc`` and ``dsa`` gradients of networks that are trained on the
images themselves, ``idc`` gradients of networks that are trained on real images, with several pictures in one image.
They need the training images and nothing else.

``dc``, ``dsa`` and ``idc`` waive the gate that a teacher recognises the images. Their images are made for the gradients
of networks with instance norm: a BatchNorm teacher may see nothing in DC's, which keep the noise that they begin as;
and an IDC image holds several pictures until it is decoded. What the teacher recognised stands in the record.
"""
