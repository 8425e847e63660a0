"""How jobs lie in huey's store: as JSON, so that nothing is ever unpickled."""

from __future__ import annotations

import json
from typing import Any

from huey.registry import Message
from huey.serializer import Serializer


class JsonSerializer(Serializer):  # type: ignore[misc]
    """Messages to a worker and what is stored beside them, each as one JSON object."""

    def _serialize(self, data: Any) -> bytes:
        if isinstance(data, Message):
            return json.dumps({"task": [data.id, data.name, list(data.args or ())]}).encode()
        return json.dumps({"value": data}).encode()

    def _deserialize(self, data: bytes) -> Any:
        row = json.loads(data)
        if "task" in row:
            task_id, name, args = row["task"]
            return Message(task_id, name, None, 0, 0, None, tuple(args), {}, None, None)
        return row["value"]
