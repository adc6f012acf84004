"""Files that hold others: `.npz`, `.keras`."""

import zipfile
import zlib

# What reading a damaged one raises, or one that is something else.
DAMAGES = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
