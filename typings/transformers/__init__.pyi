# What pyright knows of transformers: that it is there. To read its two thousand files takes two fifths of a check's
# time, and its models are objects whose parts are found while they run.
from typing import Any

def __getattr__(name: str) -> Any: ...
