"""The rules of the zoo's schema for `metadata.json`, meta_schema_20240725.json, in short.

The schema itself is on the web, where tests do not go. These are all of its rules; what it only describes is left out.
"""

from __future__ import annotations

from typing import Any

TEXT, MAP = {"type": "string"}, {"type": "object"}
TEXTS = [
    "schema",
    "version",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "task",
    "description",
    "authors",
    "copyright",
]
OPTIONAL_TEXTS = ["data_source", "data_type", "image_classes", "label_classes", "pred_classes", "intended_use"]
MAPS = ["changelog", "required_packages_version", "eval_metrics", "supported_apps"]

TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        **dict.fromkeys(("type", "format", "dtype"), TEXT),
        "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array", "items": {"type": ["string", "integer"]}},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": MAP,
    },
}
ARGUMENTS = {
    "type": "object",
    "patternProperties": {"^.+$": {"anyOf": [{"type": ["number", "string", "boolean"]}, TENSOR]}},
}
DATA_FORMAT = {
    "type": "object",
    "required": ["inputs", "outputs"],
    "properties": dict.fromkeys(("inputs", "outputs", "post_processed_outputs"), ARGUMENTS),
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [*TEXTS, "required_packages_version", "network_data_format"],
    "properties": {
        **dict.fromkeys(TEXTS + OPTIONAL_TEXTS, TEXT),
        **dict.fromkeys(MAPS, MAP),
        "references": {"type": "array", "items": TEXT},
    },
    "patternProperties": {"^[_a-zA-Z0-9]+_data_format$": DATA_FORMAT},
}
