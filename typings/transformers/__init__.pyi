# What pyright knows of transformers: that it is there. To read its four thousand files takes most of the time of a check,
# and its models are objects whose parts are found while they run.
from typing import Any

def __getattr__(name: str) -> Any: ...
