"""Damage to files: flipped bytes, cuts, doublings, and JSON of other shapes. A seed gives the same damage again."""

import json
import random
from typing import Any

_SHAPES: tuple[Any, ...] = (
    *(None, True, 0, -1, 257, 10**30, 0.9, 1e308, "", "\x00", "../../etc/passwd", "=1+1", "\x1b[2J"),
    *([], {}, [[]], {"a": {}}, ["a"] * 3, "9" * 5000, {"auto_map": {"AutoModel": "evil.Evil"}}),
)


class Damage:
    """Draws damage from a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)

    def damaged(self, content: bytes) -> bytes:
        """The content with one to three changes."""
        for _ in range(self.draw.randint(1, 3)):
            if not content:
                return self.draw.randbytes(self.draw.randint(0, 50))
            place = self.draw.randrange(len(content))
            match self.draw.randrange(5):
                case 0:
                    content = content[:place] + bytes([self.draw.randrange(256)]) + content[place + 1 :]
                case 1:
                    content = content[:place]
                case 2:
                    content = content[:place] + self.draw.randbytes(self.draw.randint(1, 9)) + content[place:]
                case 3:
                    content = content[:place] + content[place // 2 :]
                case 4:
                    content = content.replace(content[place : place + 3], b"", self.draw.randint(1, 3))
        return content

    def reshaped(self, content: bytes) -> bytes:
        """JSON with one value of another shape, or damaged bytes."""
        if self.draw.random() < 0.3:
            return self.damaged(content)
        try:
            tree = json.loads(content)
        except ValueError:
            return self.damaged(content)
        if self.draw.random() < 0.1 or not isinstance(tree, dict | list) or not tree:
            return json.dumps(self.draw.choice(_SHAPES)).encode()
        at = tree
        while True:
            key = self.draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if not isinstance(at[key], dict | list) or not at[key] or self.draw.random() < 0.4:
                break
            at = at[key]
        if self.draw.random() < 0.2:
            del at[key]
        else:
            at[key] = self.draw.choice(_SHAPES)
        return json.dumps(tree).encode()
