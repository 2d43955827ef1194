"""From a file to RGB uint8, whatever people keep their images in; everything else is a BrokenImage.

PIL is the reference. Alpha is dropped, not composited: the colours stored underneath are what
torchvision's loader gives, so numbers stay comparable, and no background colour has to be invented.
Sixteen-bit grey is scaled by 1/257 (65535 -> 255), where PIL's own conversion would clip at 255.
EXIF orientation is applied; of several frames or pages the first is taken; colour profiles are
ignored. Most JPEGs are decoded by simplejpeg, where it is installed: the same pixels, sooner, and
without holding the interpreter's lock.
"""

from unlabeled.data.decode.broken import BrokenImage
from unlabeled.data.decode.files import decode_bytes, decode_file
from unlabeled.data.decode.pil import rgb_array

__all__ = ["BrokenImage", "decode_bytes", "decode_file", "rgb_array"]
