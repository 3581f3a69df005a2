"""A class distribution to columns and back: one pure pair of functions per codec.

========  ==============================================================================
`topk`    the k most probable classes, the rest as one number; `mass` makes k adaptive
`dense`   the same k, and the shape of the rest in 19 steps: for temperatures above 1 and
          for ensembles
`hard`    the most probable class alone, as if it were certain
========  ==============================================================================

Each states its error bound in its module. All keep the argmax of every row, and `class_id`,
`confidence` and `entropy` are those of the distribution as it came, before coding.
"""

from plstore.codec.codec import Codec, CodecName, Coded, decode, encode
from plstore.codec.distribution import check

__all__ = ["Codec", "CodecName", "Coded", "check", "decode", "encode"]
